#include "populator.h"

#include <algorithm>
#include <utility>

namespace layerstream {

namespace {

// Reads under way, whose pages are provided already, lie before, and those that start while a range is made resident.
constexpr size_t kAhead = 4;

}  // namespace

void Populator::begin(std::vector<Range> ranges) {
  stop();
  ranges_ = std::move(ranges);
  reader_ = 0;
  next_ = 0;
  stop_ = false;
  const size_t count = std::min(threads_, ranges_.size());
  while (workers_.size() < count) workers_.emplace_back([this] { work(); });
}

void Populator::stop() {
  stop_ = true;
  for (std::thread& worker : workers_) worker.join();
  workers_.clear();
}

// Where the reader is faster, some ranges are left to it.
size_t Populator::claim() {
  size_t next = next_;
  size_t claimed = 0;
  do {
    claimed = std::min(std::max(next, reader_ + kAhead), ranges_.size());
  } while (!next_.compare_exchange_weak(next, claimed + 1));
  return claimed;
}

void Populator::work() {
  for (size_t index = claim(); index < ranges_.size() && !stop_; index = claim()) {
    if (ranges_[index].size > 0) device_.populate(ranges_[index]);
  }
}

}  // namespace layerstream
