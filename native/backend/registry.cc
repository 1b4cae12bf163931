#include "../cpu/device.h"
#include "device.h"

namespace layerstream {

std::span<const Backend> backends() {
  static const Backend table[] = {
      {"cpu", cpu::open_device},
      // The same kernels behind separate memory: proves that the engine never takes host memory for device memory.
      {"cpu-discrete", cpu::open_discrete_device},
  };
  return table;
}

}  // namespace layerstream
