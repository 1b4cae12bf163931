// A stream of the CPU device: one thread that runs commands in order, fed through a fixed ring of commands.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <exception>
#include <mutex>
#include <thread>
#include <variant>
#include <vector>

#include "../backend/device.h"

namespace layerstream::cpu {

class Executor;

// Counts records and their completion, so that an event can be recorded again and again.
struct CpuEvent : Event {
  std::mutex mutex;
  std::condition_variable changed;
  uint64_t recorded = 0;
  uint64_t completed = 0;
  std::exception_ptr failure;  // of the stream of the last completed record
};

struct RecordCommand {
  CpuEvent* event;
  uint64_t sequence;
};
struct WaitCommand {
  CpuEvent* event;
  uint64_t sequence;
};
struct CopyCommand {
  void* destination;
  const void* source;
  uint64_t bytes;
};
// Names the stage that later commands belong to, for the trace.
struct LabelCommand {
  uint32_t stage;
};
using Command = std::variant<std::monostate, Op, RecordCommand, WaitCommand, CopyCommand, LabelCommand>;

// Returns the failure of the stream that recorded the event, if any.
std::exception_ptr wait_for(CpuEvent& event, uint64_t sequence);

class Worker {
 public:
  // Ops run on `executor`, under `executor_mutex`: streams of one device share its threads.
  Worker(Executor& executor, std::mutex& executor_mutex);
  ~Worker();

  void push(const Command& command);
  // Before the first push.
  void observe(Trace* trace, Track track);
  uint64_t busy_nanoseconds() const { return busy_nanoseconds_; }

 private:
  void work();
  void run(Command& command);
  void trace_command(const Command& command, Trace::Time begin, Trace::Time end);

  Executor& executor_;
  std::mutex& executor_mutex_;
  std::vector<Command> commands_;
  uint64_t head_ = 0;  // next to run
  uint64_t tail_ = 0;  // next to fill
  bool stop_ = false;
  std::mutex mutex_;
  std::condition_variable filled_;
  std::condition_variable drained_;
  std::atomic<uint64_t> busy_nanoseconds_{0};
  Trace* trace_ = nullptr;
  Track track_ = Track::kCompute;
  uint32_t stage_ = Trace::kNoStage;
  // The first failure of an op, here or on a stream that this one waited for. The stream is lost: later ops are skipped and every later event reports it.
  std::exception_ptr failure_;
  std::thread thread_;
};

struct CpuStream : Stream {
  CpuStream(Executor& executor, std::mutex& executor_mutex) : worker(executor, executor_mutex) {}

  Worker worker;
};

}  // namespace layerstream::cpu
