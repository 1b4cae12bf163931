// One emulated device with its primary context.
#pragma once

#include <atomic>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "../../../native/cuda/api.h"
#include "../cuda_host/launch.h"
#include "memory.h"
#include "options.h"
#include "queue.h"

namespace layerstream::cuda_driver {

using cuda::CUresult;

using Event = std::shared_ptr<EventState>;

// Of a block's dynamic shared memory: at most, and where more has not been asked for.
uint32_t most_shared_bytes(uint64_t capability);
constexpr uint32_t kSharedBytes = 48 << 10;

struct Function {
  const cuda_host::Kernel* kernel;
  uint32_t shared_bytes = kSharedBytes;
};

// A kernel with everything that it needs to run.
struct Launch {
  const Function* function;
  cuda_host::Grid grid;
  uint32_t threads, shared_bytes;
  std::vector<uint8_t> arguments;
};

// Kernels one after the other: nothing else is asked for.
using Graph = std::vector<Launch>;

class Device {
 public:
  explicit Device(const Options& options)
      : options(options), memory(options.memory, options.granularity, options.allocation) {}

  const Options options;
  Memory memory;
  // CUDA_SUCCESS until something loses the device.
  std::atomic<CUresult> status{cuda::CUDA_SUCCESS};

  // The status of an enqueued launch.
  CUresult check(const Launch& launch);
  void run(const Launch& launch);
  // What went wrong, for whoever looks for the reason of a status.
  void lose(CUresult reason, const std::string& message);
  // Returns when no stream has anything to do.
  void drain();
  // Streams, events, modules, graphs and pieces of memory.
  uint64_t left();
  // The last holder of the context has gone. Aborts if streams, events, modules or memory of a device that is not lost are left.
  void reset();

  std::atomic<uint64_t> graphs_launched{0};

  std::mutex mutex;  // of what follows
  uint32_t retained = 0, streams_made = 0;
  std::map<Queue*, std::unique_ptr<Queue>> streams;
  std::map<Event*, std::unique_ptr<Event>> events;
  std::map<const void**, std::unique_ptr<const void*>> modules;
  std::map<Graph*, std::unique_ptr<Graph>> graphs;  // those that can be launched, too
  std::vector<std::unique_ptr<Function>> functions;

 private:
  std::atomic<uint64_t> checked_{0}, run_{0};
};

// Null where there is none of that number.
Device* device_of(cuda::CUdevice number);

}  // namespace layerstream::cuda_driver
