#include "context.h"

#include <algorithm>

#include "../platform/error.h"

namespace layerstream::cuda {

namespace {

// The driver takes none of the kernels in an image.
bool is_unsuitable(CUresult status) {
  return status == CUDA_ERROR_INVALID_IMAGE || status == CUDA_ERROR_NO_BINARY_FOR_GPU || status == CUDA_ERROR_INVALID_PTX ||
         status == CUDA_ERROR_JIT_COMPILER_NOT_FOUND || status == CUDA_ERROR_UNSUPPORTED_PTX_VERSION;
}

}  // namespace

Context::Context(const Driver& driver, CUdevice device, const DeviceInfo& info)
    : driver_(driver), api_(*driver.find()), device_(device), info_(info) {
  const auto attribute = [&](int which) {
    int value = 0;
    check(api_.cuDeviceGetAttribute(&value, which, device), "cuDeviceGetAttribute");
    return static_cast<uint32_t>(std::max(value, 0));
  };
  limits_.multiprocessors = std::max(attribute(CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT), 1u);
  limits_.compute_capability =
      10 * attribute(CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR) + attribute(CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR);
  limits_.shared_bytes = attribute(CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN);
  const bool virtual_memory = attribute(CU_DEVICE_ATTRIBUTE_VIRTUAL_MEMORY_MANAGEMENT_SUPPORTED) != 0;
  check(api_.cuDevicePrimaryCtxRetain(&context_, device), "cuDevicePrimaryCtxRetain");
  try {
    enter();
    if (virtual_memory) {
      const CUmemAllocationProp properties = allocation();
      size_t granularity = 0;
      check(api_.cuMemGetAllocationGranularity(&granularity, &properties, CU_MEM_ALLOC_GRANULARITY_MINIMUM),
            "cuMemGetAllocationGranularity");
      granularity_ = granularity;
    }
    load_kernels();
  } catch (...) {
    release();
    throw;
  }
}

Context::~Context() { release(); }

void Context::release() noexcept {
  if (enter_quietly() != nullptr) {
    for (const CUmodule module : modules_) api_.cuModuleUnload(module);
  }
  api_.cuDevicePrimaryCtxRelease(device_);
}

void Context::load_kernels() {
  for (const KernelImage* image = driver_.images; image->source != nullptr; ++image) {
    CUmodule module = nullptr;
    const CUresult status = api_.cuModuleLoadData(&module, image->data);
    if (is_unsuitable(status)) {
      int version = 0;
      check(api_.cuDriverGetVersion(&version), "cuDriverGetVersion");
      const std::string detail = std::string(" (") + image->source + ": " + status_name(api_, status) + ')';
      throw Error("DEVICE_UNAVAILABLE", driver_.refused(name(), version, detail));
    }
    check(status, "cuModuleLoadData");
    modules_.push_back(module);
  }
}

const Api& Context::enter() {
  if (lost_.load(std::memory_order_acquire)) {
    std::lock_guard lock(mutex_);
    throw Error("DEVICE_FAILED", lost_reason_);
  }
  check(api_.cuCtxSetCurrent(context_), "cuCtxSetCurrent");
  return api_;
}

const Api* Context::enter_quietly() noexcept {
  const bool usable = !lost_.load(std::memory_order_acquire) && context_ != nullptr && api_.cuCtxSetCurrent(context_) == CUDA_SUCCESS;
  return usable ? &api_ : nullptr;
}

std::string Context::failure(CUresult status, const char* call) {
  if (status == CUDA_SUCCESS) return {};
  std::string message = std::string(driver_.name) + ": " + driver_.call_name(call) + " on " + name() + " failed with " + status_name(api_, status) + '.';
  if (status == CUDA_ERROR_OUT_OF_MEMORY) message += " The device or the host has too little memory: lower --vram or --memory.";
  if (!is_lost(status)) return message;
  message += " The device is lost: dispose of all models on it and load them again, in a new process if it stays lost.";
  std::lock_guard lock(mutex_);
  if (!lost_.load(std::memory_order_relaxed)) lost_reason_ = message;
  lost_.store(true, std::memory_order_release);
  return message;
}

void Context::check(CUresult status, const char* call) {
  if (status != CUDA_SUCCESS) throw Error("DEVICE_FAILED", failure(status, call));
}

CUfunction Context::function(const char* name, uint32_t shared_bytes) {
  std::lock_guard lock(functions_mutex_);
  auto found = functions_.find(name);
  if (found == functions_.end()) {
    Function function{nullptr, 0};
    CUresult status = CUDA_ERROR_NOT_FOUND;
    for (size_t i = 0; i < modules_.size() && status == CUDA_ERROR_NOT_FOUND; ++i) {
      status = api_.cuModuleGetFunction(&function.handle, modules_[i], name);
    }
    if (status == CUDA_ERROR_NOT_FOUND) throw Error("INTERNAL", std::string("There is no kernel ") + name + ".");
    // Drivers may load a kernel when it is first asked for.
    check(status, "cuModuleGetFunction");
    found = functions_.emplace(name, function).first;
  }
  Function& function = found->second;
  if (shared_bytes > function.shared_bytes) {
    const CUresult status =
        api_.cuFuncSetAttribute(function.handle, CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES, static_cast<int>(shared_bytes));
    if (status == CUDA_ERROR_INVALID_VALUE) {
      throw Error("DEVICE_FAILED", info_.kernels + " has no " + std::to_string(shared_bytes) + " bytes of shared memory for the kernel " + name + " (" +
                                       status_name(api_, status) + ").");
    }
    check(status, "cuFuncSetAttribute");
    function.shared_bytes = shared_bytes;
  }
  return function.handle;
}

uint64_t Context::free_bytes() {
  size_t free = 0, total = 0;
  check(enter().cuMemGetInfo(&free, &total), "cuMemGetInfo");
  return free;
}

CUmemAllocationProp Context::allocation() const {
  CUmemAllocationProp properties{};
  properties.type = CU_MEM_ALLOCATION_TYPE_PINNED;
  properties.location = {CU_MEM_LOCATION_TYPE_DEVICE, device_};
  return properties;
}

}  // namespace layerstream::cuda
