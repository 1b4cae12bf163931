#include "../functions.h"

namespace layerstream::cpu::scalar {

extern const KernelTable kTable = {
    "scalar",
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

}  // namespace layerstream::cpu::scalar

