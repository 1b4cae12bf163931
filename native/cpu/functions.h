// The functions behind the kernel tables: the same set in one namespace for each instruction set.
//
// Files of an instruction set are compiled with its own flags, so nothing in them may have vague linkage: an inline
// function or template instance that the linker keeps from an AVX-512 file would crash older processors. Helpers live
// in anonymous namespaces.
#pragma once

#include "kernels.h"

#define LAYERSTREAM_DECLARE_KERNELS(isa)                                                                            \
  namespace layerstream::cpu::isa {                                                                                 \
  void matmul_f32(const MatmulArgs& args);                                                                          \
  void matmul_f16(const MatmulArgs& args);                                                                          \
  void matmul_bf16(const MatmulArgs& args);                                                                         \
  void matmul_q8(const MatmulArgs& args);                                                                           \
  void matmul_q4(const MatmulArgs& args);                                                                           \
  void dequantize_row_f32(const uint8_t* row, uint32_t columns, uint32_t block, float* output);                     \
  void dequantize_row_f16(const uint8_t* row, uint32_t columns, uint32_t block, float* output);                     \
  void dequantize_row_bf16(const uint8_t* row, uint32_t columns, uint32_t block, float* output);                    \
  void dequantize_row_q8(const uint8_t* row, uint32_t columns, uint32_t block, float* output);                      \
  void dequantize_row_q4(const uint8_t* row, uint32_t columns, uint32_t block, float* output);                      \
  void attention(const AttentionArgs& args);                                                                        \
  void norm(const NormArgs& args);                                                                                  \
  void activate(const ActivationArgs& args);                                                                        \
  void rope(const RopeArgs& args);                                                                                  \
  void soft_cap(float* values, size_t count, float cap);                                                            \
  bool quantize(const QuantizeArgs& args);                                                                          \
  extern const KernelTable kTable;                                                                                  \
  }

LAYERSTREAM_DECLARE_KERNELS(scalar)
LAYERSTREAM_DECLARE_KERNELS(avx2)
LAYERSTREAM_DECLARE_KERNELS(avx512)
LAYERSTREAM_DECLARE_KERNELS(neon)

#undef LAYERSTREAM_DECLARE_KERNELS
