// What the engine asks of a device. One implementation a backend; the engine knows no other.
//
// Streams are queues that run beside the host and beside one another; within one stream, commands run in order. Events
// order streams and let the host wait. Ranges and host memory handed to a command must stay valid until the command has run.
// Uploads read memory from alloc_pinned (on unified devices any); downloads write anywhere, best to such memory.
//
// Thread safety: a stream is used by one host thread at a time; everything else may be called from any thread.
//
// Failures throw Error{"DEVICE_FAILED"}. Where memory does not last, at once, and everything else stays as it was. Where a
// command fails, at each synchronize with an event that was recorded behind it; its stream, and every stream that waits for
// such an event, skips its later commands. A device that is lost throws from every call; no command touches host memory from the
// first such error on. Only free, free_pinned and destroy never throw, so that owners can always let go.
// Memory starts with any content. Buffers begin on a multiple of at least 64 bytes.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "../platform/trace.h"
#include "ops.h"

namespace layerstream {

// Each backend derives its own from these, as from Buffer.
struct Stream {};
struct Event {};

// What a device's arithmetic is measured with.
enum class PeakKind : uint8_t { kFloat32, kBFloat16 };

enum class DeviceKind : uint8_t { kProcessor, kGpu };

struct DeviceInfo {
  std::string name;         // as open_device takes it: "cpu", "opencl:1"
  std::string kernels;      // the kernel set in use, for example "avx512", or what the device is called
  bool unified = false;     // pinned host memory is device memory: alias_pinned works and copies can be skipped
  uint32_t threads = 0;     // host threads that execute kernels; 0 where the device computes by itself
  DeviceKind kind = DeviceKind::kProcessor;
  std::string driver = {};    // its version; empty where there is no driver
  uint64_t memory_bytes = 0;  // of its own; 0: it uses the host's
};

class Device {
 public:
  virtual ~Device() = default;
  virtual DeviceInfo info() const = 0;
  // Bytes of its own memory that can be allocated now; 0 where it uses the host's.
  virtual uint64_t free_bytes() const = 0;
  // Bytes of its own memory that ops take beside the ranges they are given, at most, where no matrix has more columns.
  virtual uint64_t scratch_bytes(uint32_t columns) const = 0;

  virtual Buffer* alloc(uint64_t bytes) = 0;
  virtual void free(Buffer* buffer) = 0;
  // Like alloc, for memory of which parts are used: costs what is committed. Released with free().
  virtual Buffer* reserve(uint64_t bytes) = 0;
  virtual void commit(Range range) = 0;   // before the first use of this part
  virtual void populate(Range range) = 0; // makes committed memory ready for fast reads; its content stays; never throws
  virtual void discard(Range range) = 0;  // gives the memory of its whole pages back at once; their content is lost
  // Page-aligned host memory that copies can use directly; resident from the start.
  virtual void* alloc_pinned(uint64_t bytes) = 0;
  virtual void free_pinned(void* memory) = 0;
  // Unified devices: a buffer over host memory, released with free(); the memory itself stays the caller's.
  virtual Buffer* alias_host(void* memory, uint64_t bytes) = 0;
  // Unified devices: the address of a range.
  virtual void* host_address(Range range) = 0;

  virtual Stream* create_stream() = 0;
  virtual void destroy(Stream* stream) = 0;  // runs what has been enqueued
  virtual Event* create_event() = 0;
  // No stream may still have to record or wait for it: destroy the streams first, or synchronize with each of them.
  virtual void destroy(Event* event) = 0;
  virtual void record(Event* event, Stream* stream) = 0;  // completes when everything enqueued so far has run
  virtual void wait(Stream* stream, Event* event) = 0;    // the stream waits for the last record; the host does not
  virtual void synchronize(Event* event) = 0;             // the host waits; throws what a command of the stream threw

  virtual void upload(Stream* stream, Range destination, const void* source) = 0;
  virtual void download(Stream* stream, void* destination, Range source) = 0;
  virtual void copy(Stream* stream, Range destination, Range source) = 0;

  // The table op x format of the device: whether it executes ops of this kind, with these formats, widths and options.
  // Ranges, strides and numbers of tokens are not looked at.
  virtual bool supports(const Op& op) const = 0;
  virtual void launch(Stream* stream, std::span<const Op> ops) = 0;

  // Every command that is enqueued from now on is recorded, as of `track`. The trace outlives the stream.
  virtual void observe(Stream* stream, Trace* trace, Track track) = 0;
  // Commands enqueued from now on belong to `stage`, for the trace.
  virtual void label(Stream* stream, uint32_t stage) = 0;

  // Nanoseconds in which the stream has executed commands since it was created.
  virtual uint64_t busy_nanoseconds(Stream* stream) = 0;

  // Floating point operations a second that the device does at most, without touching memory; 0 if it has none of the
  // kind. Takes about `seconds`; no stream may have work meanwhile.
  virtual double measure_peak(PeakKind kind, double seconds) = 0;
};

struct DeviceOptions {
  uint32_t threads = 1;
  std::string cache_directory = {};  // where a device may keep kernels that it compiles; empty: nowhere
  uint64_t max_allocation = 0;   // bytes of one allocation of a driver, where its own limit is larger; 0: no other limit
  uint32_t index = 0;            // which of the backend's devices
  bool as_gpu = false;           // for tests: kernels are launched as a GPU's also where the device is a processor
};

// A device that is there, or would be.
struct ListedDevice {
  DeviceInfo info;     // `threads` is 0
  std::string reason;  // why it cannot run here, and what to do about it, in a sentence or two; then only its name is known
};

struct Backend {
  const char* name;
  // Every device, the best first, without opening any; one with the reason where there is none.
  std::vector<ListedDevice> (*list)();
  // Null where there is no device of that index or it cannot run; `reason` then says why, and what to do about it.
  std::unique_ptr<Device> (*open)(const DeviceOptions& options, std::string* reason);
};

std::span<const Backend> backends();

// "opencl", or "opencl:1".
std::string device_name(const char* backend, uint32_t index);

// Opens the device of that name, whose index replaces that of the options. Throws Error{"DEVICE_UNAVAILABLE"} with the
// reason, or with what is there.
std::unique_ptr<Device> open_device(const std::string& name, const DeviceOptions& options);

}  // namespace layerstream
