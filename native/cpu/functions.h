// The functions behind the kernel tables: the same set in one namespace for each instruction set.
//
// Files of an instruction set are compiled with its own flags, so nothing in them may have vague linkage: an inline
// function or template instance that the linker keeps from an AVX-512 file would crash older processors. Helpers live
// in anonymous namespaces.
#pragma once

#include "kernels.h"

// The kernels' names of all formats, in the order of Format.
#define LAYERSTREAM_FORMATS(each)                                                                                   \
  each(f32) each(f16) each(bf16) each(q8) each(q4)                                                                 \
  each(u2) each(u3) each(u4) each(u8) each(fp8) each(mxfp4) each(nf4)                                              \
  each(q8_0) each(q4_0) each(q4_1) each(q5_0) each(q5_1) each(q2_k) each(q3_k) each(q4_k) each(q5_k) each(q6_k)    \
  each(bf16_window)

#define LAYERSTREAM_DECLARE_FORMAT(name)                                                                            \
  void matmul_##name(const MatmulArgs& args);                                                                       \
  void dequantize_row_##name(const uint8_t* row, uint32_t columns, uint32_t block, float* output);

// For the tables of kernels.
#define LAYERSTREAM_MATMUL(name) matmul_##name,
#define LAYERSTREAM_DEQUANTIZE_ROW(name) dequantize_row_##name,

#define LAYERSTREAM_DECLARE_KERNELS(isa)                                                                            \
  namespace layerstream::cpu::isa {                                                                                 \
  LAYERSTREAM_FORMATS(LAYERSTREAM_DECLARE_FORMAT)                                                                   \
  void attention(const AttentionArgs& args);                                                                        \
  void encode_kv(KvFormat format, const float* source, uint32_t dim, uint8_t* target, float* scale);                \
  void norm(const NormArgs& args);                                                                                  \
  void activate(const ActivationArgs& args);                                                                        \
  void rope(const RopeArgs& args);                                                                                  \
  void soft_cap(float* values, size_t count, float cap);                                                            \
  bool quantize(const QuantizeArgs& args);                                                                          \
  uint64_t peak_f32(uint32_t iterations);                                                                           \
  extern const KernelTable kTable;                                                                                  \
  }

LAYERSTREAM_DECLARE_KERNELS(scalar)
LAYERSTREAM_DECLARE_KERNELS(avx2)
LAYERSTREAM_DECLARE_KERNELS(avx512)
LAYERSTREAM_DECLARE_KERNELS(neon)

#undef LAYERSTREAM_DECLARE_KERNELS
#undef LAYERSTREAM_DECLARE_FORMAT
