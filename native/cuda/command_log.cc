#include "command_log.h"

#include <utility>

#include "../platform/error.h"

namespace layerstream::cuda {

namespace {

// CUDA tells times between events in float32 milliseconds: to a microsecond within this.
constexpr double kClockMilliseconds = 4000;

Trace::Clock::duration host_duration(double milliseconds) {
  return std::chrono::duration_cast<Trace::Clock::duration>(std::chrono::duration<double, std::milli>(milliseconds));
}

}  // namespace

CommandLog::~CommandLog() {
  const Api* const api = context_->enter_quietly();
  if (api == nullptr) return;
  for (const Command& command : commands_) {
    idle_.push_back(command.first);
    idle_.push_back(command.last);
  }
  for (const CUevent event : {current_.first, clock_}) {
    if (event != nullptr) idle_.push_back(event);
  }
  for (const CUevent event : idle_) api->cuEventDestroy(event);
}

// The host's time of an event of the stream is what both clocks are compared by.
void CommandLog::observe(Trace* trace, Track track, CUstream stream) {
  std::lock_guard lock(mutex_);
  trace_ = trace;
  track_ = track;
  if (clock_ == nullptr) clock_ = record(stream);
  context_->check(context_->enter().cuEventSynchronize(clock_), "cuEventSynchronize");
  clock_time_ = Trace::Clock::now();
}

CUevent CommandLog::record(CUstream stream) {
  const Api& api = context_->enter();
  if (idle_.empty()) {
    CUevent event = nullptr;
    context_->check(api.cuEventCreate(&event, CU_EVENT_DEFAULT), "cuEventCreate");
    idle_.push_back(event);
  }
  context_->check(api.cuEventRecord(idle_.back(), stream), "cuEventRecord");
  const CUevent event = idle_.back();
  idle_.pop_back();
  return event;
}

void CommandLog::close(CUstream stream) {
  if (current_.first == nullptr) return;
  current_.last = record(stream);
  commands_.push_back(std::exchange(current_, {}));
}

void CommandLog::begin(Activity activity, uint32_t stage, Work work, CUstream stream) {
  std::lock_guard lock(mutex_);
  if (current_.first == nullptr) current_ = {record(stream), nullptr, activity, stage, work};
}

void CommandLog::end(CUstream stream) {
  std::lock_guard lock(mutex_);
  if (trace_ != nullptr) close(stream);
}

void CommandLog::pause(CUstream stream) {
  std::lock_guard lock(mutex_);
  if (trace_ == nullptr) close(stream);
}

void CommandLog::fail(const std::string& reason) {
  std::lock_guard lock(mutex_);
  if (failure_.empty()) failure_ = reason;
}

void CommandLog::throw_failure() {
  const std::string reason = failure();
  if (!reason.empty()) throw Error("DEVICE_FAILED", reason);
}

std::string CommandLog::failure() {
  std::lock_guard lock(mutex_);
  return failure_;
}

uint64_t CommandLog::busy_nanoseconds() {
  harvest();
  std::lock_guard lock(mutex_);
  return busy_nanoseconds_;
}

void CommandLog::harvest() {
  std::lock_guard lock(mutex_);
  while (!commands_.empty()) {
    const Command command = commands_.front();
    const CUresult status = context_->enter().cuEventQuery(command.last);
    if (status == CUDA_ERROR_NOT_READY) return;
    context_->check(status, "cuEventQuery");
    commands_.pop_front();
    idle_.push_back(command.first);
    idle_.push_back(take_note(command));
  }
}

// Returns the event that nobody needs any more.
CUevent CommandLog::take_note(const Command& command) {
  const double length = milliseconds(command.first, command.last);
  busy_nanoseconds_ += static_cast<uint64_t>(length * 1e6);
  if (trace_ == nullptr) return command.last;
  const double since_clock = milliseconds(clock_, command.first);
  const Trace::Time begin = clock_time_ + host_duration(since_clock), end = begin + host_duration(length);
  trace_->record(track_, command.activity, command.stage, begin, end, command.work);
  if (since_clock < kClockMilliseconds) return command.last;
  clock_time_ = end;
  return std::exchange(clock_, command.last);
}

double CommandLog::milliseconds(CUevent from, CUevent to) {
  float milliseconds = 0;
  context_->check(context_->enter().cuEventElapsedTime(&milliseconds, from, to), "cuEventElapsedTime");
  return milliseconds;
}

}  // namespace layerstream::cuda
