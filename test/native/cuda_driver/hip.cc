// The same driver as HIP's runtime, libamdhip64: what native/hip/functions.h asks for, under HIP's names, with HIP's numbers
// and HIP's meaning where they are others. Threads run 64 at once and blocks have 64 KiB of shared memory, as on AMD's GPUs.
#include <memory>

#include "../../../native/hip/functions.h"
#include "device.h"

using namespace layerstream::cuda;
using namespace layerstream::cuda_driver;

#define EXPORT extern "C" __attribute__((visibility("default")))

// Of driver.cc.
extern "C" {
#define DECLARE(name, symbol, parameters) CUresult name parameters __asm__(symbol);
LAYERSTREAM_CUDA_FUNCTIONS(DECLARE)
#undef DECLARE
}

namespace {

namespace hip = layerstream::hip;

constexpr int kBlockSharedBytes = 64 << 10, kVersion = 6 * hip::kVersionsOfMajor + 2 * hip::kVersionsOfMinor + 41133;

// Threads have a current device, and nobody says when it is not needed any more: hipInit begins anew where nothing is left.
CUresult retain(CUdevice number) {
  Device* const device = device_of(number);
  if (device == nullptr) return hip::kInvalidDevice;
  CUcontext context = reinterpret_cast<CUcontext>(device);
  if (device->retained == 0) cuDevicePrimaryCtxRetain(&context, number);
  return cuCtxSetCurrent(context);
}

void release_unused() {
  for (CUdevice number = 0; Device* const device = device_of(number); ++number) {
    if (device->retained > 0 && (device->status != CUDA_SUCCESS || device->left() == 0)) cuDevicePrimaryCtxRelease(number);
  }
}

}  // namespace

EXPORT CUresult hipInit(unsigned flags) {
  release_unused();
  // As HIP 5.2 says it.
  const CUresult status = cuInit(flags);
  return status == CUDA_ERROR_NO_DEVICE ? hip::kInvalidDevice : status;
}

EXPORT CUresult hipSetDevice(int device) { return retain(device); }

EXPORT CUresult hipDriverGetVersion(int* version) {
  *version = kVersion;
  return CUDA_SUCCESS;
}

EXPORT const char* hipGetErrorName(CUresult status) {
  switch (status) {
    case CUDA_ERROR_OUT_OF_MEMORY:
      return "hipErrorOutOfMemory";
    case CUDA_ERROR_NO_BINARY_FOR_GPU:
      return "hipErrorNoBinaryForGpu";
    case CUDA_ERROR_ILLEGAL_ADDRESS:
      return "hipErrorIllegalAddress";
    default:
      return "hipErrorUnknown";
  }
}

EXPORT CUresult hipDeviceGetAttribute(int* value, int attribute, int device) {
  switch (attribute) {
    case hip::kMultiprocessorCount:
      return cuDeviceGetAttribute(value, CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT, device);
    case hip::kVirtualMemoryManagementSupported:
      return cuDeviceGetAttribute(value, CU_DEVICE_ATTRIBUTE_VIRTUAL_MEMORY_MANAGEMENT_SUPPORTED, device);
    case hip::kMaxSharedMemoryPerBlock:
      *value = kBlockSharedBytes;
      return CUDA_SUCCESS;
    case hip::kWarpSize:
      *value = 64;
      return CUDA_SUCCESS;
    default:
      return CUDA_ERROR_INVALID_VALUE;
  }
}

EXPORT CUresult hipModuleGetFunction(CUfunction* function, CUmodule module, const char* name) {
  const CUresult status = cuModuleGetFunction(function, module, name);
  if (status != CUDA_SUCCESS) return status;
  return cuFuncSetAttribute(*function, CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES, kBlockSharedBytes);
}

// The others do what CUDA's do.
#define FORWARD(name, symbol, parameters, ...) \
  EXPORT CUresult name parameters { return symbol(__VA_ARGS__); }

