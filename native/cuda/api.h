// The part of the CUDA driver API that the device uses, declared from NVIDIA's documentation (CUDA Driver API, modules
// 6.2 to 6.24), and its functions as found in the driver of this system. Nothing of the toolkit is needed.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

#if defined(_WIN32)
#define LAYERSTREAM_CUDA_CALL __stdcall
#else
#define LAYERSTREAM_CUDA_CALL
#endif

namespace layerstream::cuda {

using CUresult = int;
using CUdevice = int;
using CUdeviceptr = uint64_t;
using CUcontext = struct ContextHandle*;
using CUmodule = struct ModuleHandle*;
using CUfunction = struct FunctionHandle*;
using CUstream = struct StreamHandle*;
using CUevent = struct EventHandle*;
using CUgraph = struct GraphHandle*;
using CUgraphNode = struct GraphNodeHandle*;
using CUgraphExec = struct GraphExecHandle*;
using CUmemGenericAllocationHandle = uint64_t;

constexpr CUresult CUDA_SUCCESS = 0;
constexpr CUresult CUDA_ERROR_INVALID_VALUE = 1;
constexpr CUresult CUDA_ERROR_OUT_OF_MEMORY = 2;
constexpr CUresult CUDA_ERROR_DEINITIALIZED = 4;
constexpr CUresult CUDA_ERROR_STUB_LIBRARY = 34;
constexpr CUresult CUDA_ERROR_NO_DEVICE = 100;
constexpr CUresult CUDA_ERROR_INVALID_IMAGE = 200;
constexpr CUresult CUDA_ERROR_NO_BINARY_FOR_GPU = 209;
constexpr CUresult CUDA_ERROR_ECC_UNCORRECTABLE = 214;
constexpr CUresult CUDA_ERROR_INVALID_PTX = 218;
constexpr CUresult CUDA_ERROR_NVLINK_UNCORRECTABLE = 220;
constexpr CUresult CUDA_ERROR_JIT_COMPILER_NOT_FOUND = 221;
constexpr CUresult CUDA_ERROR_UNSUPPORTED_PTX_VERSION = 222;
constexpr CUresult CUDA_ERROR_CONTAINED = 226;
constexpr CUresult CUDA_ERROR_NOT_FOUND = 500;
constexpr CUresult CUDA_ERROR_NOT_READY = 600;
constexpr CUresult CUDA_ERROR_ILLEGAL_ADDRESS = 700;
constexpr CUresult CUDA_ERROR_LAUNCH_TIMEOUT = 702;
constexpr CUresult CUDA_ERROR_CONTEXT_IS_DESTROYED = 709;
constexpr CUresult CUDA_ERROR_ASSERT = 710;
constexpr CUresult CUDA_ERROR_HARDWARE_STACK_ERROR = 714;
constexpr CUresult CUDA_ERROR_LAUNCH_FAILED = 719;
constexpr CUresult CUDA_ERROR_NOT_PERMITTED = 800;
constexpr CUresult CUDA_ERROR_NOT_SUPPORTED = 801;
constexpr CUresult CUDA_ERROR_SYSTEM_DRIVER_MISMATCH = 803;
constexpr CUresult CUDA_ERROR_UNKNOWN = 999;

// CUdevice_attribute
constexpr int CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT = 16;
constexpr int CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR = 75;
constexpr int CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR = 76;
constexpr int CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN = 97;
constexpr int CU_DEVICE_ATTRIBUTE_VIRTUAL_MEMORY_MANAGEMENT_SUPPORTED = 102;

constexpr int CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES = 8;

constexpr unsigned CU_STREAM_NON_BLOCKING = 1;
constexpr unsigned CU_EVENT_DEFAULT = 0;
constexpr unsigned CU_EVENT_BLOCKING_SYNC = 1;
constexpr unsigned CU_EVENT_DISABLE_TIMING = 2;
constexpr unsigned CU_MEMHOSTREGISTER_PORTABLE = 1;

constexpr int CU_MEM_ALLOCATION_TYPE_PINNED = 1;
constexpr int CU_MEM_LOCATION_TYPE_DEVICE = 1;
constexpr int CU_MEM_ACCESS_FLAGS_PROT_READWRITE = 3;
constexpr int CU_MEM_ALLOC_GRANULARITY_MINIMUM = 0;

struct CUmemLocation {
  int type, id;
};

struct CUmemAllocationProp {
  int type, requestedHandleTypes;
  CUmemLocation location;
  void* win32HandleMetaData;
  struct {
    unsigned char compressionType, gpuDirectRDMACapable;
    unsigned short usage;
    unsigned char reserved[4];
  } allocFlags;
};

struct CUmemAccessDesc {
  CUmemLocation location;
  int flags;
};

// CUDA_KERNEL_NODE_PARAMS_v1: what functions without a version suffix take.
struct CUDA_KERNEL_NODE_PARAMS {
  CUfunction func;
  unsigned gridDimX, gridDimY, gridDimZ, blockDimX, blockDimY, blockDimZ, sharedMemBytes;
  void** kernelParams;
  void** extra;
};

// name, exported symbol, result, parameters. Symbols have the oldest version that takes 64-bit sizes.
#define LAYERSTREAM_CUDA_FUNCTIONS(each)                                                                                 \
  each(cuInit, "cuInit", (unsigned))                                                                                     \
  each(cuDriverGetVersion, "cuDriverGetVersion", (int*))                                                                 \
  each(cuGetErrorName, "cuGetErrorName", (CUresult, const char**))                                                       \
  each(cuDeviceGetCount, "cuDeviceGetCount", (int*))                                                                     \
  each(cuDeviceGet, "cuDeviceGet", (CUdevice*, int))                                                                     \
  each(cuDeviceGetName, "cuDeviceGetName", (char*, int, CUdevice))                                                       \
  each(cuDeviceGetAttribute, "cuDeviceGetAttribute", (int*, int, CUdevice))                                              \
  each(cuDeviceTotalMem, "cuDeviceTotalMem_v2", (size_t*, CUdevice))                                                     \
  each(cuDevicePrimaryCtxRetain, "cuDevicePrimaryCtxRetain", (CUcontext*, CUdevice))                                     \
  each(cuDevicePrimaryCtxRelease, "cuDevicePrimaryCtxRelease_v2", (CUdevice))                                            \
  each(cuCtxSetCurrent, "cuCtxSetCurrent", (CUcontext))                                                                  \
  each(cuModuleLoadData, "cuModuleLoadData", (CUmodule*, const void*))                                                   \
  each(cuModuleUnload, "cuModuleUnload", (CUmodule))                                                                     \
  each(cuModuleGetFunction, "cuModuleGetFunction", (CUfunction*, CUmodule, const char*))                                 \
  each(cuFuncSetAttribute, "cuFuncSetAttribute", (CUfunction, int, int))                                                 \
  each(cuMemGetInfo, "cuMemGetInfo_v2", (size_t*, size_t*))                                                              \
  each(cuMemAlloc, "cuMemAlloc_v2", (CUdeviceptr*, size_t))                                                              \
  each(cuMemFree, "cuMemFree_v2", (CUdeviceptr))                                                                         \
  each(cuMemHostRegister, "cuMemHostRegister_v2", (void*, size_t, unsigned))                                             \
  each(cuMemHostUnregister, "cuMemHostUnregister", (void*))                                                              \
  each(cuMemGetAllocationGranularity, "cuMemGetAllocationGranularity", (size_t*, const CUmemAllocationProp*, int))       \
  each(cuMemAddressReserve, "cuMemAddressReserve", (CUdeviceptr*, size_t, size_t, CUdeviceptr, unsigned long long))      \
  each(cuMemAddressFree, "cuMemAddressFree", (CUdeviceptr, size_t))                                                      \
  each(cuMemCreate, "cuMemCreate",                                                                                       \
       (CUmemGenericAllocationHandle*, size_t, const CUmemAllocationProp*, unsigned long long))                          \
  each(cuMemRelease, "cuMemRelease", (CUmemGenericAllocationHandle))                                                     \
  each(cuMemMap, "cuMemMap", (CUdeviceptr, size_t, size_t, CUmemGenericAllocationHandle, unsigned long long))            \
  each(cuMemUnmap, "cuMemUnmap", (CUdeviceptr, size_t))                                                                  \
  each(cuMemSetAccess, "cuMemSetAccess", (CUdeviceptr, size_t, const CUmemAccessDesc*, size_t))                          \
  each(cuMemcpyHtoDAsync, "cuMemcpyHtoDAsync_v2", (CUdeviceptr, const void*, size_t, CUstream))                          \
  each(cuMemcpyDtoHAsync, "cuMemcpyDtoHAsync_v2", (void*, CUdeviceptr, size_t, CUstream))                                \
  each(cuMemcpyDtoDAsync, "cuMemcpyDtoDAsync_v2", (CUdeviceptr, CUdeviceptr, size_t, CUstream))                          \
  each(cuStreamCreate, "cuStreamCreate", (CUstream*, unsigned))                                                          \
  each(cuStreamDestroy, "cuStreamDestroy_v2", (CUstream))                                                                \
  each(cuStreamSynchronize, "cuStreamSynchronize", (CUstream))                                                           \
  each(cuStreamWaitEvent, "cuStreamWaitEvent", (CUstream, CUevent, unsigned))                                            \
  each(cuEventCreate, "cuEventCreate", (CUevent*, unsigned))                                                             \
  each(cuEventDestroy, "cuEventDestroy_v2", (CUevent))                                                                   \
  each(cuEventRecord, "cuEventRecord", (CUevent, CUstream))                                                              \
  each(cuEventQuery, "cuEventQuery", (CUevent))                                                                          \
  each(cuEventSynchronize, "cuEventSynchronize", (CUevent))                                                              \
  each(cuEventElapsedTime, "cuEventElapsedTime", (float*, CUevent, CUevent))                                             \
  each(cuLaunchKernel, "cuLaunchKernel",                                                                                 \
       (CUfunction, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, CUstream, void**, void**))      \
  each(cuGraphCreate, "cuGraphCreate", (CUgraph*, unsigned))                                                             \
  each(cuGraphDestroy, "cuGraphDestroy", (CUgraph))                                                                      \
  each(cuGraphAddKernelNode, "cuGraphAddKernelNode",                                                                     \
       (CUgraphNode*, CUgraph, const CUgraphNode*, size_t, const CUDA_KERNEL_NODE_PARAMS*))                              \
  each(cuGraphInstantiateWithFlags, "cuGraphInstantiateWithFlags", (CUgraphExec*, CUgraph, unsigned long long))          \
  each(cuGraphExecKernelNodeSetParams, "cuGraphExecKernelNodeSetParams",                                                 \
       (CUgraphExec, CUgraphNode, const CUDA_KERNEL_NODE_PARAMS*))                                                       \
  each(cuGraphLaunch, "cuGraphLaunch", (CUgraphExec, CUstream))                                                          \
  each(cuGraphExecDestroy, "cuGraphExecDestroy", (CUgraphExec))

struct Api {
#define LAYERSTREAM_DECLARE(name, symbol, parameters) CUresult(LAYERSTREAM_CUDA_CALL* name) parameters = nullptr;
  LAYERSTREAM_CUDA_FUNCTIONS(LAYERSTREAM_DECLARE)
#undef LAYERSTREAM_DECLARE
};

// "CUDA_ERROR_OUT_OF_MEMORY", or the number where the driver knows no name.
std::string status_name(const Api& api, CUresult status);

// Whether every later call on the context fails with the same status.
bool is_lost(CUresult status);

}  // namespace layerstream::cuda
