// OpenCL C 1.2. Ops name their memory by a buffer and an offset in bytes, as backend/ops.h does.
#pragma OPENCL FP_CONTRACT OFF

// Helpers are parts of their kernels: calls would cost more than they do.
#define INLINE inline __attribute__((always_inline))

#define FLOATS(memory, offset) ((global float*)((global uchar*)(memory) + (offset)))
#define WORDS(memory, offset) ((global const uint*)((global const uchar*)(memory) + (offset)))

// Every kernel rounds alike, whatever its shape: sums are the same bits on one device.
#if defined(FP_FAST_FMAF) || defined(__FMA__) || defined(__ARM_FEATURE_FMA)
#define MULTIPLY_ADD(a, b, c) fma(a, b, c)
#else
#define MULTIPLY_ADD(a, b, c) mad(a, b, c)
#endif

INLINE float sigmoid(float x) { return 1.0f / (1.0f + exp(-x)); }

// Drivers' own may lie outside of [-1, 1]. Its series near 0, where the quotient would lose digits.
INLINE float hyperbolic_tangent(float x) {
  const float square = x * x;
  const float series = MULTIPLY_ADD(square, MULTIPLY_ADD(square, MULTIPLY_ADD(square, 62.0f / 2835.0f, -17.0f / 315.0f), 2.0f / 15.0f), -1.0f / 3.0f);
  return fabs(x) < 0.3f ? MULTIPLY_ADD(x * square, series, x) : 1.0f - 2.0f / (1.0f + exp(2.0f * x));
}

INLINE float sum16(float16 v) {
  const float8 a = v.lo + v.hi;
  const float4 b = a.lo + a.hi;
  const float2 c = b.lo + b.hi;
  return c.x + c.y;
}

// float16 by integer arithmetic: half is no type that every device has, and subnormals may be flushed.
INLINE float half_value(uint half_bits) {
  const uint sign = (half_bits & 0x8000u) << 16;
  const uint magnitude = half_bits & 0x7fffu;
  const float small = (float)magnitude * 0x1p-24f;
  const uint normal = (magnitude << 13) + (112u << 23);
  const uint special = (magnitude << 13) | 0x7f800000u;
  const uint bits = magnitude < 0x400u ? as_uint(small) : magnitude < 0x7c00u ? normal : special;
  return as_float(sign | bits);
}

INLINE float8 half_values(ushort8 halves) {
  const uint8 sign = convert_uint8(halves & (ushort8)(0x8000)) << 16;
  const uint8 magnitude = convert_uint8(halves & (ushort8)(0x7fff));
  const uint8 small = as_uint8(convert_float8(magnitude) * 0x1p-24f);
  const uint8 normal = (magnitude << 13) + (112u << 23);
  const uint8 special = (magnitude << 13) | 0x7f800000u;
  const uint8 bits = select(select(special, normal, magnitude < (uint8)(0x7c00u)), small, magnitude < (uint8)(0x400u));
  return as_float8(sign | bits);
}

INLINE uint load_ushort(global const uchar* source) { return as_ushort(vload2(0, source)); }
INLINE uint load_uint(global const uchar* source) { return as_uint(vload4(0, source)); }
#if HOST_PROCESSOR && defined(__F16C__)
// Conversion in hardware, whose types are others of the same size.
typedef union {
  ushort8 halves;
  short elements __attribute__((vector_size(16)));
} EightHalves;
INLINE float load_half(global const uchar* source) {
  EightHalves input;
  input.halves = (ushort8)((ushort)load_ushort(source));
  return __builtin_ia32_vcvtph2ps(input.elements)[0];
}
#else
INLINE float load_half(global const uchar* source) { return half_value(load_ushort(source)); }
#endif
INLINE float load_float(global const uchar* source) { return as_float(load_uint(source)); }
