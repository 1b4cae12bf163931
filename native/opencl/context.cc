#include "context.h"

#include <algorithm>
#include <vector>

#include "../platform/error.h"
#include "vendors.h"

namespace layerstream::opencl {

namespace {

std::string text_of(const Api& api, cl_device_id device, cl_uint property) {
  size_t bytes = 0;
  check(api.clGetDeviceInfo(device, property, 0, nullptr, &bytes), "clGetDeviceInfo");
  std::string text(bytes, '\0');
  check(api.clGetDeviceInfo(device, property, bytes, text.data(), nullptr), "clGetDeviceInfo");
  return text.c_str();
}

template <class Number>
Number number_of(const Api& api, cl_device_id device, cl_uint property) {
  Number number{};
  check(api.clGetDeviceInfo(device, property, sizeof number, &number, nullptr), "clGetDeviceInfo");
  return number;
}

std::vector<cl_device_id> all_devices(const Api& api) {
  cl_uint count = 0;
  if (api.clGetPlatformIDs(0, nullptr, &count) != CL_SUCCESS || count == 0) return {};
  std::vector<cl_platform_id> platforms(count);
  check(api.clGetPlatformIDs(count, platforms.data(), nullptr), "clGetPlatformIDs");
  std::vector<cl_device_id> devices;
  for (const cl_platform_id platform : platforms) {
    // A broken driver must not hide the others.
    if (api.clGetDeviceIDs(platform, CL_DEVICE_TYPE_ALL, 0, nullptr, &count) != CL_SUCCESS || count == 0) continue;
    std::vector<cl_device_id> found(count);
    if (api.clGetDeviceIDs(platform, CL_DEVICE_TYPE_ALL, count, found.data(), nullptr) != CL_SUCCESS) continue;
    devices.insert(devices.end(), found.begin(), found.end());
  }
  return devices;
}

// Why it cannot be used, or nothing.
std::string objection(const Api& api, cl_device_id device) {
  std::string what;
  const std::string version = text_of(api, device, CL_DEVICE_VERSION);  // "OpenCL 1.2 ..."
  if (version.rfind("OpenCL 1.0", 0) == 0 || version.rfind("OpenCL 1.1", 0) == 0) what = "has " + version.substr(0, 10) + ", and 1.2 is needed";
  else if (!number_of<cl_bool>(api, device, CL_DEVICE_COMPILER_AVAILABLE)) what = "has no compiler";
  else if (!number_of<cl_bool>(api, device, CL_DEVICE_ENDIAN_LITTLE)) what = "is big-endian";
  if (what.empty()) return what;
  return "The OpenCL device " + text_of(api, device, CL_DEVICE_NAME) + " " + what + ". Install a newer driver of it.";
}

bool is_processor(const Api& api, cl_device_id device) {
  return (number_of<cl_bitfield>(api, device, CL_DEVICE_TYPE) & CL_DEVICE_TYPE_CPU) != 0;
}

// All but its name, which depends on the others.
DeviceInfo info_of(const Api& api, cl_device_id device) {
  DeviceInfo info;
  info.kernels = text_of(api, device, CL_DEVICE_NAME);
  info.kind = is_processor(api, device) ? DeviceKind::kProcessor : DeviceKind::kGpu;
  info.driver = text_of(api, device, CL_DRIVER_VERSION);
  info.memory_bytes = number_of<cl_ulong>(api, device, CL_DEVICE_GLOBAL_MEM_SIZE);
  return info;
}

FoundDevice examine(const Api& api, cl_device_id id) {
  FoundDevice device;
  device.id = id;
  device.rank = 3;
  try {
    device.listed.reason = objection(api, id);
    if (!device.listed.reason.empty()) return device;
    device.listed.info = info_of(api, id);
    const bool gpu = (number_of<cl_bitfield>(api, id, CL_DEVICE_TYPE) & CL_DEVICE_TYPE_GPU) != 0;
    device.rank = is_processor(api, id) ? 2 : gpu ? 0 : 1;
  } catch (const Error& error) {
    device.listed.reason = std::string(error.what()) + " Reinstall the driver.";
  }
  return device;
}

FoundDevice none(std::string reason) {
  FoundDevice none;
  none.listed.info.name = device_name("opencl", 0);
  none.listed.reason = std::move(reason);
  return none;
}

}  // namespace

std::vector<FoundDevice> find_devices() {
  const Api* const api = find_api();
  if (api == nullptr) {
    return {none(api_error() + " Install the OpenCL driver of your GPU, which brings the loader, or your system's package of the loader (ocl-icd).")};
  }
  std::vector<FoundDevice> found;
  for (const cl_device_id id : all_devices(*api)) found.push_back(examine(*api, id));
  if (found.empty()) {
    return {none("The OpenCL loader finds no device." + broken_drivers() + " Install the OpenCL driver of your GPU, or pocl-opencl-icd for the processor.")};
  }
  std::ranges::stable_sort(found, {}, &FoundDevice::rank);
  for (uint32_t index = 0; index < found.size(); ++index) found[index].listed.info.name = device_name("opencl", index);
  return found;
}

Context::Context(const Api& api, cl_device_id device, const DeviceInfo& info, const DeviceOptions& options)
    : api_(api), device_(device), info_(info) {
  host_processor_ = info_.kind == DeviceKind::kProcessor && !options.as_gpu;
  max_allocation_ = number_of<cl_ulong>(api, device, CL_DEVICE_MAX_MEM_ALLOC_SIZE);
  if (options.max_allocation > 0) max_allocation_ = std::min(max_allocation_, options.max_allocation);
  compute_units_ = number_of<cl_uint>(api, device, CL_DEVICE_MAX_COMPUTE_UNITS);
  cl_int status = CL_SUCCESS;
  context_ = api.clCreateContext(nullptr, 1, &device, nullptr, nullptr, &status);
  check(status, "clCreateContext");
  try {
    host_queue_ = create_queue();
  } catch (...) {
    api.clReleaseContext(context_);
    throw;
  }
}

Context::~Context() {
  api_.clReleaseCommandQueue(host_queue_);
  api_.clReleaseContext(context_);
}

cl_mem Context::create_buffer(uint64_t bytes) {
  const uint64_t before = allocated_.fetch_add(bytes);
  cl_int status = CL_MEM_OBJECT_ALLOCATION_FAILURE;
  cl_mem memory = nullptr;
  // Many drivers allocate at the first use only, where a failure would come late and without a number.
  if (bytes <= memory_bytes() && before <= memory_bytes() - bytes) {
    memory = api_.clCreateBuffer(context_, CL_MEM_READ_WRITE, bytes, nullptr, &status);
  }
  if (memory != nullptr && status == CL_SUCCESS) return memory;
  allocated_ -= bytes;
  throw Error("DEVICE_FAILED", name() + " has no room for " + std::to_string(bytes) + " bytes beside the " + std::to_string(before) +
                                   " in use, of " + std::to_string(memory_bytes()) + " (" + status_name(status) + ").");
}

bool Context::has_wide_words() const {
#if defined(__x86_64__) && defined(__GNUC__)
  return host_processor_ && __builtin_cpu_supports("avx512vbmi2") && __builtin_cpu_supports("avx512vnni");
#else
  return false;
#endif
}

uint64_t Context::free_bytes() const {
  const uint64_t used = allocated_.load();
  return used < memory_bytes() ? memory_bytes() - used : 0;
}

cl_mem Context::create_host_buffer(uint64_t bytes) {
  cl_int status = CL_SUCCESS;
  const cl_mem memory = api_.clCreateBuffer(context_, CL_MEM_READ_WRITE | CL_MEM_ALLOC_HOST_PTR, bytes, nullptr, &status);
  check(status, "clCreateBuffer");
  return memory;
}

void Context::release_buffer(cl_mem memory, uint64_t bytes) {
  api_.clReleaseMemObject(memory);
  allocated_ -= bytes;
}

cl_command_queue Context::create_queue() const {
  cl_int status = CL_SUCCESS;
  const cl_command_queue queue = api_.clCreateCommandQueue(context_, device_, CL_QUEUE_PROFILING_ENABLE, &status);
  check(status, "clCreateCommandQueue");
  return queue;
}

}  // namespace layerstream::opencl
