// exp, written once over sixteen lanes. Included by the generic kernels after an instruction set's simd.h.
#pragma once

namespace layerstream::cpu::LAYERSTREAM_ISA {
namespace {

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
  Floats result = broadcast(1.0f / 5040);
  constexpr float kCoefficients[] = {1.0f / 720, 1.0f / 120, 1.0f / 24, 1.0f / 6, 0.5f, 1.0f, 1.0f};
  for (float coefficient : kCoefficients) {
    result = multiply_add(result, r, broadcast(coefficient));
  }
  return select_less(x, least, broadcast(0.0f), scale_by_power(result, shifted));
}

}  // namespace
}  // namespace layerstream::cpu::LAYERSTREAM_ISA
