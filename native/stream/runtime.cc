#include "runtime.h"

#include <algorithm>

#include "../platform/error.h"
#include "../platform/memory.h"

namespace layerstream {

namespace {

// 16 MiB of 4 MiB reads keep a fast disk busy; the ring bounds it further.
constexpr uint32_t kReadDepth = 4;

std::unique_ptr<Device> open_device(const RuntimeDescription& description) {
  for (const Backend& backend : backends()) {
    if (description.device != backend.name) continue;
    std::unique_ptr<Device> device = backend.open({description.threads});
    if (device) return device;
  }
  throw Error("DEVICE_UNAVAILABLE", "There is no device '" + description.device + "' here.");
}

uint64_t gather_slot_bytes(const RuntimeDescription& description) {
  const EmbeddingDescription& embedding = description.embedding;
  return align_up(description.stages[embedding.stage].matrices[embedding.matrix].row_bytes, kPageBytes) + kPageBytes;
}

}  // namespace

Runtime::Runtime(RuntimeDescription description, std::unique_ptr<Device> device)
    : description_(std::move(description)),
      device_(std::move(device)),
      unified_(device_->info().unified),
      ring_memory_(static_cast<uint8_t*>(description_.ring_bytes > 0 ? device_->alloc_pinned(description_.ring_bytes) : nullptr)),
      tape_(ring_memory_, description_.ring_bytes) {}

// The object is complete once the other constructor returns: what fails here is undone by the destructor.
Runtime::Runtime(RuntimeDescription description) : Runtime(description, open_device(description)) {
  for (const FileDescription& file : description_.files) files_.emplace_back(file.path, file.size);
  for (Stage& stage : description_.stages) {
    cut_into_chunks(stage, description_.chunk_bytes);
    uint32_t next_matrix = 0;
    for (const Step& step : description_.plans[stage.kind]) {
      const auto* matmul = std::get_if<MatmulStep>(&step);
      if (matmul != nullptr && matmul->matrix != next_matrix++) {
        throw Error("INTERNAL", "A plan uses its matrices in another order than they have on disk.");
      }
    }
  }
  loaded_ = std::make_unique<std::atomic<bool>[]>(description_.stages.size());
  allocate();
  load_vectors();
  pass_thread_ = std::thread([this] { pass_loop(); });
  release_thread_ = std::thread([this] { release_loop(); });
}

Runtime::~Runtime() {
  tape_.cancel();
  {
    std::lock_guard lock(pass_mutex_);
    stop_ = true;
  }
  pass_ready_.notify_all();
  if (pass_thread_.joinable()) pass_thread_.join();
  {
    std::lock_guard lock(release_mutex_);
    released_ = UINT64_MAX;
  }
  release_changed_.notify_all();
  if (release_thread_.joinable()) release_thread_.join();
  for (Event* event : chunk_events_) device_->destroy(event);
  for (Event* event : {copied_, finished_, stage_events_[0], stage_events_[1]}) {
    if (event != nullptr) device_->destroy(event);
  }
  for (Stream* stream : {compute_, copies_}) {
    if (stream != nullptr) device_->destroy(stream);
  }
  for (Buffer* buffer : buffers_) device_->free(buffer);
  if (logits_ != nullptr) device_->free(logits_);
  for (void* memory : {static_cast<void*>(ring_memory_), static_cast<void*>(tables_host_), static_cast<void*>(gather_host_)}) {
    if (memory != nullptr) device_->free_pinned(memory);
  }
}

void Runtime::allocate() {
  const auto alloc = [this](uint64_t bytes) -> Range {
    if (bytes == 0) return {};
    Buffer* buffer = device_->alloc(bytes);
    buffers_.push_back(buffer);
    return {buffer, 0, bytes};
  };
  const auto mirror = [&](uint8_t* host, uint64_t bytes) -> Buffer* {
    if (!unified_) return alloc(bytes).buffer;
    buffers_.push_back(device_->alias_host(host, bytes));
    return buffers_.back();
  };

  compute_ = device_->create_stream();
  if (!unified_) copies_ = device_->create_stream();
  for (uint32_t slot = 0; slot < Tape::kSlots; ++slot) chunk_events_.push_back(device_->create_event());
  copied_ = device_->create_event();
  finished_ = device_->create_event();
  for (Event*& event : stage_events_) event = device_->create_event();

  if (ring_memory_ != nullptr) ring_slots_ = mirror(ring_memory_, description_.ring_bytes);
  for (Stage& stage : description_.stages) {
    if (stage.held) stage.memory = alloc(stage.extent_bytes).buffer;
  }
  // Registers other than hidden live within one stage only, and no stage uses both groups.
  const uint64_t tokens = description_.max_tokens;
  const auto bytes = [&](Register name) { return description_.register_widths[static_cast<size_t>(name)] * tokens * sizeof(float); };
  for (Register name : {Register::kHidden, Register::kNormed}) registers_[static_cast<size_t>(name)] = alloc(bytes(name));
  const uint64_t attention_bytes = bytes(Register::kQuery) + bytes(Register::kKey) + bytes(Register::kValue);
  const Range scratch = alloc(std::max(attention_bytes, bytes(Register::kGate) + bytes(Register::kUp)));
  for (const auto& group : {std::vector{Register::kQuery, Register::kKey, Register::kValue}, std::vector{Register::kGate, Register::kUp}}) {
    uint64_t offset = 0;
    for (Register name : group) {
      registers_[static_cast<size_t>(name)] = scratch.at(offset, bytes(name));
      offset += bytes(name);
    }
  }

  layer_cache_bytes_ = uint64_t{description_.page_count} * description_.page_positions * description_.kv_heads *
                       description_.head_dim * sizeof(float);
  keys_ = alloc(layer_cache_bytes_ * description_.kv_layers);
  values_ = alloc(layer_cache_bytes_ * description_.kv_layers);

  uint64_t table_bytes = description_.page_count * sizeof(uint32_t);
  pages_ = alloc(table_bytes);
  for (uint32_t rotary_dim : description_.rope_dims) {
    const uint64_t size = tokens * rotary_dim / 2 * sizeof(float);
    cosines_.push_back(alloc(size));
    sines_.push_back(alloc(size));
    table_bytes += 2 * size;
  }
  tables_host_ = static_cast<uint8_t*>(device_->alloc_pinned(table_bytes));
  const uint64_t gather_bytes = kGatherRows * gather_slot_bytes(description_);
  gather_host_ = static_cast<uint8_t*>(device_->alloc_pinned(gather_bytes));
  gather_buffer_ = mirror(gather_host_, gather_bytes);
  gather_reader_ = make_reader(kGatherRows);
}

void Runtime::load_vectors() {
  uint64_t floats = 0;
  uint64_t largest = 0;
  for (const Stage& stage : description_.stages) {
    for (const Vector& vector : stage.vectors) {
      floats += vector.length;
      largest = std::max(largest, uint64_t{vector.length} * sizeof(float));
    }
  }
  if (floats == 0) return;
  Buffer* buffer = device_->alloc(floats * sizeof(float));
  buffers_.push_back(buffer);
  const auto free_pinned = [this](float* memory) { device_->free_pinned(memory); };
  const std::unique_ptr<float, decltype(free_pinned)> host(
      static_cast<float*>(device_->alloc_pinned(floats * sizeof(float))), free_pinned);
  Arena raw(align_up(largest, kPageBytes) + kPageBytes);
  uint64_t position = 0;
  for (Stage& stage : description_.stages) {
    for (Vector& vector : stage.vectors) {
      const uint64_t begin = align_down(vector.offset, kPageBytes);
      const uint64_t end = align_up(vector.offset + row_bytes(vector.format, vector.length, 0), kPageBytes);
      gather_reader_->submit({&files_[stage.file], begin, end - begin, raw.data(), 0});
      gather_reader_->wait();
      to_float32(vector.format, raw.data() + (vector.offset - begin), vector.length, host.get() + position);
      vector.memory = {buffer, position * sizeof(float), vector.length * sizeof(float)};
      position += vector.length;
    }
  }
  device_->upload(compute_, {buffer, 0, floats * sizeof(float)}, host.get());
  device_->record(finished_, compute_);
  device_->synchronize(finished_);
}

// --- readers -----------------------------------------------------------------------------------------------------

struct Runtime::ReaderLease {
  explicit ReaderLease(Runtime& owner) : runtime(owner) {
    std::lock_guard lock(runtime.readers_mutex_);
    if (!runtime.readers_.empty()) {
      reader = std::move(runtime.readers_.back());
      runtime.readers_.pop_back();
      return;
    }
    reader = make_uring_reader(kReadDepth, &runtime.reader_reason_);
    runtime.uring_ = reader != nullptr;
    if (!reader) reader = make_pread_reader();
  }
  ~ReaderLease() {
    reader->drain();
    std::lock_guard lock(runtime.readers_mutex_);
    runtime.readers_.push_back(std::move(reader));
  }
  Runtime& runtime;
  std::unique_ptr<Reader> reader;
};

Tape::Status Runtime::read_stage(uint64_t position, uint32_t index) {
  const Stage& stage = description_.stages.at(index);
  const bool in_place = stage.held && unified_;
  uint32_t first_chunk = 0;
  Tape::Status status = tape_.begin(position, &first_chunk);
  if (status != Tape::Status::kDone) return status;
  try {
    ReaderLease lease(*this);
    Reader& reader = *lease.reader;
    const auto publish_one = [&] { tape_.publish(reader.wait()); };
    for (uint32_t number = first_chunk; number < stage.chunks.size(); ++number) {
      const Chunk& chunk = stage.chunks[number];
      // Held memory is computed on while later chunks arrive: no page of it is read twice, because an encrypted disk
      // writes other bytes there first.
      const uint64_t offset = chunk.offset + (stage.held ? chunk.shared : 0);
      const uint64_t length = chunk.offset + chunk.length - offset;
      uint8_t* fixed = nullptr;
      if (in_place) fixed = static_cast<uint8_t*>(device_->host_address({stage.memory, offset - stage.extent_offset, length}));
      Tape::Chunk place;
      if (reader.full()) publish_one();
      // Reads in flight are published before waiting for space: the consumer may need them to free any.
      while ((status = tape_.acquire(length, fixed, reader.idle(), &place)) == Tape::Status::kFull) publish_one();
      if (status != Tape::Status::kDone) break;
      reader.submit({&files_[stage.file], offset, length, place.memory, place.sequence});
    }
    if (status == Tape::Status::kDone) tape_.end();
    while (!reader.idle()) publish_one();
  } catch (...) {
    tape_.fail(std::current_exception());
    throw;
  }
  return status;
}

RuntimeStats Runtime::stats() {
  RuntimeStats stats;
  stats.tape = tape_.counters();
  stats.kernels = device_->info().kernels;
  std::lock_guard lock(readers_mutex_);
  stats.reader = uring_ ? "io_uring" : "pread";
  stats.reader_reason = reader_reason_;
  for (const WeightFile& file : files_) {
    if (!file.direct()) stats.buffered_reason = file.buffered_reason();
  }
  return stats;
}

void Runtime::reset() {
  next_sequence_ = tape_.reset();
  std::lock_guard lock(release_mutex_);
  recorded_ = released_ = next_sequence_;
}

// --- threads -----------------------------------------------------------------------------------------------------

void Runtime::run_pass(PassRequest request, std::function<void(PassResult, std::exception_ptr)> done) {
  std::lock_guard lock(pass_mutex_);
  if (has_pass_) throw Error("INTERNAL", "A pass is running already.");
  pass_ = std::move(request);
  done_ = std::move(done);
  has_pass_ = true;
  pass_ready_.notify_all();
}

void Runtime::pass_loop() {
  for (;;) {
    {
      std::unique_lock lock(pass_mutex_);
      pass_ready_.wait(lock, [this] { return stop_ || has_pass_; });
      if (!has_pass_) return;
    }
    PassResult result;
    std::exception_ptr error;
    try {
      result = execute(pass_);
    } catch (...) {
      error = std::current_exception();
      // What was enqueued still uses the ring and the caller's memory.
      try {
        device_->record(finished_, compute_);
        device_->synchronize(finished_);
      } catch (...) {
      }
    }
    {
      std::unique_lock lock(release_mutex_);
      release_changed_.wait(lock, [this] { return released_ >= recorded_; });
    }
    // Nobody will free space until the next pass. Readers must not wait for it: at process.exit, JavaScript is gone and
    // Node waits for its workers.
    tape_.set_idle(true);
    std::function<void(PassResult, std::exception_ptr)> done;
    {
      std::lock_guard lock(pass_mutex_);
      has_pass_ = false;
      done = std::move(done_);
    }
    done(result, error);
  }
}

void Runtime::release_loop() {
  for (;;) {
    uint64_t sequence = 0;
    {
      std::unique_lock lock(release_mutex_);
      release_changed_.wait(lock, [this] { return released_ == UINT64_MAX || released_ < recorded_; });
      if (released_ == UINT64_MAX) return;
      sequence = released_;
    }
    try {
      device_->synchronize(chunk_events_[sequence % Tape::kSlots]);
    } catch (...) {
      tape_.fail(std::current_exception());
    }
    tape_.release(sequence);
    std::lock_guard lock(release_mutex_);
    if (released_ != UINT64_MAX) released_ = sequence + 1;
    release_changed_.notify_all();
  }
}

}  // namespace layerstream
