#include "runtime.h"

#include <algorithm>
#include <utility>

#include "../platform/error.h"
#include "../platform/memory.h"
#include "support.h"

namespace layerstream {

namespace {

// 16 MiB of 4 MiB reads keep a fast disk busy; the ring bounds it further.
constexpr uint32_t kReadDepth = 4;

std::unique_ptr<Trace> open_trace(const RuntimeDescription& description) {
  if (description.trace_spans == 0) return nullptr;
  std::vector<uint32_t> kinds;
  for (const Stage& stage : description.stages) kinds.push_back(stage.kind);
  const auto activities = static_cast<uint32_t>(Activity::kMatmul) + static_cast<uint32_t>(kFormatCount);
  return std::make_unique<Trace>(std::move(kinds), static_cast<uint32_t>(description.plans.size()), activities, description.trace_spans);
}

}  // namespace

Runtime::Runtime(Opened opened)
    : description_(std::move(opened.description)),
      trace_(open_trace(description_)),
      device_(std::move(opened.device)),
      unified_(device_->info().unified),
      tape_(nullptr, 0, meter_),
      populator_(*device_, description_.threads) {}

// The object is complete once the other constructor returns: what fails here is undone by the destructor.
Runtime::Runtime(RuntimeDescription description, std::unique_ptr<Device> device)
    : Runtime(opened(std::move(description), std::move(device))) {
  for (const FileDescription& file : description_.files) files_.emplace_back(file.path, file.size);
  for (size_t index = 0; index < description_.stages.size(); ++index) {
    Stage& stage = description_.stages[index];
    cut_into_chunks(stage, description_.chunk_bytes);
    check_held(description_, index, stage.held_chunks, unified_);
    mark_held(stage);
    arrived_.resize(std::max(arrived_.size(), stage.chunks.size()));
  }
  allocate();
  order_tape();
  reader_ = make_uring_reader(kReadDepth, &reader_reason_);
  uring_ = reader_ != nullptr;
  if (!reader_) reader_ = make_pread_reader(kReadDepth);
  reader_->observe(trace_.get(), Track::kReader);
  const auto is_encoded = [](const Matrix& matrix) { return matrix.encoded(); };
  const auto has_encoded = [&](const Stage& stage) { return !stage.routed() && std::ranges::any_of(stage.matrices, is_encoded); };
  if (std::ranges::any_of(description_.stages, has_encoded)) {
    decoders_ = std::make_unique<Decoders>(description_.threads, tape_, trace_.get());
  }
  pass_thread_ = std::thread([this] { pass_loop(); });
  release_thread_ = std::thread([this] { release_loop(); });
}

Runtime::Opened Runtime::opened(RuntimeDescription description, std::unique_ptr<Device> device) {
  check_description(description);
  if (!device) device = open_device(description.device, {description.threads, description.kernel_directory});
  check_support(description, *device);
  check_results(description, *device);
  return {std::move(description), std::move(device)};
}

Runtime::~Runtime() {
  tape_.cancel();
  populator_.stop();
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
  // Streams run what is left in them; the events that they record must still be there.
  for (Stream* stream : {compute_, copies_}) {
    if (stream != nullptr) device_->destroy(stream);
  }
  experts_.reset();
  slots_.reset();
  spill_.reset();
  for (Event* event : chunk_events_) device_->destroy(event);
  for (Event* event : {copied_, finished_, block_events_[0], block_events_[1]}) {
    if (event != nullptr) device_->destroy(event);
  }
  for (Buffer* buffer : buffers_) device_->free(buffer);
  if (logits_ != nullptr) device_->free(logits_);
  for (Stage& stage : description_.stages) {
    if (stage.memory != nullptr) device_->free(stage.memory);
    for (Chunk& chunk : stage.chunks) free_host(chunk);
  }
  for (void* memory : pinned_) device_->free_pinned(memory);
  free_token_tables();
  free_ring();
}

RuntimeStats Runtime::stats() {
  RuntimeStats stats;
  {
    const std::lock_guard lock(pass_mutex_);
    stats.passes = pass_sums_;
  }
  stats.reads = meter_.counters();
  if (spill_) stats.spill = spill_->counters();
  stats.kernels = device_->info().kernels;
  stats.read_cpu_seconds = static_cast<double>(read_cpu_nanoseconds_) * 1e-9;
  stats.reader = uring_ ? "io_uring" : "pread";
  stats.reader_reason = reader_reason_;
  for (const WeightFile& file : files_) {
    if (!file.direct()) stats.buffered_reason = file.buffered_reason();
  }
  return stats;
}

bool Runtime::loaded(uint32_t index) const {
  return std::ranges::all_of(description_.stages.at(index).chunks, [](const Chunk& chunk) { return chunk.loaded || !chunk.held(); });
}

void Runtime::set_held(std::vector<std::vector<uint8_t>> tiers, const RingSizes& rings) {
  std::vector<Stage>& stages = description_.stages;
  if (tiers.size() != stages.size()) throw Error("INTERNAL", "Stages and tiers for what is held disagree.");
  for (size_t index = 0; index < stages.size(); ++index) check_held(description_, index, tiers[index], unified_);
  populator_.stop();
  std::vector<std::vector<uint8_t>> held_before;
  for (const Stage& stage : stages) held_before.push_back(stage.held_chunks);
  const RingSizes before{description_.ring_bytes, description_.expert_ring_bytes, description_.slot_bytes};
  try {
    change_held(tiers, rings);
  } catch (...) {
    const std::exception_ptr failure = std::current_exception();
    try {
      change_held(held_before, before);
    } catch (...) {
      // Passes are refused until a later change succeeds.
    }
    std::rethrow_exception(failure);
  }
}

void Runtime::change_held(const std::vector<std::vector<uint8_t>>& tiers, const RingSizes& rings) {
  std::vector<Stage>& stages = description_.stages;
  usable_ = false;
  // First what gives memory back.
  experts_.reset();
  for (size_t index = 0; index < stages.size(); ++index) discard_held(stages[index], tiers[index]);
  if (rings.staging != description_.ring_bytes) {
    free_ring();
    allocate_ring(rings.staging);
  }
  allocate_slots(rings.slots);
  for (Stage& stage : stages) commit_held(stage);
  description_.expert_ring_bytes = rings.experts;
  allocate_experts();
  usable_ = true;
}

void Runtime::reset() {
  populator_.stop();
  next_sequence_ = taken_sequence_ = tape_.reset();
  order_tape();
  std::lock_guard lock(release_mutex_);
  recorded_ = released_ = next_sequence_;
}

// --- threads -----------------------------------------------------------------------------------------------------

void Runtime::run_pass(PassRequest request, std::function<void(PassResult, std::exception_ptr)> done) {
  std::lock_guard lock(pass_mutex_);
  if (passes_.size() > (request.follows ? 1u : 0u)) throw Error("INTERNAL", "A pass is running already.");
  if (!usable_) throw Error("DEVICE_FAILED", "The model's memory could not be changed and has not been restored. Load the model again.");
  if (request.tokens.size() > tokens_) throw Error("INTERNAL", "The working memory has no room for a pass of that many tokens.");
  passes_.push_back({std::move(request), std::move(done)});
  pass_ready_.notify_all();
}

void Runtime::pass_loop() {
  for (bool waited = true;; waited = false) {
    Pass* pass = nullptr;
    {
      std::unique_lock lock(pass_mutex_);
      waited = waited || passes_.empty();
      pass_ready_.wait(lock, [this] { return stop_ || !passes_.empty(); });
      if (passes_.empty()) return;
      pass = &passes_.front();
    }
    PassResult result;
    std::exception_ptr error;
    try {
      result = run(pass->request, !waited);
    } catch (...) {
      error = std::current_exception();
    }
    report();
    bool another = false;
    {
      std::lock_guard lock(pass_mutex_);
      report_ = [done = std::move(pass->done), result, error] { done(result, error); };
      passes_.pop_front();
      another = !passes_.empty();
      pass_sums_.compute_seconds += result.compute_seconds;
      pass_sums_.wait_seconds += result.wait_seconds;
      pass_sums_.bytes_copied += result.bytes_copied;
      pass_sums_.bytes_multiplied += result.bytes_multiplied;
    }
    if (!another) report();
  }
}

// Waking who waits for a pass takes as long as several ops: the next pass has some to run by then.
void Runtime::report() {
  if (const std::function<void()> tell = std::exchange(report_, nullptr)) tell();
}

// `at_once`: it had been enqueued when the pass before ended.
PassResult Runtime::run(PassRequest& request, bool at_once) {
  const bool runs = !request.follows || take_choice(request);
  chosen_ = -1;
  if (!runs) return {.ran = false};
  if (trace_) trace_->begin_pass(request.prompt, static_cast<uint32_t>(request.tokens.size()), at_once);
  PassResult result;
  std::exception_ptr error;
  try {
    result = execute(request);
  } catch (...) {
    error = std::current_exception();
    // What was enqueued still uses the ring and the caller's memory.
    for (Stream* stream : {copies_, compute_}) {
      if (stream == nullptr) continue;
      try {
        device_->record(finished_, stream);
        device_->synchronize(finished_);
      } catch (...) {
      }
    }
    end_on_processor();
    if (experts_) experts_->drain();
    abort_spilled();
  }
  {
    std::unique_lock lock(release_mutex_);
    release_changed_.wait(lock, [this] { return released_ >= recorded_; });
  }
  if (trace_) trace_->end_pass();
  // Nobody will free space until the next pass. The reader must not wait for it: Node waits for its workers at its end.
  set_idle(true);
  if (error) std::rethrow_exception(error);
  chosen_ = result.token;
  return result;
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
