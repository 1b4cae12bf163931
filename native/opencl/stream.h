// A stream is an in-order queue of OpenCL; an event is a marker in one.
#pragma once

#include <chrono>
#include <cstdint>
#include <deque>
#include <memory>
#include <mutex>
#include <string>
#include <unordered_map>
#include <vector>

#include "../backend/device.h"
#include "memory.h"
#include "programs.h"

namespace layerstream::opencl {

// What the commands of a stream have come to. Events keep it beyond their stream.
class CommandLog {
 public:
  explicit CommandLog(std::shared_ptr<Context> context) : context_(std::move(context)) {}
  ~CommandLog();

  // Before the first command.
  void observe(Trace* trace, Track track);
  // Commands from `first` to `last` (the log's from now on; they may be the same) that belong together.
  void add(cl_event first, cl_event last, Activity activity, uint32_t stage, Work work);
  // Takes note of the commands that have run.
  void harvest();
  // The stream is lost: every synchronize tells why.
  void fail(const std::string& reason);
  void throw_failure();
  uint64_t busy_nanoseconds();
  // The host has just seen `event` complete.
  void set_clock(cl_event event);

 private:
  struct Command {
    cl_event first, last;
    Activity activity;
    uint32_t stage;
    Work work;
  };

  bool take_note(const Command& command);
  uint64_t time_of(cl_event event, cl_uint property) const;
  Trace::Time host_time(uint64_t device_time) const;
  void release(const Command& command) const;

  const std::shared_ptr<Context> context_;
  std::mutex mutex_;
  std::deque<Command> commands_;
  std::string failure_;
  uint64_t busy_nanoseconds_ = 0;
  Trace* trace_ = nullptr;
  Track track_ = Track::kCompute;
  int64_t clock_offset_ = 0;  // host nanoseconds - device nanoseconds
  Trace::Time clock_set_{};
};

class DeviceEvent : public Event {
 public:
  explicit DeviceEvent(std::shared_ptr<Context> context) : context_(std::move(context)) {}
  ~DeviceEvent();

  void set(cl_event marker, std::shared_ptr<CommandLog> log);
  // The last record, retained for the caller; null if there is none.
  cl_event get(std::shared_ptr<CommandLog>* log);
  void synchronize();

 private:
  const std::shared_ptr<Context> context_;
  std::mutex mutex_;
  cl_event marker_ = nullptr;
  std::shared_ptr<CommandLog> log_;
};

// Memory that grows when more is asked for.
class ScratchMemory {
 public:
  explicit ScratchMemory(Context& context) : context_(context) {}
  ~ScratchMemory() { release(); }
  ScratchMemory(const ScratchMemory&) = delete;
  ScratchMemory& operator=(const ScratchMemory&) = delete;

  cl_mem at_least(uint64_t bytes);

 private:
  void release();

  Context& context_;
  cl_mem memory_ = nullptr;
  uint64_t bytes_ = 0;
};

// The input that a stream has prepared for products with weights of a format.
struct PreparedInput {
  Format format{};
  cl_mem memory = nullptr;
  uint64_t offset = 0;
  uint32_t stride = 0, columns = 0, tokens = 0;

  bool operator==(const PreparedInput&) const = default;
};

class DeviceStream : public Stream {
 public:
  DeviceStream(std::shared_ptr<Context> context, Programs& programs);
  ~DeviceStream();

  void record(DeviceEvent& event);
  void wait(DeviceEvent& event);
  void upload(DeviceMemory& memory, uint64_t offset, uint64_t bytes, const void* source);
  void download(DeviceMemory& memory, uint64_t offset, uint64_t bytes, void* target);
  void copy(DeviceMemory& target, uint64_t target_offset, DeviceMemory& source, uint64_t source_offset, uint64_t bytes);
  void flush();

  // The stream's own kernel: arguments are set by one thread at a time. Null if the device has no such kernel.
  cl_kernel kernel(const KernelKey& key);
  void enqueue(cl_kernel kernel, size_t x, size_t y, size_t local_x);
  void begin(Activity activity, Work work);
  // Commands since begin() are one.
  void end();
  // At least `bytes` of memory that is the stream's own, valid until the next call.
  cl_mem scratch(uint64_t bytes) { return scratch_.at_least(bytes); }
  // The same, for inputs of products; prepared_input() is what is there.
  cl_mem prepared(uint64_t bytes) { return prepared_.at_least(bytes); }
  PreparedInput& prepared_input() { return prepared_input_; }
  void copy_to_scratch(DeviceMemory& source, uint64_t offset, uint64_t bytes, cl_mem target);

  cl_command_queue queue() const { return queue_; }
  CommandLog& log() { return *log_; }
  void label(uint32_t stage) { stage_ = stage; }

 private:
  // Runs enqueue(wait count, wait list, event) and takes note of the event.
  template <class Enqueue>
  void submit(const char* call, const Enqueue& enqueue);
  void release_waits();

  const std::shared_ptr<Context> context_;
  Programs& programs_;
  const std::shared_ptr<CommandLog> log_;
  cl_command_queue queue_;
  std::unordered_map<uint64_t, cl_kernel> kernels_;  // by number
  std::vector<cl_event> waits_;  // of other streams, for the next command
  cl_event first_ = nullptr, last_ = nullptr;
  Activity activity_ = Activity::kCopy;
  Work work_;
  uint32_t stage_ = Trace::kNoStage;
  ScratchMemory scratch_, prepared_;
  PreparedInput prepared_input_;
};

}  // namespace layerstream::opencl
