#include "api.h"

#include "../platform/error.h"
#include "../platform/library.h"

namespace layerstream::opencl {

namespace {

struct Loaded {
  Api api;
  std::string error;
};

Loaded load() {
  Loaded loaded;
#if defined(_WIN32)
  const Library library("OpenCL.dll");
#elif defined(__APPLE__)
  const Library library("/System/Library/Frameworks/OpenCL.framework/OpenCL");
#else
  const Library library("libOpenCL.so.1", "libOpenCL.so");
#endif
  if (!library.loaded()) {
    loaded.error = "There is no OpenCL loader (" + library.error() + ").";
    return loaded;
  }
#define LAYERSTREAM_FIND(name, result, parameters)                                       \
  loaded.api.name = reinterpret_cast<decltype(loaded.api.name)>(library.find(#name));    \
  if (loaded.api.name == nullptr && loaded.error.empty()) loaded.error = "The OpenCL loader is older than OpenCL 1.2: it lacks " #name ".";
  LAYERSTREAM_OPENCL_FUNCTIONS(LAYERSTREAM_FIND)
#undef LAYERSTREAM_FIND
  return loaded;
}

const Loaded& loaded() {
  static const Loaded once = load();
  return once;
}

}  // namespace

const Api* find_api() { return loaded().error.empty() ? &loaded().api : nullptr; }

const std::string& api_error() { return loaded().error; }

std::string status_name(cl_int status) {
  switch (status) {
    case CL_MEM_OBJECT_ALLOCATION_FAILURE:
      return "CL_MEM_OBJECT_ALLOCATION_FAILURE";
    case CL_OUT_OF_RESOURCES:
      return "CL_OUT_OF_RESOURCES";
    case CL_OUT_OF_HOST_MEMORY:
      return "CL_OUT_OF_HOST_MEMORY";
    case CL_EXEC_STATUS_ERROR_FOR_EVENTS_IN_WAIT_LIST:
      return "CL_EXEC_STATUS_ERROR_FOR_EVENTS_IN_WAIT_LIST";
    case CL_INVALID_BUFFER_SIZE:
      return "CL_INVALID_BUFFER_SIZE";
    default:
      return "status " + std::to_string(status);
  }
}

void check(cl_int status, const char* call) {
  if (status == CL_SUCCESS) return;
  const bool memory = status == CL_MEM_OBJECT_ALLOCATION_FAILURE || status == CL_OUT_OF_RESOURCES || status == CL_OUT_OF_HOST_MEMORY;
  throw Error("DEVICE_FAILED", std::string("OpenCL: ") + call + " failed with " + status_name(status) +
                                   (memory ? ". The device or the host has too little memory: lower --vram or --memory." : "."));
}

}  // namespace layerstream::opencl