FORWARD(hipGetDeviceCount, cuDeviceGetCount, (int* count), count)
FORWARD(hipDeviceGet, cuDeviceGet, (CUdevice* device, int ordinal), device, ordinal)
FORWARD(hipDeviceGetName, cuDeviceGetName, (char* name, int bytes, CUdevice device), name, bytes, device)
FORWARD(hipDeviceTotalMem, cuDeviceTotalMem, (size_t* bytes, CUdevice device), bytes, device)
FORWARD(hipModuleLoadData, cuModuleLoadData, (CUmodule* module, const void* image), module, image)
FORWARD(hipModuleUnload, cuModuleUnload, (CUmodule module), module)
FORWARD(hipMemGetInfo, cuMemGetInfo, (size_t* free, size_t* total), free, total)
FORWARD(hipMalloc, cuMemAlloc, (CUdeviceptr* address, size_t bytes), address, bytes)
FORWARD(hipFree, cuMemFree, (CUdeviceptr address), address)
FORWARD(hipHostRegister, cuMemHostRegister, (void* memory, size_t bytes, unsigned flags), memory, bytes, flags)
FORWARD(hipHostUnregister, cuMemHostUnregister, (void* memory), memory)
FORWARD(hipMemGetAllocationGranularity, cuMemGetAllocationGranularity,
        (size_t* bytes, const CUmemAllocationProp* properties, int option), bytes, properties, option)
FORWARD(hipMemAddressReserve, cuMemAddressReserve,
        (CUdeviceptr* address, size_t bytes, size_t alignment, CUdeviceptr wanted, unsigned long long flags), address, bytes, alignment,
        wanted, flags)
FORWARD(hipMemAddressFree, cuMemAddressFree, (CUdeviceptr address, size_t bytes), address, bytes)
FORWARD(hipMemCreate, cuMemCreate,
        (CUmemGenericAllocationHandle* handle, size_t bytes, const CUmemAllocationProp* properties, unsigned long long flags), handle,
        bytes, properties, flags)
FORWARD(hipMemRelease, cuMemRelease, (CUmemGenericAllocationHandle handle), handle)
FORWARD(hipMemMap, cuMemMap,
        (CUdeviceptr address, size_t bytes, size_t offset, CUmemGenericAllocationHandle handle, unsigned long long flags), address,
        bytes, offset, handle, flags)
FORWARD(hipMemUnmap, cuMemUnmap, (CUdeviceptr address, size_t bytes), address, bytes)
FORWARD(hipMemSetAccess, cuMemSetAccess, (CUdeviceptr address, size_t bytes, const CUmemAccessDesc* access, size_t count), address,
        bytes, access, count)
FORWARD(hipMemcpyHtoDAsync, cuMemcpyHtoDAsync, (CUdeviceptr target, const void* source, size_t bytes, CUstream stream), target, source,
        bytes, stream)
FORWARD(hipMemcpyDtoHAsync, cuMemcpyDtoHAsync, (void* target, CUdeviceptr source, size_t bytes, CUstream stream), target, source, bytes,
        stream)
FORWARD(hipMemcpyDtoDAsync, cuMemcpyDtoDAsync, (CUdeviceptr target, CUdeviceptr source, size_t bytes, CUstream stream), target, source,
        bytes, stream)
FORWARD(hipStreamCreateWithFlags, cuStreamCreate, (CUstream* stream, unsigned flags), stream, flags)
FORWARD(hipStreamDestroy, cuStreamDestroy, (CUstream stream), stream)
FORWARD(hipStreamSynchronize, cuStreamSynchronize, (CUstream stream), stream)
FORWARD(hipStreamWaitEvent, cuStreamWaitEvent, (CUstream stream, CUevent event, unsigned flags), stream, event, flags)
FORWARD(hipEventCreateWithFlags, cuEventCreate, (CUevent* event, unsigned flags), event, flags)
FORWARD(hipEventDestroy, cuEventDestroy, (CUevent event), event)
FORWARD(hipEventRecord, cuEventRecord, (CUevent event, CUstream stream), event, stream)
FORWARD(hipEventQuery, cuEventQuery, (CUevent event), event)
FORWARD(hipEventSynchronize, cuEventSynchronize, (CUevent event), event)
FORWARD(hipEventElapsedTime, cuEventElapsedTime, (float* milliseconds, CUevent from, CUevent to), milliseconds, from, to)
FORWARD(hipModuleLaunchKernel, cuLaunchKernel,
        (CUfunction function, unsigned grid_x, unsigned grid_y, unsigned grid_z, unsigned block_x, unsigned block_y, unsigned block_z,
         unsigned shared_bytes, CUstream stream, void** parameters, void** extra),
        function, grid_x, grid_y, grid_z, block_x, block_y, block_z, shared_bytes, stream, parameters, extra)
