#include "kv_host.h"

#include <algorithm>
#include <memory>
#include <utility>

namespace layerstream {

KvHost::KvHost(Device& device, Stream* compute, uint32_t layers, const KvLayout& layout, uint32_t part_pages)
    : device_(device), compute_(compute), layout_(layout), part_pages_(part_pages), layers_(layers) {}

// The object is complete once the other constructor returns: what fails here is undone by the destructor.
KvHost::KvHost(Device& device, Stream* compute, uint32_t layers, const KvLayout& layout, uint32_t part_pages, Trace* trace)
    : KvHost(device, compute, layers, layout, part_pages) {
  trace_ = trace;
  copies_ = device_.create_stream();
  if (trace_ != nullptr) device_.observe(copies_, trace_, Track::kKvCache);
  const uint64_t bytes = kKvBuffers * part_pages_ * layout_.page_bytes;
  buffers_ = {device_.reserve(bytes), 0, bytes};
  for (Event*& event : arrived_) event = device_.create_event();
  used_ = device_.create_event();
  done_ = device_.create_event();
  make_page_table();
}

KvHost::~KvHost() {
  if (copies_ != nullptr) device_.destroy(copies_);
  for (Event* event : arrived_) {
    if (event != nullptr) device_.destroy(event);
  }
  for (Event* event : {used_, done_}) {
    if (event != nullptr) device_.destroy(event);
  }
  for (const Range& range : {buffers_, page_table_}) {
    if (range.buffer != nullptr) device_.free(range.buffer);
  }
}

void KvHost::make_page_table() {
  const uint64_t bytes = layout_.pages * sizeof(uint32_t);
  page_table_ = {device_.alloc(bytes), 0, bytes};
  const auto free_pinned = [&](uint32_t* memory) { device_.free_pinned(memory); };
  const std::unique_ptr<uint32_t, decltype(free_pinned)> table(static_cast<uint32_t*>(device_.alloc_pinned(bytes)), free_pinned);
  for (uint32_t page = 0; page < layout_.pages; ++page) table.get()[page] = page % part_pages_;
  device_.upload(copies_, page_table_, table.get());
  synchronize();
}

void KvHost::use_pages(std::span<const uint8_t> pages) {
  std::vector<uint32_t> used;
  for (uint32_t page = 0; page < pages.size(); ++page) {
    if (pages[page]) used.push_back(page);
  }
  const std::vector<PageRun> runs = page_runs(std::move(used));
  // First what gives memory back.
  for (std::optional<PinnedPages>& layer : layers_) {
    if (layer && !runs.empty()) layer->keep(pages);
  }
  // Sequences with fewer pages than a part use the front of buffers.
  const uint64_t used_pages = std::min<uint64_t>(std::ranges::count(pages, 1), part_pages_), used_bytes = used_pages * layout_.page_bytes;
  for (uint64_t part = 0; part < kKvBuffers; ++part) {
    const Range buffer = buffers_.at(part * part_pages_ * layout_.page_bytes, part_pages_ * layout_.page_bytes);
    if (used_bytes > 0) device_.commit(buffer.at(0, used_bytes));
    if (used_bytes < buffer.size) device_.discard(buffer.at(used_bytes, buffer.size - used_bytes));
  }
  for (std::optional<PinnedPages>& layer : layers_) {
    if (layer) layer->add(runs);
  }
}

void KvHost::store(uint32_t layer, Range cache, std::span<const PageRun> runs) {
  PinnedPages& here = layers_[layer].emplace(device_, layout_.pages, layout_.page_bytes, part_pages_);
  try {
    here.add(runs);
    for (const auto& [first, count] : runs) {
      for (uint32_t page = first, together = 0; page < first + count; page += together) {
        together = here.together(page, first + count - page);
        device_.download(copies_, here.at(page), cache.at(page * layout_.page_bytes, together * layout_.page_bytes));
      }
    }
    synchronize();
  } catch (...) {
    layers_[layer].reset();
    throw;
  }
}

void KvHost::load(uint32_t layer, Range cache, std::span<const PageRun> runs) {
  const PinnedPages& here = *layers_[layer];
  for (const auto& [first, count] : runs) {
    for (uint32_t page = first, together = 0; page < first + count; page += together) {
      together = here.together(page, first + count - page);
      device_.upload(copies_, cache.at(page * layout_.page_bytes, together * layout_.page_bytes), here.at(page));
    }
  }
  synchronize();
  layers_[layer].reset();
}

void KvHost::synchronize() {
  device_.record(done_, copies_);
  device_.synchronize(done_);
}

void KvHost::begin(std::vector<SpilledLayer> layers, std::vector<KvTokens> tokens) {
  walk_ = KvPartWalk(std::move(layers), std::move(tokens), layout_.page_positions, part_pages_);
  parts_.clear();
  read_ = finished_ = 0;
  read_ahead();
}

template <class Copy>
void KvHost::for_each_copy(const KvPartWork& part, PageIndexes indexes, uint64_t number, const Copy& copy) {
  const PinnedPages& layer = *layers_[walk_.layer(part).layer];
  const std::span<const uint32_t> pages = walk_.tokens(part).pages;
  for (uint32_t index = indexes.begin, count = 1; index < indexes.end; index += count) {
    for (count = 1; index + count < indexes.end && pages[index + count] == pages[index] + count;) ++count;
    count = layer.together(pages[index], count);
    const uint64_t place = number % kKvBuffers * part_pages_ + index % part_pages_;
    copy(buffers_.at(place * layout_.page_bytes, count * layout_.page_bytes), layer.at(pages[index]));
  }
}

// Whether all that the part reads is in pinned memory, or will be by then: not if ops on a part that is in a buffer change it.
bool KvHost::is_complete(const KvPartWork& part) const {
  const auto changes = [&](const KvPartWork& other) {
    return other.layer == part.layer && walk_.tokens(other).pages.data() == walk_.tokens(part).pages.data() && other.writes.meets(part.reads);
  };
  return std::ranges::none_of(parts_, changes);
}

// What was in the buffer before goes back on the same stream, first.
void KvHost::read_ahead() {
  while (!walk_.done() && read_ < finished_ + kKvBuffers) {
    const KvPartWork part = walk_.current();
    if (!is_complete(part)) return;
    if (trace_ != nullptr) device_.label(copies_, walk_.layer(part).stage);
    for_each_copy(part, part.reads, read_, [&](Range place, const uint8_t* memory) { device_.upload(copies_, place, memory); });
    device_.record(arrived_[read_ % kKvBuffers], copies_);
    parts_.push_back(part);
    ++read_;
    walk_.advance();
  }
}

KvPart KvHost::take() {
  device_.wait(compute_, arrived_[finished_ % kKvBuffers]);
  const uint64_t bytes = part_pages_ * layout_.page_bytes;
  return {buffers_.at(finished_ % kKvBuffers * bytes, bytes), page_table_, parts_.front().begin, parts_.front().end};
}

void KvHost::finish() {
  const KvPartWork& part = parts_.front();
  device_.record(used_, compute_);
  device_.wait(copies_, used_);
  if (trace_ != nullptr) device_.label(copies_, walk_.layer(part).stage);
  for_each_copy(part, part.writes, finished_, [&](Range place, uint8_t* memory) { device_.download(copies_, memory, place); });
  ++finished_;
  parts_.pop_front();
  read_ahead();
}

void KvHost::end() { synchronize(); }

void KvHost::abort() {
  try {
    synchronize();
  } catch (...) {
    // The pass has an error already.
  }
}

}  // namespace layerstream
