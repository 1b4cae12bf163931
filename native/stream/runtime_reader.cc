// The reader of a Runtime: from files to the tape.
#include <time.h>

#include <algorithm>
#include <utility>

#include "../platform/error.h"
#include "../platform/memory.h"
#include "runtime.h"

namespace layerstream {

namespace {

uint64_t thread_cpu_nanoseconds() {
  timespec time{};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time);
  return static_cast<uint64_t>(time.tv_sec) * 1'000'000'000 + static_cast<uint64_t>(time.tv_nsec);
}

}  // namespace

// Experts are never on the tape, and of an embedding that is gathered only what is held.
void Runtime::order_tape() {
  first_pass_.clear();
  cycle_.clear();
  position_ = 0;
  reader_chunk_ = 0;
  const size_t head = description_.stages.size() - 1;
  for (uint32_t index = 0; index <= head; ++index) {
    const Stage& stage = description_.stages[index];
    if (stage.routed()) continue;
    const bool gathered = index == description_.embedding.stage && index != head;
    const bool streams = !gathered && std::ranges::any_of(stage.chunks, [](const Chunk& chunk) { return !chunk.held(); });
    if (streams) cycle_.push_back(index);
    if (streams || !loaded(index)) first_pass_.push_back(index);
  }
}

Tape::Status Runtime::read_tape() {
  if (reader_inside_.exchange(true)) throw Error("INTERNAL", "Two threads read one tape.");
  const uint64_t cpu_before = thread_cpu_nanoseconds();
  const uint64_t counted = read_cpu_nanoseconds_;
  Tape::Status status = Tape::Status::kDone;
  if (position_ == 0 && reader_chunk_ == 0) populate_held();
  try {
    while (status == Tape::Status::kDone && (first_pass() || !cycle_.empty())) {
      const uint32_t index = first_pass() ? first_pass_[position_] : cycle_[(position_ - first_pass_.size()) % cycle_.size()];
      status = read_stage(index);
      read_cpu_nanoseconds_ = counted + thread_cpu_nanoseconds() - cpu_before;
    }
    while (!reader_->idle()) publish_one();
  } catch (...) {
    reader_->drain();
    tape_.fail(std::current_exception());
    status = Tape::Status::kCancelled;
  }
  if (decoders_) decoders_->settle();
  read_cpu_nanoseconds_ = counted + thread_cpu_nanoseconds() - cpu_before;
  reader_inside_ = false;
  return status;
}

// Held memory that the first pass will be read into, in its order. A huge page that two chunks share belongs to the first.
void Runtime::populate_held() {
  std::vector<Range> ranges;
  const auto awaited = [](const Chunk& chunk) { return chunk.held() && !chunk.loaded; };
  for (const uint32_t index : first_pass_) {
    const Stage& stage = description_.stages[index];
    const std::vector<Chunk>& chunks = stage.chunks;
    const auto end_of = [&](size_t i) { return chunks[i].offset + chunks[i].length - stage.extent_offset; };
    for (size_t begin = 0, end = 0; unified_ && begin < chunks.size(); begin = end) {
      for (end = begin + 1; end < chunks.size() && awaited(chunks[end]) == awaited(chunks[begin]);) ++end;
      if (!awaited(chunks[begin])) continue;
      uint64_t populated = chunks[begin].offset - stage.extent_offset;
      for (size_t i = begin; i < end; ++i) {
        const uint64_t until = std::max(populated, std::min(align_up(end_of(i), kHugePageBytes), end_of(end - 1)));
        ranges.push_back({stage.memory, populated, until - populated});
        populated = until;
      }
    }
  }
  populator_.begin(std::move(ranges));
}

void Runtime::publish_one() {
  const uint64_t sequence = reader_->wait();
  const Decoders::Work& encoded = encoded_[sequence % Tape::kSlots];
  if (encoded.chunk == nullptr) return tape_.publish(sequence);
  decoders_->submit(encoded);
}

// Goes on where it was paused. Its last reads are still under way when it returns: the next stage's join them.
Tape::Status Runtime::read_stage(uint32_t index) {
  const Stage& stage = description_.stages[index];
  for (; reader_chunk_ < stage.chunks.size(); ++reader_chunk_) {
    const Chunk& chunk = stage.chunks[reader_chunk_];
    if (!on_tape(chunk)) continue;
    // Held memory is computed on while later chunks arrive: no page of it is read twice, because an encrypted disk
    // writes other bytes there first.
    const uint64_t known = stage.known(reader_chunk_);
    const bool in_place = chunk.tier == Tier::kHost || (chunk.held_on_device() && unified_);
    uint8_t* memory = chunk.host;
    if (in_place && unified_) {
      populator_.advance();
      const Range held{stage.memory, chunk.offset + known - stage.extent_offset, chunk.length - known};
      memory = static_cast<uint8_t*>(device_->host_address(held));
    }
    uint8_t* const fixed = chunk.encoded() ? nullptr : memory;
    const uint64_t length = fixed != nullptr ? chunk.read_bytes(known) : chunk.staging_bytes(known, in_place);
    if (reader_->full()) publish_one();
    Tape::Chunk place;
    Tape::Status status;
    // Reads in flight are published before waiting for space: the consumer may need them to free any.
    while ((status = tape_.acquire(length, fixed, false, &place)) == Tape::Status::kFull && !reader_->idle()) publish_one();
    if (status == Tape::Status::kFull) {
      const Trace::Time asked = Trace::Clock::now();
      status = tape_.acquire(length, fixed, true, &place);
      reader_->note_wait(Activity::kSpaceWait, index, asked);
    }
    if (status != Tape::Status::kDone) return status;
    Decoders::Work& encoded = encoded_[place.sequence % Tape::kSlots];
    encoded = {};
    uint8_t* destination = place.memory;
    if (chunk.encoded()) {
      destination += in_place ? 0 : chunk.length;
      uint8_t* const rows = in_place ? memory : place.memory;
      const WeightFile& file = files_[stage.file];
      encoded = {&stage, &chunk, &file.path(), destination, rows, place.sequence, length - chunk.stored_length, index};
    }
    const uint64_t bytes = chunk.read_bytes(known);
    reader_->submit({&files_[stage.file], chunk.stored_offset + known, bytes, destination, place.sequence, index});
  }
  reader_chunk_ = 0;
  ++position_;
  return Tape::Status::kDone;
}

}  // namespace layerstream
