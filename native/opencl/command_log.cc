// What a stream's commands have cost, and whether they failed.
#include "../platform/error.h"
#include "stream.h"

namespace layerstream::opencl {

namespace {

// Clocks of the host and of a device drift apart by far less in this time than a command takes.
constexpr std::chrono::seconds kClockValidity{1};

int64_t nanoseconds_of(Trace::Time time) {
  return std::chrono::duration_cast<std::chrono::nanoseconds>(time.time_since_epoch()).count();
}

}  // namespace

CommandLog::~CommandLog() {
  for (const Command& command : commands_) release(command);
}

void CommandLog::release(const Command& command) const {
  context_->api().clReleaseEvent(command.first);
  if (command.last != command.first) context_->api().clReleaseEvent(command.last);
}

void CommandLog::observe(Trace* trace, Track track) {
  std::lock_guard lock(mutex_);
  trace_ = trace;
  track_ = track;
}

void CommandLog::add(cl_event first, cl_event last, Activity activity, uint32_t stage, Work work) {
  std::lock_guard lock(mutex_);
  commands_.push_back({first, last, activity, stage, work});
}

void CommandLog::fail(const std::string& reason) {
  std::lock_guard lock(mutex_);
  if (failure_.empty()) failure_ = reason;
}

void CommandLog::throw_failure() {
  std::lock_guard lock(mutex_);
  if (!failure_.empty()) throw Error("DEVICE_FAILED", failure_);
}

uint64_t CommandLog::busy_nanoseconds() {
  harvest();
  std::lock_guard lock(mutex_);
  return busy_nanoseconds_;
}

void CommandLog::harvest() {
  std::lock_guard lock(mutex_);
  while (!commands_.empty() && take_note(commands_.front())) {
    release(commands_.front());
    commands_.pop_front();
  }
}

// False if the command has not run yet.
bool CommandLog::take_note(const Command& command) {
  cl_int status = CL_COMPLETE;
  check(context_->api().clGetEventInfo(command.last, CL_EVENT_COMMAND_EXECUTION_STATUS, sizeof status, &status, nullptr), "clGetEventInfo");
  if (status > CL_COMPLETE) return false;
  if (status < CL_COMPLETE) {
    if (failure_.empty()) failure_ = "OpenCL: a command on " + context_->name() + " failed with " + status_name(status) + ".";
    return true;
  }
  const uint64_t begin = time_of(command.first, CL_PROFILING_COMMAND_START), end = time_of(command.last, CL_PROFILING_COMMAND_END);
  if (end <= begin) return true;
  busy_nanoseconds_ += end - begin;
  if (trace_ != nullptr) trace_->record(track_, command.activity, command.stage, host_time(begin), host_time(end), command.work);
  return true;
}

uint64_t CommandLog::time_of(cl_event event, cl_uint property) const {
  cl_ulong time = 0;
  // Optional for the log: without it commands take no time.
  if (context_->api().clGetEventProfilingInfo(event, property, sizeof time, &time, nullptr) != CL_SUCCESS) return 0;
  return time;
}

Trace::Time CommandLog::host_time(uint64_t device_time) const {
  return Trace::Time(std::chrono::duration_cast<Trace::Clock::duration>(
      std::chrono::nanoseconds(static_cast<int64_t>(device_time) + clock_offset_)));
}

void CommandLog::set_clock(cl_event event) {
  std::lock_guard lock(mutex_);
  const Trace::Time now = Trace::Clock::now();
  if (trace_ == nullptr) return;
  const uint64_t end = time_of(event, CL_PROFILING_COMMAND_END);
  if (end == 0) return;
  // The host sees an event later than it happens: the least offset is the nearest.
  const int64_t offset = nanoseconds_of(now) - static_cast<int64_t>(end);
  if (now - clock_set_ < kClockValidity && offset >= clock_offset_) return;
  clock_offset_ = offset;
  clock_set_ = now;
}

}  // namespace layerstream::opencl
