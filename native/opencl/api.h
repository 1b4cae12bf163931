// The part of OpenCL 1.2 that the device uses, declared from the specification (Khronos, The OpenCL Specification 1.2,
// chapters 4 and 5), and its functions as found in the ICD loader of this system.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

#if defined(_WIN32)
#define LAYERSTREAM_OPENCL_CALL __stdcall
#else
#define LAYERSTREAM_OPENCL_CALL
#endif

namespace layerstream::opencl {

using cl_int = int32_t;
using cl_uint = uint32_t;
using cl_ulong = uint64_t;
using cl_bool = cl_uint;
using cl_bitfield = cl_ulong;

using cl_platform_id = struct Platform*;
using cl_device_id = struct DeviceId*;
using cl_context = struct ContextHandle*;
using cl_command_queue = struct Queue*;
using cl_mem = struct Memory*;
using cl_program = struct Program*;
using cl_kernel = struct Kernel*;
using cl_event = struct EventHandle*;

constexpr cl_int CL_SUCCESS = 0;
constexpr cl_int CL_MEM_OBJECT_ALLOCATION_FAILURE = -4;
constexpr cl_int CL_OUT_OF_RESOURCES = -5;
constexpr cl_int CL_OUT_OF_HOST_MEMORY = -6;
constexpr cl_int CL_EXEC_STATUS_ERROR_FOR_EVENTS_IN_WAIT_LIST = -14;
constexpr cl_int CL_INVALID_KERNEL_NAME = -46;
constexpr cl_int CL_INVALID_BUFFER_SIZE = -61;

constexpr cl_bool CL_TRUE = 1;
constexpr cl_bool CL_FALSE = 0;


constexpr cl_bitfield CL_DEVICE_TYPE_CPU = 1 << 1;
constexpr cl_bitfield CL_DEVICE_TYPE_GPU = 1 << 2;
constexpr cl_bitfield CL_DEVICE_TYPE_ALL = 0xffffffff;

constexpr cl_uint CL_DEVICE_TYPE = 0x1000;
constexpr cl_uint CL_DEVICE_MAX_COMPUTE_UNITS = 0x1002;
constexpr cl_uint CL_DEVICE_MAX_MEM_ALLOC_SIZE = 0x1010;
constexpr cl_uint CL_DEVICE_GLOBAL_MEM_SIZE = 0x101f;
constexpr cl_uint CL_DEVICE_ENDIAN_LITTLE = 0x1026;
constexpr cl_uint CL_DEVICE_COMPILER_AVAILABLE = 0x1028;
constexpr cl_uint CL_DEVICE_NAME = 0x102b;
constexpr cl_uint CL_DRIVER_VERSION = 0x102d;
constexpr cl_uint CL_DEVICE_VERSION = 0x102f;

constexpr cl_bitfield CL_MEM_READ_WRITE = 1 << 0;
constexpr cl_bitfield CL_MEM_ALLOC_HOST_PTR = 1 << 4;

constexpr cl_bitfield CL_MAP_READ = 1 << 0;
constexpr cl_bitfield CL_MAP_WRITE = 1 << 1;

constexpr cl_bitfield CL_QUEUE_PROFILING_ENABLE = 1 << 1;

constexpr cl_uint CL_PROGRAM_BINARY_SIZES = 0x1165;
constexpr cl_uint CL_PROGRAM_BINARIES = 0x1166;
constexpr cl_uint CL_PROGRAM_BUILD_LOG = 0x1183;

constexpr cl_uint CL_EVENT_COMMAND_EXECUTION_STATUS = 0x11d3;
constexpr cl_int CL_COMPLETE = 0;
constexpr cl_uint CL_PROFILING_COMMAND_START = 0x1282;
constexpr cl_uint CL_PROFILING_COMMAND_END = 0x1283;

// name, result, parameters. Callbacks and property lists are never used: they are plain pointers here.
#define LAYERSTREAM_OPENCL_FUNCTIONS(each)                                                                             \
  each(clGetPlatformIDs, cl_int, (cl_uint, cl_platform_id*, cl_uint*))                                                 \
  each(clGetDeviceIDs, cl_int, (cl_platform_id, cl_bitfield, cl_uint, cl_device_id*, cl_uint*))                        \
  each(clGetDeviceInfo, cl_int, (cl_device_id, cl_uint, size_t, void*, size_t*))                                       \
  each(clCreateContext, cl_context, (const intptr_t*, cl_uint, const cl_device_id*, void*, void*, cl_int*))            \
  each(clReleaseContext, cl_int, (cl_context))                                                                         \
  each(clCreateCommandQueue, cl_command_queue, (cl_context, cl_device_id, cl_bitfield, cl_int*))                       \
  each(clReleaseCommandQueue, cl_int, (cl_command_queue))                                                              \
  each(clCreateBuffer, cl_mem, (cl_context, cl_bitfield, size_t, void*, cl_int*))                                      \
  each(clReleaseMemObject, cl_int, (cl_mem))                                                                           \
  each(clCreateProgramWithSource, cl_program, (cl_context, cl_uint, const char**, const size_t*, cl_int*))             \
  each(clCreateProgramWithBinary, cl_program,                                                                          \
       (cl_context, cl_uint, const cl_device_id*, const size_t*, const unsigned char**, cl_int*, cl_int*))             \
  each(clBuildProgram, cl_int, (cl_program, cl_uint, const cl_device_id*, const char*, void*, void*))                  \
  each(clGetProgramInfo, cl_int, (cl_program, cl_uint, size_t, void*, size_t*))                                        \
  each(clGetProgramBuildInfo, cl_int, (cl_program, cl_device_id, cl_uint, size_t, void*, size_t*))                     \
  each(clReleaseProgram, cl_int, (cl_program))                                                                         \
  each(clCreateKernel, cl_kernel, (cl_program, const char*, cl_int*))                                                  \
  each(clSetKernelArg, cl_int, (cl_kernel, cl_uint, size_t, const void*))                                              \
  each(clReleaseKernel, cl_int, (cl_kernel))                                                                           \
  each(clEnqueueNDRangeKernel, cl_int,                                                                                 \
       (cl_command_queue, cl_kernel, cl_uint, const size_t*, const size_t*, const size_t*, cl_uint, const cl_event*,   \
        cl_event*))                                                                                                    \
  each(clEnqueueWriteBuffer, cl_int,                                                                                   \
       (cl_command_queue, cl_mem, cl_bool, size_t, size_t, const void*, cl_uint, const cl_event*, cl_event*))          \
  each(clEnqueueReadBuffer, cl_int,                                                                                    \
       (cl_command_queue, cl_mem, cl_bool, size_t, size_t, void*, cl_uint, const cl_event*, cl_event*))                \
  each(clEnqueueCopyBuffer, cl_int,                                                                                    \
       (cl_command_queue, cl_mem, cl_mem, size_t, size_t, size_t, cl_uint, const cl_event*, cl_event*))                \
  each(clEnqueueMapBuffer, void*,                                                                                      \
       (cl_command_queue, cl_mem, cl_bool, cl_bitfield, size_t, size_t, cl_uint, const cl_event*, cl_event*, cl_int*)) \
  each(clEnqueueUnmapMemObject, cl_int, (cl_command_queue, cl_mem, void*, cl_uint, const cl_event*, cl_event*))        \
  each(clEnqueueMarkerWithWaitList, cl_int, (cl_command_queue, cl_uint, const cl_event*, cl_event*))                   \
  each(clEnqueueBarrierWithWaitList, cl_int, (cl_command_queue, cl_uint, const cl_event*, cl_event*))                  \
  each(clWaitForEvents, cl_int, (cl_uint, const cl_event*))                                                            \
  each(clGetEventInfo, cl_int, (cl_event, cl_uint, size_t, void*, size_t*))                                            \
  each(clGetEventProfilingInfo, cl_int, (cl_event, cl_uint, size_t, void*, size_t*))                                   \
  each(clRetainEvent, cl_int, (cl_event))                                                                              \
  each(clReleaseEvent, cl_int, (cl_event))                                                                             \
  each(clFlush, cl_int, (cl_command_queue))                                                                            \
  each(clFinish, cl_int, (cl_command_queue))

struct Api {
#define LAYERSTREAM_DECLARE(name, result, parameters) result(LAYERSTREAM_OPENCL_CALL* name) parameters = nullptr;
  LAYERSTREAM_OPENCL_FUNCTIONS(LAYERSTREAM_DECLARE)
#undef LAYERSTREAM_DECLARE
};

// Null where there is no loader, or one older than OpenCL 1.2; api_error() then says so.
const Api* find_api();
const std::string& api_error();

// The specification's name of a status, where it has one that users meet.
std::string status_name(cl_int status);

// Throws Error{"DEVICE_FAILED"} naming the call, unless the status is CL_SUCCESS.
void check(cl_int status, const char* call);

}  // namespace layerstream::opencl
