#include "context.h"

#include <algorithm>
#include <vector>

#include "../platform/error.h"

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
  const std::string version = text_of(api, device, CL_DEVICE_VERSION);  // "OpenCL 1.2 ..."
  if (version.rfind("OpenCL 1.0", 0) == 0 || version.rfind("OpenCL 1.1", 0) == 0) return "has " + version.substr(0, 10) + ", and 1.2 is needed";
  if (!number_of<cl_bool>(api, device, CL_DEVICE_COMPILER_AVAILABLE)) return "has no compiler";
  if (!number_of<cl_bool>(api, device, CL_DEVICE_ENDIAN_LITTLE)) return "is big-endian";
  return {};
}

int rank(const Api& api, cl_device_id device) {
  const auto type = number_of<cl_bitfield>(api, device, CL_DEVICE_TYPE);
  return (type & CL_DEVICE_TYPE_GPU) != 0 ? 2 : (type & CL_DEVICE_TYPE_CPU) != 0 ? 0 : 1;
}

}  // namespace

cl_device_id choose_device(std::string* reason) {
  const Api* const api = find_api();
  if (api == nullptr) {
    *reason = api_error() + " Install the OpenCL driver of your GPU, which brings the loader, or your system's package of the loader (ocl-icd).";
    return nullptr;
  }
  cl_device_id best = nullptr;
  *reason = "The OpenCL loader finds no device. Install the OpenCL driver of your GPU, or pocl-opencl-icd for the processor.";
  for (const cl_device_id device : all_devices(*api)) {
    const std::string why_not = objection(*api, device);
    if (!why_not.empty()) {
      if (best == nullptr) *reason = "The OpenCL device " + text_of(*api, device, CL_DEVICE_NAME) + " " + why_not + ". Install a newer driver of it.";
    } else if (best == nullptr || rank(*api, device) > rank(*api, best)) {
      best = device;
    }
  }
  return best;
}

Context::Context(const Api& api, cl_device_id device, uint64_t max_allocation) : api_(api), device_(device) {
  name_ = text_of(api, device, CL_DEVICE_NAME);
  driver_ = text_of(api, device, CL_DRIVER_VERSION);
  host_processor_ = (number_of<cl_bitfield>(api, device, CL_DEVICE_TYPE) & CL_DEVICE_TYPE_CPU) != 0;
  max_allocation_ = number_of<cl_ulong>(api, device, CL_DEVICE_MAX_MEM_ALLOC_SIZE);
  if (max_allocation > 0) max_allocation_ = std::min(max_allocation_, max_allocation);
  memory_bytes_ = number_of<cl_ulong>(api, device, CL_DEVICE_GLOBAL_MEM_SIZE);
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
  if (bytes <= memory_bytes_ && before <= memory_bytes_ - bytes) {
    memory = api_.clCreateBuffer(context_, CL_MEM_READ_WRITE, bytes, nullptr, &status);
  }
  if (memory != nullptr && status == CL_SUCCESS) return memory;
  allocated_ -= bytes;
  throw Error("DEVICE_FAILED", name_ + " has no room for " + std::to_string(bytes) + " bytes beside the " + std::to_string(before) +
                                   " in use, of " + std::to_string(memory_bytes_) + " (" + status_name(status) + ").");
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
