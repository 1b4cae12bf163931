#include "stream.h"

#include <chrono>
#include <cstring>

#include "../backend/work.h"
#include "execute.h"

namespace layerstream::cpu {

namespace {

constexpr size_t kCommands = 1024;

}  // namespace

std::exception_ptr wait_for(CpuEvent& event, uint64_t sequence) {
  std::unique_lock lock(event.mutex);
  event.changed.wait(lock, [&] { return event.completed >= sequence; });
  return event.failure;
}

Worker::Worker(Executor& executor, std::mutex& executor_mutex)
    : executor_(executor), executor_mutex_(executor_mutex), commands_(kCommands), thread_([this] { work(); }) {}

Worker::~Worker() {
  {
    std::lock_guard lock(mutex_);
    stop_ = true;
  }
  filled_.notify_one();
  thread_.join();
}

void Worker::push(const Command& command) {
  std::unique_lock lock(mutex_);
  drained_.wait(lock, [this] { return tail_ - head_ < kCommands; });
  commands_[tail_ % kCommands] = command;
  ++tail_;
  if (tail_ - head_ == 1) filled_.notify_one();
}

void Worker::observe(Trace* trace, Track track) {
  trace_ = trace;
  track_ = track;
}

void Worker::trace_command(const Command& command, Trace::Time begin, Trace::Time end) {
  if (const auto* op = std::get_if<Op>(&command)) {
    const OpWork done = work_of(*op);
    trace_->record(track_, done.activity, stage_, begin, end, done.work);
  } else {
    trace_->record(track_, Activity::kCopy, stage_, begin, end, {std::get<CopyCommand>(command).bytes, 0});
  }
}

void Worker::work() {
  for (;;) {
    Command command;
    {
      std::unique_lock lock(mutex_);
      filled_.wait(lock, [this] { return stop_ || tail_ != head_; });
      if (tail_ == head_) return;  // stopped, and everything enqueued has run
      command = commands_[head_ % kCommands];
    }
    run(command);
    {
      std::lock_guard lock(mutex_);
      ++head_;
    }
    drained_.notify_one();
  }
}

void Worker::run(Command& command) {
  if (const auto* wait = std::get_if<WaitCommand>(&command)) {
    // What follows depends on what failed.
    const std::exception_ptr failure = wait_for(*wait->event, wait->sequence);
    if (!failure_) failure_ = failure;
  } else if (const auto* record = std::get_if<RecordCommand>(&command)) {
    std::lock_guard lock(record->event->mutex);
    // Another stream may have completed a later record of the same event.
    if (record->sequence < record->event->completed) return;
    record->event->completed = record->sequence;
    record->event->failure = failure_;
    record->event->changed.notify_all();
  } else if (const auto* label = std::get_if<LabelCommand>(&command)) {
    stage_ = label->stage;
  } else if (!failure_) {
    const auto start = std::chrono::steady_clock::now();
    try {
      if (const auto* op = std::get_if<Op>(&command)) {
        std::lock_guard lock(executor_mutex_);
        executor_.execute(*op);
      } else if (const auto* copy = std::get_if<CopyCommand>(&command)) {
        std::memmove(copy->destination, copy->source, copy->bytes);
      }
    } catch (...) {
      failure_ = std::current_exception();
    }
    const auto end = std::chrono::steady_clock::now();
    busy_nanoseconds_ += static_cast<uint64_t>(std::chrono::duration_cast<std::chrono::nanoseconds>(end - start).count());
    if (trace_ != nullptr) trace_command(command, start, end);
  }
}

}  // namespace layerstream::cpu
