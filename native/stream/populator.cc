#include "populator.h"

#include <algorithm>
#include <utility>

namespace layerstream {

namespace {

// Reads under way, whose pages are provided already, lie before.
constexpr size_t kAhead = 2;

}  // namespace

void Populator::begin(std::vector<Range> ranges) {
  stop();
  ranges_ = std::move(ranges);
  reader_ = 0;
  stop_ = false;
  if (!ranges_.empty()) thread_ = std::thread([this] { work(); });
}

void Populator::stop() {
  stop_ = true;
  if (thread_.joinable()) thread_.join();
}

// Where the reader is faster, every other range is left to it.
void Populator::work() {
  for (size_t next = kAhead; next < ranges_.size() && !stop_; ++next) {
    next = std::max(next, reader_ + kAhead);
    if (next < ranges_.size()) device_.populate(ranges_[next]);
  }
}

}  // namespace layerstream
