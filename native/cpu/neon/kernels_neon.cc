#if defined(__aarch64__) || defined(_M_ARM64)

#include "../functions.h"

namespace layerstream::cpu::neon {

extern const KernelTable kTable = {
    "neon",
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

}  // namespace layerstream::cpu::neon

#endif
