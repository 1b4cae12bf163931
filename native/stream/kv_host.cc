#include "kv_host.h"

#include <utility>

namespace layerstream {

KvHost::KvHost(Device& device, Stream* compute, uint32_t layers, uint32_t pages, uint64_t page_bytes)
    : device_(device), compute_(compute), pages_(pages), page_bytes_(page_bytes), layers_(layers) {}

// The object is complete once the other constructor returns: what fails here is undone by the destructor.
KvHost::KvHost(Device& device, Stream* compute, uint32_t layers, uint32_t pages, uint64_t page_bytes, Trace* trace)
    : KvHost(device, compute, layers, pages, page_bytes) {
  trace_ = trace;
  copies_ = device_.create_stream();
  if (trace_ != nullptr) device_.observe(copies_, trace_, Track::kKvCache);
  for (Range& range : buffers_) range = {device_.reserve(pages * page_bytes_), 0, pages * page_bytes_};
  for (Event*& event : arrived_) event = device_.create_event();
  used_ = device_.create_event();
  done_ = device_.create_event();
}

KvHost::~KvHost() {
  if (copies_ != nullptr) device_.destroy(copies_);
  for (Event* event : {arrived_[0], arrived_[1], used_, done_}) {
    if (event != nullptr) device_.destroy(event);
  }
  for (const Range& range : buffers_) {
    if (range.buffer != nullptr) device_.free(range.buffer);
  }
  for (Layer& layer : layers_) release(layer);
}

void KvHost::allocate(Layer& layer, std::span<const PageRun> runs) {
  layer.resize(pages_);
  for (const auto& [first, count] : runs) {
    for (uint32_t page = first; page < first + count; ++page) {
      if (layer[page] == nullptr) layer[page] = static_cast<uint8_t*>(device_.alloc_pinned(page_bytes_));
    }
  }
}

void KvHost::release(Layer& layer) {
  for (uint8_t*& memory : layer) {
    if (memory != nullptr) device_.free_pinned(std::exchange(memory, nullptr));
  }
  layer.clear();
}

void KvHost::use_pages(std::span<const uint8_t> pages) {
  std::vector<uint32_t> used;
  for (uint32_t page = 0; page < pages.size(); ++page) {
    if (pages[page]) used.push_back(page);
  }
  const std::vector<PageRun> runs = page_runs(std::move(used));
  // First what gives memory back.
  for (Layer& layer : layers_) {
    for (size_t page = 0; !runs.empty() && page < layer.size(); ++page) {
      if (!pages[page] && layer[page] != nullptr) device_.free_pinned(std::exchange(layer[page], nullptr));
    }
  }
  for (const Range& range : buffers_) commit_pages(device_, range, page_bytes_, pages);
  for (Layer& layer : layers_) {
    if (!layer.empty()) allocate(layer, runs);
  }
}

void KvHost::store(uint32_t layer, Range cache, std::span<const PageRun> runs) {
  try {
    allocate(layers_[layer], runs);
    download(layers_[layer], cache, runs);
    synchronize();
  } catch (...) {
    release(layers_[layer]);
    throw;
  }
}

void KvHost::load(uint32_t layer, Range cache, std::span<const PageRun> runs) {
  upload(layers_[layer], cache, runs);
  synchronize();
  release(layers_[layer]);
}

void KvHost::upload(const Layer& layer, Range cache, std::span<const PageRun> runs) {
  for (const auto& [first, count] : runs) {
    for (uint32_t page = first; page < first + count; ++page) {
      device_.upload(copies_, cache.at(page * page_bytes_, page_bytes_), layer[page]);
    }
  }
}

void KvHost::download(const Layer& layer, Range cache, std::span<const PageRun> runs) {
  for (const auto& [first, count] : runs) {
    for (uint32_t page = first; page < first + count; ++page) {
      device_.download(copies_, layer[page], cache.at(page * page_bytes_, page_bytes_));
    }
  }
}

void KvHost::synchronize() {
  device_.record(done_, copies_);
  device_.synchronize(done_);
}

void KvHost::begin(std::vector<SpilledLayer> layers, std::vector<PageRun> reads, std::vector<PageRun> writes) {
  order_ = std::move(layers);
  reads_ = std::move(reads);
  writes_ = std::move(writes);
  read_ = taken_ = finished_ = 0;
  for (uint32_t buffer = 0; buffer < kBuffers; ++buffer) read_ahead();
}

// What was in the buffer before goes back on the same stream, first.
void KvHost::read_ahead() {
  if (read_ == order_.size()) return;
  const SpilledLayer& next = order_[read_];
  if (trace_ != nullptr) device_.label(copies_, next.stage);
  upload(layers_[next.layer], buffers_[read_ % kBuffers], reads_);
  device_.record(arrived_[read_ % kBuffers], copies_);
  ++read_;
}

Range KvHost::take() {
  const uint64_t number = taken_++;
  device_.wait(compute_, arrived_[number % kBuffers]);
  return buffers_[number % kBuffers];
}

void KvHost::finish() {
  const uint64_t number = finished_++;
  device_.record(used_, compute_);
  device_.wait(copies_, used_);
  if (trace_ != nullptr) device_.label(copies_, order_[number].stage);
  download(layers_[order_[number].layer], buffers_[number % kBuffers], writes_);
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
