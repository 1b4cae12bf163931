#include "experts.h"

#include <algorithm>

#include "../platform/error.h"
#include "../platform/memory.h"

namespace layerstream {

namespace {

// As many as both readers of the tape have in flight together.
constexpr uint32_t kReadDepth = 8;
constexpr uint64_t kMaxPlaces = 256;

}  // namespace

Experts::Experts(Device& device, Stream* compute, Stream* copies, std::span<const Stage> stages, std::span<const WeightFile> files,
                 ReadMeter& meter, Trace* trace)
    : device_(device), compute_(compute), copies_(copies), stages_(stages), files_(files), meter_(meter), trace_(trace) {}

// The object is complete once the other constructor returns: what fails here is undone by the destructor.
Experts::Experts(Device& device, Stream* compute, Stream* copies, std::span<const Stage> stages, std::span<const WeightFile> files,
                 uint64_t ring_bytes, ReadMeter& meter, Trace* trace)
    : Experts(device, compute, copies, stages, files, meter, trace) {
  const bool unified = device_.info().unified;
  uint64_t place_bytes = 0;
  size_t routed = 0;
  for (const Stage& stage : stages_) {
    if (!stage.routed()) continue;
    ++routed;
    for (const Chunk& chunk : stage.chunks) {
      place_bytes = std::max(place_bytes, chunk.staging_bytes(0, chunk.held() && unified));
    }
  }
  if (place_bytes > ring_bytes) {
    throw Error("INTERNAL", "A chunk of " + std::to_string(place_bytes) + " bytes never fits in an expert ring of " +
                                std::to_string(ring_bytes) + ".");
  }
  places_.resize(place_bytes == 0 ? kReadDepth : std::min(ring_bytes / place_bytes, kMaxPlaces));
  wanted_.reserve(routed);
  reader_ = make_reader(static_cast<uint32_t>(std::min<uint64_t>(kReadDepth, places_.size())));
  reader_->observe(trace_, Track::kExperts);
  if (place_bytes > 0) {
    const uint64_t bytes = places_.size() * place_bytes;
    memory_ = static_cast<uint8_t*>(device_.alloc_pinned(bytes));
    buffer_ = unified ? device_.alias_host(memory_, bytes) : device_.alloc(bytes);
  }
  if (!unified) copied_ = device_.create_event();
  for (size_t index = 0; index < places_.size(); ++index) {
    Place& place = places_[index];
    place.used = device_.create_event();
    if (memory_ == nullptr) continue;
    place.host = memory_ + index * place_bytes;
    place.device = {buffer_, index * place_bytes, place_bytes};
  }
}

Experts::~Experts() {
  drain();
  for (const Place& place : places_) {
    if (place.used != nullptr) device_.destroy(place.used);
  }
  if (copied_ != nullptr) device_.destroy(copied_);
  if (buffer_ != nullptr) device_.free(buffer_);
  if (memory_ != nullptr) device_.free_pinned(memory_);
}

void Experts::begin(std::span<const uint32_t> stages) {
  wanted_.assign(stages.begin(), stages.end());
  wanted_index_ = chunk_index_ = 0;
  free_ = taken_;
  read_ahead();
}

// Reads as many of the wanted chunks as there are free places, and as the reader takes at once.
void Experts::read_ahead() {
  while (wanted_index_ < wanted_.size() && read_ < free_ + places_.size() && !reader_->full()) {
    const Stage& stage = stages_[wanted_[wanted_index_]];
    read(read_++, stage, chunk_index_);
    if (++chunk_index_ < stage.chunks.size()) continue;
    chunk_index_ = 0;
    ++wanted_index_;
  }
}

void Experts::read(uint64_t sequence, const Stage& stage, size_t index) {
  const Chunk& chunk = stage.chunks[index];
  Place& target = place(sequence);
  target.stage = &stage;
  target.chunk = &chunk;
  target.known = stage.known(index);
  const bool on_host = chunk.tier == Tier::kHost;
  const bool in_place = on_host || (chunk.held_on_device() && copies_ == nullptr);
  const Range held{stage.memory, chunk.offset + target.known - stage.extent_offset, chunk.length - target.known};
  target.memory = on_host ? chunk.host : in_place ? static_cast<uint8_t*>(device_.host_address(held)) : target.host;
  // Only what is held in pinned memory comes here loaded.
  target.ready = chunk.loaded;
  if (target.ready) return;
  uint8_t* const destination = chunk.encoded() ? target.host + (in_place ? 0 : chunk.length) : target.memory;
  const uint64_t offset = chunk.stored_offset + target.known;
  ++reading_;
  meter_.begin();
  reader_->submit({&files_[stage.file], offset, chunk.read_bytes(target.known), destination, sequence, index_of(stage)});
}

void Experts::arrive(Place& arrived) {
  const Chunk& chunk = *arrived.chunk;
  --reading_;
  meter_.end(chunk.read_bytes(arrived.known));
  if (chunk.encoded()) {
    const uint8_t* stored = arrived.memory == arrived.host ? arrived.host + chunk.length : arrived.host;
    const Trace::Time begin = Trace::Clock::now();
    decode_chunk(*arrived.stage, chunk, stored, arrived.memory, files_[arrived.stage->file].path());
    if (trace_ != nullptr) {
      const Work decoded{chunk.length, 0};
      trace_->record(Track::kDecoders, Activity::kDecode, index_of(*arrived.stage), begin, Trace::Clock::now(), decoded);
    }
  }
  arrived.ready = true;
}

Range Experts::take() {
  // The chunk before this one keeps the device busy while the host waits for the ops on the one before that.
  const uint64_t reused = taken_ + 1 > places_.size() ? taken_ + 1 - places_.size() : 0;
  const uint64_t settled = taken_ > 0 ? taken_ - 1 : 0;
  for (; free_ < std::max(reused, settled); ++free_) device_.synchronize(place(free_).used);
  read_ahead();
  Place& current = place(taken_);
  while (!current.ready) {
    arrive(place(reader_->wait()));
    read_ahead();
  }
  ++taken_;
  const Stage& stage = *current.stage;
  const Chunk& chunk = *current.chunk;
  const Range range = chunk.held_on_device() ? Range{stage.memory, chunk.offset - stage.extent_offset, chunk.length}
                                             : current.device.at(0, chunk.length);
  if (copies_ != nullptr) {
    if (trace_ != nullptr) device_.label(copies_, index_of(stage));
    device_.upload(copies_, range.at(current.known, chunk.length - current.known), current.memory);
    device_.record(copied_, copies_);
    device_.wait(compute_, copied_);
  }
  return range;
}

void Experts::finish() { device_.record(place(taken_ - 1).used, compute_); }

void Experts::drain() {
  if (reader_ != nullptr) reader_->drain();
  for (; reading_ > 0; --reading_) meter_.end(0);
  wanted_.clear();
  wanted_index_ = 0;
  read_ = free_ = taken_;
}

}  // namespace layerstream
