#include "kv_file.h"

namespace layerstream {

KvFile::KvFile(Device& device, Stream* compute, std::string directory, const KvLayout& layout, ReadMeter& meter, Trace* trace)
    : device_(device), compute_(compute), pages_(layout.pages), page_positions_(layout.page_positions), page_bytes_(layout.page_bytes),
      meter_(meter), trace_(trace), file_(std::move(directory)) {
  try {
    for (Range& range : buffers_) range = {device_.reserve(pages_ * page_bytes_), 0, pages_ * page_bytes_};
    for (Event*& event : used_events_) event = device_.create_event();
    thread_ = std::thread([this] { loop(); });
  } catch (...) {
    release();
    throw;
  }
}

KvFile::~KvFile() {
  {
    std::lock_guard lock(mutex_);
    stop_ = true;
  }
  changed_.notify_all();
  thread_.join();
  release();
}

void KvFile::release() {
  for (Event* event : used_events_) {
    if (event != nullptr) device_.destroy(event);
  }
  for (const Range& range : buffers_) {
    if (range.buffer != nullptr) device_.free(range.buffer);
  }
}

void KvFile::use_pages(std::span<const uint8_t> pages) {
  for (const Range& range : buffers_) commit_pages(device_, range, page_bytes_, pages);
}

KvSpill::Counters KvFile::counters() {
  std::lock_guard lock(mutex_);
  return counters_;
}

void KvFile::count(Activity activity, uint32_t stage, Trace::Time begin, uint64_t bytes) {
  const Trace::Time end = Trace::Clock::now();
  if (trace_ != nullptr) trace_->record(Track::kKvCache, activity, stage, begin, end, {bytes, 0});
  const auto nanoseconds = static_cast<uint64_t>(std::chrono::nanoseconds(end - begin).count());
  std::lock_guard lock(mutex_);
  const bool reads = activity == Activity::kReadKv;
  (reads ? counters_.read_bytes : counters_.written_bytes) += bytes;
  (reads ? counters_.read_nanoseconds : counters_.write_nanoseconds) += nanoseconds;
}

void KvFile::read_pages(SpilledLayer of, uint8_t* memory, std::span<const PageRun> runs) {
  for (const auto& [first, pages] : runs) {
    const uint64_t bytes = pages * page_bytes_;
    const Trace::Time begin = Trace::Clock::now();
    meter_.begin();
    try {
      file_.read(memory + first * page_bytes_, bytes, (uint64_t{of.layer} * pages_ + first) * page_bytes_);
    } catch (...) {
      meter_.end(0);
      throw;
    }
    meter_.end(bytes);
    count(Activity::kReadKv, of.stage, begin, bytes);
  }
}

void KvFile::write_pages(SpilledLayer of, const uint8_t* memory, std::span<const PageRun> runs) {
  for (const auto& [first, pages] : runs) {
    const Trace::Time begin = Trace::Clock::now();
    const uint64_t bytes = pages * page_bytes_;
    file_.write(memory + first * page_bytes_, bytes, (uint64_t{of.layer} * pages_ + first) * page_bytes_);
    count(Activity::kWriteKv, of.stage, begin, bytes);
  }
}

void KvFile::store(uint32_t layer, Range cache, std::span<const PageRun> runs) {
  write_pages({layer, Trace::kNoStage}, static_cast<const uint8_t*>(device_.host_address(cache)), runs);
}

void KvFile::load(uint32_t layer, Range cache, std::span<const PageRun> runs) {
  read_pages({layer, Trace::kNoStage}, static_cast<uint8_t*>(device_.host_address(cache)), runs);
}

void KvFile::begin(std::vector<SpilledLayer> layers, std::vector<KvTokens> tokens) {
  std::vector<uint32_t> reads, writes;
  const uint32_t positions = page_positions_;
  for (const auto& [first, count, cached, pages] : tokens) {
    const uint32_t end = first + count;
    reads.insert(reads.end(), pages.begin(), pages.begin() + (cached + positions - 1) / positions);
    writes.insert(writes.end(), pages.begin() + first / positions, pages.begin() + (end + positions - 1) / positions);
  }
  {
    std::lock_guard lock(mutex_);
    layers_ = std::move(layers);
    reads_ = page_runs(std::move(reads));
    writes_ = page_runs(std::move(writes));
    tokens_ = tokens.size();
    taken_ = finished_ = read_ = used_ = written_ = 0;
    failure_ = nullptr;
    active_ = true;
  }
  changed_.notify_all();
}

KvPart KvFile::take() {
  const uint64_t number = taken_++ / tokens_;
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [&] { return failure_ || read_ > number; });
  if (failure_) std::rethrow_exception(failure_);
  KvPart whole;
  whole.cache = buffers_[number % kBuffers];
  return whole;
}

void KvFile::finish() {
  if (++finished_ % tokens_ != 0) return;
  {
    std::lock_guard lock(mutex_);
    device_.record(used_events_[used_ % kBuffers], compute_);
    ++used_;
  }
  changed_.notify_all();
}

void KvFile::end() {
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [this] { return failure_ || written_ == layers_.size(); });
  active_ = false;
  if (failure_) std::rethrow_exception(failure_);
}

void KvFile::abort() {
  std::unique_lock lock(mutex_);
  active_ = false;
  changed_.wait(lock, [this] { return !busy_; });
}

void KvFile::loop() {
  std::unique_lock lock(mutex_);
  for (;;) {
    changed_.wait(lock, [this] { return stop_ || (!failure_ && (can_write() || can_read())); });
    if (stop_) return;
    const bool writes = can_write();
    const uint64_t number = writes ? written_ : read_;
    busy_ = true;
    lock.unlock();
    std::exception_ptr failure;
    try {
      if (writes) {
        device_.synchronize(used_events_[number % kBuffers]);
        write_pages(layers_[number], buffer(number), writes_);
      } else {
        read_pages(layers_[number], buffer(number), reads_);
      }
    } catch (...) {
      failure = std::current_exception();
    }
    lock.lock();
    busy_ = false;
    if (failure) failure_ = failure;
    else ++(writes ? written_ : read_);
    changed_.notify_all();
  }
}

}  // namespace layerstream
