#include "device.h"

#include <cstdio>
#include <cstdlib>

namespace layerstream::cuda_driver {

uint32_t most_shared_bytes(uint64_t capability) {
  switch (capability) {
    case 75:
      return 64 << 10;
    case 80:
    case 87:
      return 163 << 10;
    case 90:
    case 100:
      return 227 << 10;
    default:
      return 99 << 10;
  }
}

CUresult Device::check(const Launch& launch) {
  if (++checked_ == options.launch || launch.shared_bytes > launch.function->shared_bytes) return cuda::CUDA_ERROR_INVALID_VALUE;
  return cuda::CUDA_SUCCESS;
}

void Device::run(const Launch& launch) {
  if (status != cuda::CUDA_SUCCESS) return;
  if (++run_ == options.lose) return lose(static_cast<CUresult>(options.status), "lost as asked for");
  if (options.skip != 0 && run_ >= options.skip) return;
  const auto order = options.order == 0 ? cuda_host::Order::kAscending : cuda_host::Order::kRandom;
  const std::string failure =
      cuda_host::launch(*launch.function->kernel, launch.grid, launch.threads, launch.shared_bytes, launch.arguments.data(), order);
  if (!failure.empty()) lose(cuda::CUDA_ERROR_LAUNCH_FAILED, failure);
}

void Device::lose(CUresult reason, const std::string& message) {
  CUresult expected = cuda::CUDA_SUCCESS;
  if (!status.compare_exchange_strong(expected, reason)) return;
  if (options.lose == 0) fprintf(stderr, "CUDA driver of the tests: %s\n", message.c_str());
}

void Device::drain() {
  std::lock_guard lock(mutex);
  for (const auto& [key, stream] : streams) stream->drain();
}

uint64_t Device::left() { return streams.size() + events.size() + modules.size() + graphs.size() + memory.left(); }

void Device::reset() {
  if (status == cuda::CUDA_SUCCESS && left() > 0) {
    fprintf(stderr, "CUDA driver of the tests: %zu streams, %zu events, %zu modules, %zu graphs and %zu pieces of memory were not given back\n",
            streams.size(), events.size(), modules.size(), graphs.size(), static_cast<size_t>(memory.left()));
    abort();
  }
  streams.clear();
  events.clear();
  modules.clear();
  graphs.clear();
}

}  // namespace layerstream::cuda_driver
