#include "trace.h"

#include <algorithm>
#include <utility>

namespace layerstream {

Trace::Trace(std::vector<uint32_t> kind_of_stage, uint32_t kinds, uint32_t activities, uint32_t spans)
    : kind_of_stage_(std::move(kind_of_stage)),
      kinds_(kinds),
      activities_(activities),
      capacity_(spans),
      memory_(size_t{spans} * sizeof(Span)),
      ring_(reinterpret_cast<Span*>(memory_.data())) {
  memory_.touch();
  for (Phase& phase : phases_) phase.sums.resize(size_t{kinds_ + 1} * activities_);
}

void Trace::Intervals::add(uint64_t from, uint64_t to) {
  begin[count % kCount] = from;
  end[count % kCount] = to;
  ++count;
}

uint64_t Trace::Intervals::within(uint64_t from, uint64_t to) const {
  uint64_t covered = 0;
  const uint64_t oldest = count > kCount ? count - kCount : 0;
  for (uint64_t number = count; number > oldest && end[(number - 1) % kCount] > from; --number) {
    const uint64_t low = std::max(from, begin[(number - 1) % kCount]);
    const uint64_t high = std::min(to, end[(number - 1) % kCount]);
    if (high > low) covered += high - low;
  }
  return covered;
}

uint64_t Trace::since_start(Time time) const {
  return static_cast<uint64_t>(std::max<int64_t>(0, std::chrono::duration_cast<std::chrono::nanoseconds>(time - start_).count()));
}

Trace::Sum& Trace::sum(uint32_t stage, Activity activity) {
  const uint32_t kind = stage < kind_of_stage_.size() ? kind_of_stage_[stage] : kinds_;
  return phases_[prompt_].sums[size_t{kind} * activities_ + static_cast<size_t>(activity)];
}

void Trace::add(uint32_t stage, Activity activity, uint64_t nanoseconds, Work work) {
  Sum& total = sum(stage, activity);
  ++total.count;
  total.nanoseconds += nanoseconds;
  total.bytes += work.bytes;
  total.operations += work.operations;
}

void Trace::push(const Span& span) {
  ring_[recorded_ % capacity_] = span;
  ++recorded_;
}

// Why the compute stream did nothing since its last op. The pass thread enqueues in order, so what it waited for last
// is what the stream lacked.
void Trace::explain_gap(uint32_t stage, uint64_t until) {
  const uint64_t from = std::max(compute_end_, pass_begin_);
  if (!in_pass_ || until <= from) return;
  const uint64_t gap = until - from;
  const uint64_t disk = disk_waits_.within(from, until);
  const uint64_t copy = std::min(gap - disk, copies_.within(from, until));
  if (disk > 0) add(stage, Activity::kDiskStall, disk);
  if (copy > 0) add(stage, Activity::kCopyStall, copy);
  if (gap > disk + copy) add(stage, Activity::kIdle, gap - disk - copy);
}

void Trace::record(Track track, Activity activity, uint32_t stage, Time begin, Time end, Work work, uint8_t lane) {
  const Span span{since_start(begin), since_start(end),      work.bytes, work.operations, stage,
                  static_cast<uint16_t>(activity), static_cast<uint8_t>(track), lane};
  const std::lock_guard lock(mutex_);
  uint64_t nanoseconds = span.end - span.begin;
  if (track == Track::kCompute) {
    explain_gap(stage, span.begin);
    compute_end_ = std::max(compute_end_, span.end);
  } else if (track == Track::kCopies) {
    copies_.add(span.begin, span.end);
  } else if (activity == Activity::kDiskWait) {
    disk_waits_.add(span.begin, span.end);
  } else if (activity == Activity::kRead) {
    nanoseconds = span.end - std::min(span.end, std::max(span.begin, read_end_));
    read_end_ = std::max(read_end_, span.end);
  }
  add(stage, activity, nanoseconds, work);
  push(span);
}

void Trace::begin_pass(bool prompt, uint32_t tokens, bool at_once) {
  const std::lock_guard lock(mutex_);
  pass_begin_ = since_start(Clock::now());
  const bool waited_for = javascript_ == Activity::kPass && javascript_since_ > pass_end_;
  if (at_once || waited_for) add(kNoStage, Activity::kSwitch, pass_begin_ - (at_once ? pass_end_ : javascript_since_));
  in_pass_ = true;
  prompt_ = prompt;
  phases_[prompt_].tokens += tokens;
}

void Trace::end_pass() {
  const std::lock_guard lock(mutex_);
  pass_end_ = since_start(Clock::now());
  explain_gap(kNoStage, pass_end_);
  in_pass_ = false;
  add(kNoStage, Activity::kPass, pass_end_ - pass_begin_);
  push({pass_begin_, pass_end_, 0, 0, kNoStage, static_cast<uint16_t>(Activity::kPass), static_cast<uint8_t>(Track::kPass), 0});
}

void Trace::enter(Activity activity) {
  const std::lock_guard lock(mutex_);
  const uint64_t now = since_start(Clock::now());
  const uint64_t since = std::exchange(javascript_since_, now);
  const Activity before = std::exchange(javascript_, activity);
  if (before == Activity::kPass && !in_pass_ && pass_end_ > since) add(kNoStage, Activity::kSwitch, now - pass_end_);
  if (before == Activity::kPass || before == Activity::kIdle) return;
  // Sums are of the time between passes; another sequence's pass may have run meanwhile.
  const uint64_t begin = std::max(since, in_pass_ ? uint64_t{0} : std::min(pass_end_, now));
  const uint64_t end = in_pass_ ? std::max(since, pass_begin_) : now;
  add(kNoStage, before, end > begin ? end - begin : 0);
  push({since, now, 0, 0, kNoStage, static_cast<uint16_t>(before), static_cast<uint8_t>(Track::kJavaScript), 0});
}

Trace::Phase Trace::phase(bool prompt) const {
  const std::lock_guard lock(mutex_);
  return phases_[prompt];
}

uint64_t Trace::recorded() const {
  const std::lock_guard lock(mutex_);
  return recorded_;
}

uint64_t Trace::copy(uint64_t first, uint32_t limit, std::vector<Span>* output) const {
  const std::lock_guard lock(mutex_);
  const uint64_t oldest = recorded_ > capacity_ ? recorded_ - capacity_ : 0;
  const uint64_t begin = std::max(first, oldest);
  const uint64_t end = std::min(recorded_, begin + limit);
  for (uint64_t number = begin; number < end; ++number) output->push_back(ring_[number % capacity_]);
  return begin;
}

}  // namespace layerstream
