// Compiled, not run (tools/hip-kernels.mjs): HIP's own headers declare what native/hip/functions.h says.
// Overloads have no one type.
#define __HIP_DISABLE_CPP_FUNCTIONS__
#include <hip/hip_runtime_api.h>

#include <cstddef>
#include <type_traits>

#include "../../native/hip/functions.h"

namespace layerstream::hip {

namespace {

// Whether calls pass the same: pointers and handles, addresses as numbers or pointers, enumerations as numbers.
template <class Theirs, class Ours>
constexpr bool same_value() {
  if (std::is_floating_point_v<Theirs> || std::is_floating_point_v<Ours>) return std::is_same_v<Theirs, Ours>;
  if (std::is_pointer_v<Ours>) return std::is_pointer_v<Theirs>;
  if (std::is_pointer_v<Theirs>) return std::is_same_v<Ours, cuda::CUdeviceptr>;
  return sizeof(Theirs) == sizeof(Ours) && (std::is_integral_v<Theirs> || std::is_enum_v<Theirs>) && std::is_integral_v<Ours>;
}

template <class Theirs, class Ours>
constexpr bool kSame = false;
template <class Result, class... Theirs, class OurResult, class... Ours>
  requires(sizeof...(Theirs) == sizeof...(Ours))
constexpr bool kSame<Result(Theirs...), OurResult(Ours...)> = same_value<Result, OurResult>() && (same_value<Theirs, Ours>() && ...);

#define CHECK(name, symbol) static_assert(kSame<decltype(symbol), std::remove_pointer_t<decltype(cuda::Api::name)>>, #symbol);
LAYERSTREAM_HIP_FUNCTIONS(CHECK)
#undef CHECK
static_assert(kSame<decltype(hipGetErrorName), GetErrorName> && kSame<decltype(hipSetDevice), SetDevice>);

static_assert(kMultiprocessorCount == hipDeviceAttributeMultiprocessorCount);
static_assert(kMaxSharedMemoryPerBlock == hipDeviceAttributeMaxSharedMemoryPerBlock);
static_assert(kWarpSize == hipDeviceAttributeWarpSize);
static_assert(HIP_VERSION == HIP_VERSION_MAJOR * kVersionsOfMajor + HIP_VERSION_MINOR * kVersionsOfMinor + HIP_VERSION_PATCH);

// Statuses that the device tells apart are CUDA's.
static_assert(cuda::CUDA_SUCCESS == hipSuccess);
static_assert(cuda::CUDA_ERROR_OUT_OF_MEMORY == hipErrorOutOfMemory);
static_assert(cuda::CUDA_ERROR_DEINITIALIZED == hipErrorDeinitialized);
static_assert(cuda::CUDA_ERROR_NO_DEVICE == hipErrorNoDevice);
static_assert(cuda::CUDA_ERROR_INVALID_IMAGE == hipErrorInvalidImage);
static_assert(cuda::CUDA_ERROR_NO_BINARY_FOR_GPU == hipErrorNoBinaryForGpu);
static_assert(cuda::CUDA_ERROR_ECC_UNCORRECTABLE == hipErrorECCNotCorrectable);
static_assert(cuda::CUDA_ERROR_INVALID_PTX == hipErrorInvalidKernelFile);
static_assert(cuda::CUDA_ERROR_NOT_READY == hipErrorNotReady);
static_assert(cuda::CUDA_ERROR_ILLEGAL_ADDRESS == hipErrorIllegalAddress);
static_assert(cuda::CUDA_ERROR_LAUNCH_TIMEOUT == hipErrorLaunchTimeOut);
static_assert(cuda::CUDA_ERROR_CONTEXT_IS_DESTROYED == hipErrorContextIsDestroyed);
static_assert(cuda::CUDA_ERROR_ASSERT == hipErrorAssert);
static_assert(cuda::CUDA_ERROR_LAUNCH_FAILED == hipErrorLaunchFailure);
static_assert(cuda::CUDA_ERROR_NOT_SUPPORTED == hipErrorNotSupported);
static_assert(cuda::CUDA_ERROR_UNKNOWN == hipErrorUnknown);
static_assert(kInvalidDevice == hipErrorInvalidDevice);

static_assert(cuda::CU_STREAM_NON_BLOCKING == hipStreamNonBlocking);
static_assert(cuda::CU_EVENT_DEFAULT == hipEventDefault);
static_assert(cuda::CU_EVENT_BLOCKING_SYNC == hipEventBlockingSync);
static_assert(cuda::CU_EVENT_DISABLE_TIMING == hipEventDisableTiming);
static_assert(cuda::CU_MEMHOSTREGISTER_PORTABLE == hipHostRegisterPortable);
static_assert(cuda::CU_MEM_ALLOCATION_TYPE_PINNED == hipMemAllocationTypePinned);
static_assert(cuda::CU_MEM_LOCATION_TYPE_DEVICE == hipMemLocationTypeDevice);
static_assert(cuda::CU_MEM_ACCESS_FLAGS_PROT_READWRITE == hipMemAccessFlagsProtReadWrite);
static_assert(cuda::CU_MEM_ALLOC_GRANULARITY_MINIMUM == hipMemAllocationGranularityMinimum);

static_assert(sizeof(cuda::CUmemAccessDesc) == sizeof(hipMemAccessDesc));
static_assert(offsetof(cuda::CUmemAccessDesc, location) == offsetof(hipMemAccessDesc, location));
static_assert(offsetof(cuda::CUmemAccessDesc, flags) == offsetof(hipMemAccessDesc, flags));
static_assert(offsetof(cuda::CUmemLocation, id) == offsetof(hipMemLocation, id));
// HIP 5.2, whose struct is another, has no memory that can be mapped, and no attribute that says so.
#if HIP_VERSION >= 50300000
static_assert(kVirtualMemoryManagementSupported == hipDeviceAttributeVirtualMemoryManagementSupported);
static_assert(sizeof(cuda::CUmemAllocationProp) == sizeof(hipMemAllocationProp));
static_assert(offsetof(cuda::CUmemAllocationProp, type) == offsetof(hipMemAllocationProp, type));
static_assert(offsetof(cuda::CUmemAllocationProp, location) == offsetof(hipMemAllocationProp, location));
static_assert(offsetof(cuda::CUmemAllocationProp, win32HandleMetaData) == offsetof(hipMemAllocationProp, win32HandleMetaData));
static_assert(offsetof(cuda::CUmemAllocationProp, allocFlags) == offsetof(hipMemAllocationProp, allocFlags));
#endif

}  // namespace

}  // namespace layerstream::hip
