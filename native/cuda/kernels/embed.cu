// A row of an embedding matrix: a thread decodes a unit.
#include "codecs.cuh"

namespace layerstream::cuda {

KERNEL(embed, EmbedArguments, 128, 1) {
  if (uses_levels(arguments.format)) {
    fill_levels(arguments.format != Format::kMxfp4);
    __syncthreads();
  }
  const uint32_t index = blockIdx.x * blockDim.x + threadIdx.x;
  const RowLayout& layout = arguments.layout;
  with_codec(arguments.format, [&](auto codec) {
    using Weights = decltype(codec);
    if (index >= units_of<Weights>(layout.columns)) return;
    const auto unit = Weights::load(layout, arguments.row, index);
#pragma unroll
    for (uint32_t quad = 0; quad < Weights::kUnit / 4; ++quad) {
      float weights[4];
      Weights::decode(unit, quad, weights);
      const uint32_t column = Weights::column(index, quad);
#pragma unroll
      for (uint32_t i = 0; i < 4; ++i) {
        if (column + i < layout.columns) arguments.output[column + i] = weights[i] * Weights::scale(unit, quad) * arguments.scale;
      }
    }
  });
}

}  // namespace layerstream::cuda
