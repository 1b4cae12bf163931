// HIP's functions in the places of CUDA's (../cuda/api.h), and its numbers where they are others. From HIP 5.2 to 7 both are
// the same (hip_runtime_api.h); tools/hip-kernels.mjs holds them against the headers of this system.
#pragma once

#include "../cuda/api.h"

namespace layerstream::hip {

// Parameters of these are CUDA's, but for what handles point to; addresses are pointers.
#define LAYERSTREAM_HIP_FUNCTIONS(each)                                 \
  each(cuInit, hipInit)                                                 \
  each(cuDriverGetVersion, hipDriverGetVersion)                         \
  each(cuDeviceGetCount, hipGetDeviceCount)                             \
  each(cuDeviceGet, hipDeviceGet)                                       \
  each(cuDeviceGetName, hipDeviceGetName)                               \
  each(cuDeviceGetAttribute, hipDeviceGetAttribute)                     \
  each(cuDeviceTotalMem, hipDeviceTotalMem)                             \
  each(cuModuleLoadData, hipModuleLoadData)                             \
  each(cuModuleUnload, hipModuleUnload)                                 \
  each(cuModuleGetFunction, hipModuleGetFunction)                       \
  each(cuMemGetInfo, hipMemGetInfo)                                     \
  each(cuMemAlloc, hipMalloc)                                           \
  each(cuMemFree, hipFree)                                              \
  each(cuMemHostRegister, hipHostRegister)                              \
  each(cuMemHostUnregister, hipHostUnregister)                          \
  each(cuMemGetAllocationGranularity, hipMemGetAllocationGranularity)   \
  each(cuMemAddressReserve, hipMemAddressReserve)                       \
  each(cuMemAddressFree, hipMemAddressFree)                             \
  each(cuMemCreate, hipMemCreate)                                       \
  each(cuMemRelease, hipMemRelease)                                     \
  each(cuMemMap, hipMemMap)                                             \
  each(cuMemUnmap, hipMemUnmap)                                         \
  each(cuMemSetAccess, hipMemSetAccess)                                 \
  each(cuMemcpyHtoDAsync, hipMemcpyHtoDAsync)                           \
  each(cuMemcpyDtoHAsync, hipMemcpyDtoHAsync)                           \
  each(cuMemcpyDtoDAsync, hipMemcpyDtoDAsync)                           \
  each(cuStreamCreate, hipStreamCreateWithFlags)                        \
  each(cuStreamDestroy, hipStreamDestroy)                               \
  each(cuStreamSynchronize, hipStreamSynchronize)                       \
  each(cuStreamWaitEvent, hipStreamWaitEvent)                           \
  each(cuEventCreate, hipEventCreateWithFlags)                          \
  each(cuEventDestroy, hipEventDestroy)                                 \
  each(cuEventRecord, hipEventRecord)                                   \
  each(cuEventQuery, hipEventQuery)                                     \
  each(cuEventSynchronize, hipEventSynchronize)                         \
  each(cuEventElapsedTime, hipEventElapsedTime)                         \
  each(cuLaunchKernel, hipModuleLaunchKernel)

// What has no such counterpart.
using GetErrorName = const char*(cuda::CUresult);
using SetDevice = cuda::CUresult(int);

// hipDeviceAttribute_t
constexpr int kMultiprocessorCount = 63;
constexpr int kMaxSharedMemoryPerBlock = 74;
constexpr int kWarpSize = 87;
constexpr int kVirtualMemoryManagementSupported = 89;  // from 5.3 on

constexpr cuda::CUresult kInvalidDevice = 101;

// hipDriverGetVersion: HIP_VERSION.
constexpr int kVersionsOfMajor = 10'000'000, kVersionsOfMinor = 100'000;

}  // namespace layerstream::hip
