#include "../platform/error.h"
#include "launch.h"

namespace layerstream::cuda {

void Launcher::run(const AttentionOp&) { throw Error("INTERNAL", "There is no attention kernel for CUDA."); }

}  // namespace layerstream::cuda
