#if defined(__x86_64__) || defined(_M_X64)

#include "../functions.h"

namespace layerstream::cpu::avx512 {

extern const KernelTable kTable = {
    "avx512",
    {LAYERSTREAM_FORMATS(LAYERSTREAM_MATMUL)},
    attention,
    encode_kv,
    norm,
    activate,
    rope,
    soft_cap,
    {LAYERSTREAM_FORMATS(LAYERSTREAM_DEQUANTIZE_ROW)},
    quantize,
    peak_f32,
};

}  // namespace layerstream::cpu::avx512

#endif
