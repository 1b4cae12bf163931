// A CUDA driver without a GPU, for tests: what native/cuda/api.h asks of libcuda.so.1, over memory and threads of the host.
// Kernels are those of native/cuda/kernels, compiled for the host (test/native/cuda_host). Calls that a driver refuses are
// refused, and an address out of range loses the device.
#include <cstring>
#include <memory>
#include <mutex>
#include <stdexcept>
#include <thread>

#include "device.h"

using namespace layerstream::cuda;
using namespace layerstream::cuda_driver;

namespace {

constexpr CUresult kNotInitialized = 3, kInvalidContext = 201, kInvalidHandle = 400, kInvalidDevice = 101;

struct Process {
  std::mutex mutex;
  bool initialized = false;
  Options options;
  std::vector<std::unique_ptr<Device>> devices;
};

Process& process() {
  static auto* const one = new Process;
  return *one;
}

// The context is the device.
thread_local Device* current = nullptr;

Queue& of(CUstream stream) { return *reinterpret_cast<Queue*>(stream); }
const Event& of(CUevent event) { return *reinterpret_cast<Event*>(event); }
void* pointer(CUdeviceptr address) { return reinterpret_cast<void*>(address); }

// Does `work` with the context of this thread. A lost device has one answer to everything.
template <class Work>
CUresult in_context(const Work& work) {
  Device* const device = current;
  if (device == nullptr || device->retained == 0) return kInvalidContext;
  if (device->status != CUDA_SUCCESS) {
    // From the first error on, no command touches memory of the host.
    device->drain();
    return device->status;
  }
  return work(*device);
}

CUresult succeeded(bool result) { return result ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE; }

// A copy; `touched` is its device memory.
CUresult enqueue_copy(Device& device, CUstream stream, void* target, const void* source, size_t bytes,
                      std::initializer_list<CUdeviceptr> touched) {
  if (bytes == 0) return CUDA_SUCCESS;
  const std::vector<CUdeviceptr> addresses = touched;
  of(stream).add([&device, target, source, bytes, addresses] {
    if (device.status != CUDA_SUCCESS) return;
    for (const CUdeviceptr address : addresses) {
      if (!device.memory.contains(address, bytes)) return device.lose(CUDA_ERROR_ILLEGAL_ADDRESS, "a copy outside of memory");
    }
    memmove(target, source, bytes);
  });
  return CUDA_SUCCESS;
}

CUresult make_launch(const CUDA_KERNEL_NODE_PARAMS& given, Device& device, Launch* launch) {
  if (given.blockDimY != 1 || given.blockDimZ != 1 || given.extra != nullptr) return CUDA_ERROR_INVALID_VALUE;
  const auto* const function = reinterpret_cast<const Function*>(given.func);
  const auto* const arguments = static_cast<const uint8_t*>(given.kernelParams[0]);
  *launch = {function, {given.gridDimX, given.gridDimY, given.gridDimZ}, given.blockDimX, given.sharedMemBytes,
             {arguments, arguments + function->kernel->argument_bytes}};
  return device.check(*launch);
}

Graph* keep(Device& device, Graph graph) {
  auto made = std::make_unique<Graph>(std::move(graph));
  Graph* const kept = made.get();
  std::lock_guard lock(device.mutex);
  device.graphs.emplace(kept, std::move(made));
  return kept;
}

CUresult forget(Device& device, Graph* graph) {
  std::lock_guard lock(device.mutex);
  return device.graphs.erase(graph) == 1 ? CUDA_SUCCESS : kInvalidHandle;
}

}  // namespace

Device* layerstream::cuda_driver::device_of(CUdevice number) {
  Process& all = process();
  return number >= 0 && static_cast<size_t>(number) < all.devices.size() ? all.devices[static_cast<size_t>(number)].get() : nullptr;
}

#define EXPORT extern "C" __attribute__((visibility("default")))

EXPORT CUresult cuInit(unsigned flags) {
  Process& all = process();
  std::lock_guard lock(all.mutex);
  if (flags != 0) return CUDA_ERROR_INVALID_VALUE;
  all.options = read_options();
  if (all.options.devices == 0) return CUDA_ERROR_NO_DEVICE;
  all.devices.resize(std::max<size_t>(all.devices.size(), all.options.devices));
  for (auto& device : all.devices) {
    if (device == nullptr || device->retained == 0) device = std::make_unique<Device>(all.options);
  }
  all.initialized = true;
  return CUDA_SUCCESS;
}

