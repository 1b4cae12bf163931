// exp and what follows from it, written once over sixteen lanes. Included by the generic kernels after an instruction
// set's simd.h.
#pragma once

namespace layerstream::cpu::LAYERSTREAM_ISA {
namespace {

// A polynomial of x by its coefficients, that of the highest power first.
template <int kCount>
inline Floats polynomial(const float (&coefficients)[kCount], Floats x) {
  Floats result = broadcast(coefficients[0]);
  for (int i = 1; i < kCount; i++) result = multiply_add(result, x, broadcast(coefficients[i]));
  return result;
}

// e^x for x <= 0, relative error below 2e-7; 0 below -87.3, where float32 would become subnormal. NaN stays NaN.
//
// x = n ln 2 + r with |r| <= ln(2) / 2, in two parts so that n ln 2 is nearly exact (Cody and Waite); e^r by its
// Taylor series to r^7, whose remainder is 6e-9.
inline Floats exponential(Floats x) {
  const Floats least = broadcast(-87.3f);
  const Floats limited = maximum(least, x);
  const Floats shift = broadcast(0x1.8p23f);
  const Floats shifted = multiply_add(limited, broadcast(0x1.715476p0f), shift);
  const Floats power = shifted - shift;
  Floats r = multiply_add(power, broadcast(-0x1.62e4p-1f), limited);
  r = multiply_add(power, broadcast(-0x1.7f7d1cp-20f), r);
  constexpr float kTaylor[] = {1.0f / 5040, 1.0f / 720, 1.0f / 120, 1.0f / 24, 1.0f / 6, 0.5f, 1.0f, 1.0f};
  return select_less(x, least, broadcast(0.0f), scale_by_power(polynomial(kTaylor, r), shifted));
}

// -|x|
inline Floats negative(Floats x) {
  const Floats zero = broadcast(0.0f);
  return select_less(zero, x, zero - x, x);
}

// factor / (1 + e^-x), relative error below 1e-6 where the result is a normal number.
inline Floats times_sigmoid(Floats factor, Floats x) {
  const Floats one = broadcast(1.0f);
  const Floats decay = exponential(negative(x));  // e^-|x| cannot overflow
  const Floats numerator = select_less(x, broadcast(0.0f), decay, one);
  return factor * numerator / (one + decay);
}

// Relative error below 1e-6. Near 0, where 1 - e^-2|x| cancels, an odd polynomial, fitted to 2e-8 for |x| <= 0.624.
inline Floats hyperbolic_tangent(Floats x) {
  const Floats zero = broadcast(0.0f);
  const Floats one = broadcast(1.0f);
  const Floats decay = exponential(broadcast(2.0f) * negative(x));
  const Floats magnitude = (one - decay) / (one + decay);
  const Floats quotient = select_less(x, zero, zero - magnitude, magnitude);
  const Floats square = x * x;
  constexpr float kCoefficients[] = {-0.00609219451f, 0.0209932739f, -0.0538498592f, 0.133327607f, -0.333333288f};
  const Floats series = multiply_add(polynomial(kCoefficients, square) * square, x, x);
  return select_less(square, broadcast(0.39f), series, quotient);
}

// P(z <= x) where z has the standard normal distribution; relative error below 2e-6 for x > -5, where the result is
// 3e-7, and growing with x^2 from there.
//
// The tail is erfc(y) / 2 with y = |x| / sqrt(2). erfc(y) e^(y^2) (1 + 0.4 y) is smooth, and a polynomial in
// 1 / (1 + 0.4 y), fitted to 6e-8 for y <= 9.4; e^(-y^2) is 0 from there on.
inline Floats normal_probability(Floats x) {
  const Floats one = broadcast(1.0f);
  const Floats t = one / multiply_add(negative(x), broadcast(-0.282842712f), one);
  constexpr float kCoefficients[] = {0.0203422743f, -0.068718937f, 0.0388813867f, 0.0477152463f, 0.0371666704f,
                                     0.0979142361f, 0.100614726f,  0.113270342f, 0.112814086f};
  const Floats tail = exponential(x * x * broadcast(-0.5f)) * t * polynomial(kCoefficients, t);
  return select_less(x, broadcast(0.0f), tail, one - tail);
}

}  // namespace
}  // namespace layerstream::cpu::LAYERSTREAM_ISA
