#include "../functions.h"

namespace layerstream::cpu::scalar {

extern const KernelTable kTable = {
    "scalar",
    {matmul_f32, matmul_f16, matmul_bf16, matmul_q8, matmul_q4},
    attention,
    norm,
    activate,
    rope,
    soft_cap,
    {dequantize_row_f32, dequantize_row_f16, dequantize_row_bf16, dequantize_row_q8, dequantize_row_q4},
    quantize,
};

}  // namespace layerstream::cpu::scalar