EXPORT CUresult cuDriverGetVersion(int* version) {
  *version = static_cast<int>(process().options.version);
  return CUDA_SUCCESS;
}

EXPORT CUresult cuDeviceGetCount(int* count) {
  if (!process().initialized) return kNotInitialized;
  *count = static_cast<int>(process().options.devices);
  return CUDA_SUCCESS;
}

EXPORT CUresult cuDeviceGet(CUdevice* device, int ordinal) {
  *device = ordinal;
  return device_of(ordinal) == nullptr ? kInvalidDevice : CUDA_SUCCESS;
}

EXPORT CUresult cuDeviceGetName(char* name, int bytes, CUdevice device) {
  if (device_of(device) == nullptr) return kInvalidDevice;
  strncpy(name, "emulated device of the tests", static_cast<size_t>(bytes));
  return CUDA_SUCCESS;
}

EXPORT CUresult cuDeviceGetAttribute(int* value, int attribute, CUdevice number) {
  const Device* const device = device_of(number);
  if (device == nullptr) return kInvalidDevice;
  switch (attribute) {
    case CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT:
      *value = static_cast<int>(device->options.multiprocessors);
      return CUDA_SUCCESS;
    case CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR:
      *value = static_cast<int>(device->options.capability / 10);
      return CUDA_SUCCESS;
    case CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR:
      *value = static_cast<int>(device->options.capability % 10);
      return CUDA_SUCCESS;
    case CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN:
      *value = static_cast<int>(most_shared_bytes(device->options.capability));
      return CUDA_SUCCESS;
    case CU_DEVICE_ATTRIBUTE_VIRTUAL_MEMORY_MANAGEMENT_SUPPORTED:
      *value = device->options.granularity > 0;
      return CUDA_SUCCESS;
    default:
      return CUDA_ERROR_INVALID_VALUE;
  }
}

EXPORT CUresult cuDeviceTotalMem_v2(size_t* bytes, CUdevice device) {
  if (device_of(device) == nullptr) return kInvalidDevice;
  *bytes = device_of(device)->memory.limit();
  return CUDA_SUCCESS;
}

EXPORT CUresult cuDevicePrimaryCtxRetain(CUcontext* context, CUdevice number) {
  Device* const device = device_of(number);
  if (device == nullptr) return kInvalidDevice;
  std::lock_guard lock(device->mutex);
  ++device->retained;
  *context = reinterpret_cast<CUcontext>(device);
  return CUDA_SUCCESS;
}

EXPORT CUresult cuDevicePrimaryCtxRelease_v2(CUdevice number) {
  Device* const device = device_of(number);
  if (device == nullptr) return kInvalidDevice;
  std::lock_guard lock(device->mutex);
  if (device->retained == 0) return kInvalidContext;
  if (--device->retained == 0) device->reset();
  return CUDA_SUCCESS;
}

EXPORT CUresult cuCtxSetCurrent(CUcontext context) {
  current = reinterpret_cast<Device*>(context);
  return CUDA_SUCCESS;
}

EXPORT CUresult cuModuleLoadData(CUmodule* module, const void* image) {
  return in_context([&](Device& device) {
    if (device.options.image != 0) return static_cast<CUresult>(device.options.image);
    auto loaded = std::make_unique<const void*>(image);
    *module = reinterpret_cast<CUmodule>(loaded.get());
    std::lock_guard lock(device.mutex);
    device.modules.emplace(loaded.get(), std::move(loaded));
    return CUDA_SUCCESS;
  });
}

EXPORT CUresult cuModuleUnload(CUmodule module) {
  return in_context([&](Device& device) {
    std::lock_guard lock(device.mutex);
    return device.modules.erase(reinterpret_cast<const void**>(module)) == 1 ? CUDA_SUCCESS : kInvalidHandle;
  });
}

EXPORT CUresult cuModuleGetFunction(CUfunction* function, CUmodule, const char* name) {
  return in_context([&](Device& device) {
    const auto asked_for = static_cast<CUresult>(device.options.function);
    if (asked_for == CUDA_ERROR_UNKNOWN) device.lose(asked_for, "lost as asked for");
    if (asked_for != CUDA_SUCCESS) return asked_for;
    const layerstream::cuda_host::Kernel* const kernel = layerstream::cuda_host::find_kernel(name);
    if (kernel == nullptr) return CUDA_ERROR_NOT_FOUND;
    std::lock_guard lock(device.mutex);
    device.functions.push_back(std::make_unique<Function>(Function{kernel}));
    *function = reinterpret_cast<CUfunction>(device.functions.back().get());
    return CUDA_SUCCESS;
  });
}

