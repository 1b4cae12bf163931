// A stream of CUDA, and events in it.
#pragma once

#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "../backend/device.h"
#include "command_log.h"
#include "launch_graph.h"
#include "memory.h"

namespace layerstream::cuda {

class DeviceEvent : public Event {
 public:
  explicit DeviceEvent(std::shared_ptr<Context> context);
  ~DeviceEvent();

  struct Record {
    std::shared_ptr<CommandLog> log;  // null: never recorded
    std::string failure;              // of a command before it
  };
  void set_record(Record record);
  Record last_record();
  CUevent handle() const { return handle_; }
  void synchronize();

 private:
  const std::shared_ptr<Context> context_;
  CUevent handle_ = nullptr;
  std::mutex mutex_;
  Record record_;
};

// What an op may take beside its ranges.
constexpr uint64_t kScratchBytes = 128 << 20;

class DeviceStream : public Stream {
 public:
  explicit DeviceStream(std::shared_ptr<Context> context);
  ~DeviceStream();

  void record(DeviceEvent& event);
  void wait(DeviceEvent& event);
  void upload(CUdeviceptr target, const void* source, uint64_t bytes);
  void download(void* target, CUdeviceptr source, uint64_t bytes);
  void copy(CUdeviceptr target, CUdeviceptr source, uint64_t bytes);

  // Runs the kernel `name`, which takes one struct by value: `arguments`, copied before this returns. Blocks have
  // `threads` threads and `shared_bytes` of dynamic shared memory.
  void launch(const char* name, Grid grid, uint32_t threads, uint32_t shared_bytes, const void* arguments, size_t bytes);
  // At least `bytes`, no more than kScratchBytes, of memory that is the stream's own, always at the same address. The content
  // lasts until the next command that is no part of the same op.
  CUdeviceptr scratch(uint64_t bytes);

  // Commands from begin() to end() are one, of this kind.
  void begin(Activity activity, Work work);
  void end();
  void observe(Trace* trace, Track track);
  void label(uint32_t stage) { stage_ = stage; }
  uint64_t busy_nanoseconds() { return log_->busy_nanoseconds(); }
  const Limits& limits() const { return context_->limits(); }

 private:
  // Runs enqueue(api); a failure is one of the stream.
  template <class Enqueue>
  void submit(const char* call, const Enqueue& enqueue);
  void submit(const char* name, Launch& launch);
  // Before any command that is no launch. What fails in it, the log knows.
  void end_run();
  void submit_pending();

  const std::shared_ptr<Context> context_;
  const std::shared_ptr<CommandLog> log_;
  CUstream handle_ = nullptr;
  bool observed_ = false;
  Activity activity_ = Activity::kCopy;
  Work work_;
  uint32_t stage_ = Trace::kNoStage;
  // A run of launches with nothing between them. One that begins as the last long one did is kept back until its end shows
  // whether it is the same, which then is launched as a graph.
  std::vector<CUfunction> run_, last_run_;
  std::vector<Launch> pending_;
  LaunchGraph graph_;
  std::unique_ptr<DeviceMemory> scratch_;  // of kScratchBytes, committed as far as it has been used
  uint64_t scratch_bytes_ = 0;
};

}  // namespace layerstream::cuda
