#if defined(__x86_64__) || defined(_M_X64)

#include "../functions.h"

namespace layerstream::cpu::avx2 {

extern const KernelTable kTable = {
    "avx2",
    {matmul_f32, matmul_f16, matmul_bf16, matmul_q8, matmul_q4},
    attention,
    norm,
    activate,
    rope,
    soft_cap,
    {dequantize_row_f32, dequantize_row_f16, dequantize_row_bf16, dequantize_row_q8, dequantize_row_q4},
    quantize,
};

}  // namespace layerstream::cpu::avx2

#endif