EXPORT CUresult cuFuncSetAttribute(CUfunction function, int attribute, int value) {
  return in_context([&](Device& device) {
    const auto bytes = static_cast<uint32_t>(value);
    if (attribute != CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES || bytes > most_shared_bytes(device.options.capability)) {
      return CUDA_ERROR_INVALID_VALUE;
    }
    reinterpret_cast<Function*>(function)->shared_bytes = std::max(bytes, kSharedBytes);
    return CUDA_SUCCESS;
  });
}

EXPORT CUresult cuMemGetInfo_v2(size_t* free, size_t* total) {
  return in_context([&](Device& device) {
    *free = device.memory.free_bytes();
    *total = device.memory.limit();
    return CUDA_SUCCESS;
  });
}

EXPORT CUresult cuMemAlloc_v2(CUdeviceptr* address, size_t bytes) {
  return in_context([&](Device& device) {
    if (bytes == 0) return CUDA_ERROR_INVALID_VALUE;
    *address = device.memory.alloc(bytes);
    return *address == 0 ? CUDA_ERROR_OUT_OF_MEMORY : CUDA_SUCCESS;
  });
}

EXPORT CUresult cuMemFree_v2(CUdeviceptr address) {
  return in_context([&](Device& device) {
    // As drivers do: commands of any stream may be using it.
    device.drain();
    return succeeded(device.memory.free(address));
  });
}

EXPORT CUresult cuMemHostRegister_v2(void* memory, size_t bytes, unsigned) {
  return in_context([&](Device& device) { return succeeded(device.memory.lock_host(memory, bytes)); });
}

EXPORT CUresult cuMemHostUnregister(void* memory) {
  return in_context([&](Device& device) { return succeeded(device.memory.unlock_host(memory)); });
}

EXPORT CUresult cuMemGetAllocationGranularity(size_t* bytes, const CUmemAllocationProp*, int) {
  return in_context([&](Device& device) {
    *bytes = device.options.granularity;
    return succeeded(*bytes > 0);
  });
}

EXPORT CUresult cuMemAddressReserve(CUdeviceptr* address, size_t bytes, size_t, CUdeviceptr, unsigned long long) {
  return in_context([&](Device& device) {
    *address = device.memory.reserve(bytes);
    return *address == 0 ? CUDA_ERROR_OUT_OF_MEMORY : CUDA_SUCCESS;
  });
}

EXPORT CUresult cuMemAddressFree(CUdeviceptr address, size_t bytes) {
  return in_context([&](Device& device) { return succeeded(device.memory.unreserve(address, bytes)); });
}

EXPORT CUresult cuMemCreate(CUmemGenericAllocationHandle* handle, size_t bytes, const CUmemAllocationProp* properties,
                            unsigned long long) {
  return in_context([&](Device& device) {
    if (properties->type != CU_MEM_ALLOCATION_TYPE_PINNED || device_of(properties->location.id) != &device) return CUDA_ERROR_INVALID_VALUE;
    *handle = device.memory.create(bytes);
    return *handle == 0 ? CUDA_ERROR_OUT_OF_MEMORY : CUDA_SUCCESS;
  });
}

EXPORT CUresult cuMemRelease(CUmemGenericAllocationHandle handle) {
  return in_context([&](Device& device) { return succeeded(device.memory.release(handle)); });
}

EXPORT CUresult cuMemMap(CUdeviceptr address, size_t bytes, size_t offset, CUmemGenericAllocationHandle handle, unsigned long long) {
  return in_context([&](Device& device) { return succeeded(offset == 0 && device.memory.map(address, bytes, handle)); });
}

EXPORT CUresult cuMemUnmap(CUdeviceptr address, size_t bytes) {
  return in_context([&](Device& device) { return succeeded(device.memory.unmap(address, bytes)); });
}

EXPORT CUresult cuMemSetAccess(CUdeviceptr address, size_t bytes, const CUmemAccessDesc* access, size_t count) {
  return in_context([&](Device& device) {
    return succeeded(count == 1 && access->flags == CU_MEM_ACCESS_FLAGS_PROT_READWRITE && device.memory.allow(address, bytes));
  });
}

// Of memory that is not page-locked, drivers copy to memory of their own before the call returns.
EXPORT CUresult cuMemcpyHtoDAsync_v2(CUdeviceptr target, const void* source, size_t bytes, CUstream stream) {
  return in_context([&](Device& device) {
    const Memory::Locked locked = device.memory.host_locked(source, bytes);
    if (locked == Memory::Locked::kPart) return CUDA_ERROR_INVALID_VALUE;
    if (locked == Memory::Locked::kAll) return enqueue_copy(device, stream, pointer(target), source, bytes, {target});
    const auto* const begin = static_cast<const uint8_t*>(source);
    const auto copied = std::make_shared<std::vector<uint8_t>>(begin, begin + bytes);
    const CUresult result = enqueue_copy(device, stream, pointer(target), copied->data(), bytes, {target});
    of(stream).add([copied] {});
    return result;
  });
}

// To memory that is not page-locked, the call waits for the copy.
EXPORT CUresult cuMemcpyDtoHAsync_v2(void* target, CUdeviceptr source, size_t bytes, CUstream stream) {
  return in_context([&](Device& device) {
    const Memory::Locked locked = device.memory.host_locked(target, bytes);
    if (locked == Memory::Locked::kPart) return CUDA_ERROR_INVALID_VALUE;
    const CUresult result = enqueue_copy(device, stream, target, pointer(source), bytes, {source});
    if (locked == Memory::Locked::kNone) of(stream).drain();
    return result;
  });
}

EXPORT CUresult cuMemcpyDtoDAsync_v2(CUdeviceptr target, CUdeviceptr source, size_t bytes, CUstream stream) {
  return in_context([&](Device& device) { return enqueue_copy(device, stream, pointer(target), pointer(source), bytes, {target, source}); });
}

EXPORT CUresult cuStreamCreate(CUstream* stream, unsigned) {
  return in_context([&](Device& device) {
    std::lock_guard lock(device.mutex);
    auto queue = std::make_unique<Queue>(device.options.delay, ++device.streams_made);
    *stream = reinterpret_cast<CUstream>(queue.get());
    device.streams.emplace(queue.get(), std::move(queue));
    return CUDA_SUCCESS;
  });
}

EXPORT CUresult cuStreamDestroy_v2(CUstream stream) {
  return in_context([&](Device& device) {
    std::lock_guard lock(device.mutex);
    return device.streams.erase(&of(stream)) == 1 ? CUDA_SUCCESS : kInvalidHandle;
  });
}

EXPORT CUresult cuStreamSynchronize(CUstream stream) {
  return in_context([&](Device& device) {
    of(stream).drain();
    return device.status.load();
  });
}

EXPORT CUresult cuStreamWaitEvent(CUstream stream, CUevent event, unsigned) {
  return in_context([&](Device&) {
    const std::shared_ptr<EventState> state = of(event);
    of(stream).add([state, record = state->last_record()] { state->wait_for(record); });
    return CUDA_SUCCESS;
  });
}

EXPORT CUresult cuEventCreate(CUevent* event, unsigned flags) {
  return in_context([&](Device& device) {
    auto made = std::make_unique<Event>(std::make_shared<EventState>((flags & CU_EVENT_DISABLE_TIMING) == 0));
    *event = reinterpret_cast<CUevent>(made.get());
    std::lock_guard lock(device.mutex);
    device.events.emplace(made.get(), std::move(made));
    return CUDA_SUCCESS;
  });
}

EXPORT CUresult cuEventDestroy_v2(CUevent event) {
  return in_context([&](Device& device) {
    std::lock_guard lock(device.mutex);
    return device.events.erase(reinterpret_cast<Event*>(event)) == 1 ? CUDA_SUCCESS : kInvalidHandle;
  });
}

EXPORT CUresult cuEventRecord(CUevent event, CUstream stream) {
  return in_context([&](Device&) {
    const std::shared_ptr<EventState> state = of(event);
    of(stream).add([state, record = state->add_record()] { state->complete(record); });
    return CUDA_SUCCESS;
  });
}

EXPORT CUresult cuEventQuery(CUevent event) {
  return in_context([&](Device&) { return of(event)->completed() ? CUDA_SUCCESS : CUDA_ERROR_NOT_READY; });
}

EXPORT CUresult cuEventSynchronize(CUevent event) {
  return in_context([&](Device& device) {
    EventState& state = *of(event);
    state.wait_for(state.last_record());
    return device.status.load();
  });
}

EXPORT CUresult cuEventElapsedTime(float* milliseconds, CUevent from, CUevent to) {
  return in_context([&](Device&) {
    EventState &first = *of(from), &last = *of(to);
    if (!first.timed || !last.timed || first.last_record() == 0 || last.last_record() == 0) return kInvalidHandle;
    if (!first.completed() || !last.completed()) return CUDA_ERROR_NOT_READY;
    *milliseconds = std::chrono::duration<float, std::milli>(last.time() - first.time()).count();
    return CUDA_SUCCESS;
  });
}

EXPORT CUresult cuLaunchKernel(CUfunction function, unsigned grid_x, unsigned grid_y, unsigned grid_z, unsigned block_x, unsigned block_y,
                               unsigned block_z, unsigned shared_bytes, CUstream stream, void** parameters, void** extra) {
  return in_context([&](Device& device) {
    Launch launch;
    const CUresult status =
        make_launch({function, grid_x, grid_y, grid_z, block_x, block_y, block_z, shared_bytes, parameters, extra}, device, &launch);
    if (status == CUDA_SUCCESS) of(stream).add([&device, launch] { device.run(launch); });
    return status;
  });
}

EXPORT CUresult cuGraphCreate(CUgraph* graph, unsigned) {
  return in_context([&](Device& device) {
    *graph = reinterpret_cast<CUgraph>(keep(device, {}));
    return CUDA_SUCCESS;
  });
}

EXPORT CUresult cuGraphDestroy(CUgraph graph) {
  return in_context([&](Device& device) { return forget(device, reinterpret_cast<Graph*>(graph)); });
}

// Nodes are known by their numbers, from 1 on.
EXPORT CUresult cuGraphAddKernelNode(CUgraphNode* node, CUgraph handle, const CUgraphNode* before, size_t count,
                                     const CUDA_KERNEL_NODE_PARAMS* parameters) {
  return in_context([&](Device& device) {
    Graph& graph = *reinterpret_cast<Graph*>(handle);
    if (count != (graph.empty() ? 0 : 1) || (count == 1 && reinterpret_cast<size_t>(*before) != graph.size())) return CUDA_ERROR_INVALID_VALUE;
    const CUresult status = make_launch(*parameters, device, &graph.emplace_back());
    *node = reinterpret_cast<CUgraphNode>(graph.size());
    return status;
  });
}

EXPORT CUresult cuGraphInstantiateWithFlags(CUgraphExec* executable, CUgraph graph, unsigned long long) {
  return in_context([&](Device& device) {
    *executable = reinterpret_cast<CUgraphExec>(keep(device, *reinterpret_cast<Graph*>(graph)));
    return CUDA_SUCCESS;
  });
}

EXPORT CUresult cuGraphExecKernelNodeSetParams(CUgraphExec executable, CUgraphNode node, const CUDA_KERNEL_NODE_PARAMS* parameters) {
  return in_context([&](Device& device) {
    Launch& launch = reinterpret_cast<Graph*>(executable)->at(reinterpret_cast<size_t>(node) - 1);
    // Only what the kernel is given may change.
    if (launch.function != reinterpret_cast<const Function*>(parameters->func)) return CUDA_ERROR_INVALID_VALUE;
    return make_launch(*parameters, device, &launch);
  });
}

EXPORT CUresult cuGraphLaunch(CUgraphExec executable, CUstream stream) {
  return in_context([&](Device& device) {
    ++device.graphs_launched;
    of(stream).add([&device, graph = *reinterpret_cast<const Graph*>(executable)] {
      for (const Launch& launch : graph) device.run(launch);
    });
    return CUDA_SUCCESS;
  });
}

EXPORT CUresult cuGraphExecDestroy(CUgraphExec executable) {
  return in_context([&](Device& device) { return forget(device, reinterpret_cast<Graph*>(executable)); });
}

// For tests: what has been launched as graphs.
EXPORT uint64_t layerstream_cuda_graphs_launched() { return process().devices.at(0)->graphs_launched; }

// Lets Node load the driver (process.dlopen) before the addon looks for it.
EXPORT void* napi_register_module_v1(void*, void* exports) { return exports; }
