// A Runtime in a test, with what plays the part of the engine's prefetcher, and the checks that tests share.
#pragma once

#include <stdlib.h>

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <cstring>
#include <filesystem>
#include <future>
#include <memory>
#include <mutex>
#include <random>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "../../native/platform/error.h"
#include "../../native/stream/runtime.h"
#include "check.h"
#include "failure.h"
#include "temporary_directory.h"

// The C++ library that counts references to exceptions is not instrumented: the sanitizer cannot see that it is atomic.
extern "C" [[gnu::used]] inline const char* __tsan_default_suppressions() { return "race:std::__exception_ptr::exception_ptr::_M_release\n"; }

namespace synthetic {

using namespace layerstream;

inline bool equal(const std::vector<float>& a, const std::vector<float>& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
}

// The longest chunk of the stages that are routed, or of those that are not.
inline uint64_t largest_chunk(RuntimeDescription description, bool routed = false) {
  uint64_t largest = 0;
  for (Stage& stage : description.stages) {
    if (stage.routed() != routed) continue;
    cut_into_chunks(stage, description.chunk_bytes);
    for (const Chunk& chunk : stage.chunks) largest = std::max(largest, chunk.length);
  }
  return largest;
}

// A staging ring of so many bytes, and slots where the device needs them.
inline void give_ring(RuntimeDescription& description, uint64_t bytes) { description.ring_bytes = description.slot_bytes = bytes; }

// All chunks of the stage in a tier, once its chunks' size is known.
inline void hold(const RuntimeDescription& description, Stage& stage, Tier tier) {
  cut_into_chunks(stage, description.chunk_bytes);
  stage.held_chunks.assign(stage.chunks.size(), static_cast<uint8_t>(tier));
}
inline void hold(const RuntimeDescription& description, Stage& stage, bool held) {
  hold(description, stage, held ? Tier::kDevice : Tier::kDisk);
}

// Held with this probability, in one of the tiers that the device has.
inline Tier draw_tier(std::mt19937& random, uint32_t percent, bool unified) {
  if (random() % 100 >= percent) return Tier::kDisk;
  return unified || random() % 2 == 0 ? Tier::kDevice : Tier::kHost;
}

inline bool held(const Stage& stage) { return !stage.held_chunks.empty() && stage.held_chunks[0] != 0; }

inline bool gathered(const RuntimeDescription& description, size_t stage) {
  return stage == description.embedding.stage && stage + 1 != description.stages.size();
}

// What one pass takes off the tape.
inline uint64_t streamed_bytes(RuntimeDescription description) {
  uint64_t bytes = 0;
  for (uint32_t index = 0; index < description.stages.size(); ++index) {
    Stage& stage = description.stages[index];
    if (stage.routed() || gathered(description, index)) continue;
    cut_into_chunks(stage, description.chunk_bytes);
    mark_held(stage);
    for (const Chunk& chunk : stage.chunks) bytes += chunk.held() ? 0 : chunk.length;
  }
  return bytes;
}

// A reader that is sent to the tape by passes, as the engine's prefetcher does with its worker.
class Player {
 public:
  explicit Player(Runtime& runtime) : runtime_(runtime), reader_([this] { read_loop(); }) {}
  ~Player() {
    runtime_.cancel();
    {
      std::lock_guard lock(mutex_);
      stop_ = true;
    }
    changed_.notify_all();
    reader_.join();
  }

  // Enqueues the pass. The future gives its result, or its error.
  std::future<PassResult> start(PassRequest request) {
    runtime_.set_idle(false);
    {
      std::lock_guard lock(mutex_);
      running_ = true;
    }
    changed_.notify_all();
    auto promise = std::make_shared<std::promise<PassResult>>();
    runtime_.run_pass(std::move(request), [promise](PassResult result, std::exception_ptr error) {
      if (error) promise->set_exception(error);
      else promise->set_value(result);
    });
    return promise->get_future();
  }

  // Waits for a pass that has been started. After an error, the tape is ready for position 0 again.
  PassResult finish(std::future<PassResult> pass) {
    try {
      const PassResult result = pass.get();
      {
        std::lock_guard lock(mutex_);
        running_ = false;
      }
      runtime_.set_idle(true);
      return result;
    } catch (...) {
      recover();
      throw;
    }
  }

  PassResult run(PassRequest request) { return finish(start(std::move(request))); }

  void recover() {
    std::unique_lock lock = leave();
    runtime_.reset();
    failed_ = false;
  }

  // Between passes.
  void set_held(const std::vector<std::vector<uint8_t>>& flags, const RingSizes& rings) {
    std::unique_lock lock = leave();
    runtime_.set_held(flags, rings);
    runtime_.reset();
    failed_ = false;
  }

 private:
  std::unique_lock<std::mutex> leave() {
    runtime_.cancel();
    std::unique_lock lock(mutex_);
    running_ = false;
    failed_ = true;
    changed_.wait(lock, [this] { return !inside_; });
    return lock;
  }

  void read_loop() {
    std::unique_lock lock(mutex_);
    for (;;) {
      changed_.wait(lock, [this] { return stop_ || (running_ && !failed_); });
      if (stop_) return;
      inside_ = true;
      lock.unlock();
      const Tape::Status status = runtime_.read_tape();
      lock.lock();
      inside_ = false;
      if (status == Tape::Status::kCancelled) failed_ = true;
      if (status == Tape::Status::kDone) running_ = false;
      changed_.notify_all();
    }
  }

  Runtime& runtime_;
  std::mutex mutex_;
  std::condition_variable changed_;
  bool inside_ = false, running_ = false, failed_ = false, stop_ = false;
  std::thread reader_;
};

// Passes may be as long, and caches as large, as the description has.
inline void use_all_memory(Runtime& runtime, const RuntimeDescription& description) {
  runtime.set_working_memory(description.max_tokens, std::vector<uint8_t>(description.page_count, 1), description.kv_layers);
}

struct Loaded {
  explicit Loaded(const RuntimeDescription& description, std::unique_ptr<Device> device = nullptr)
      : vocab_size(description.vocab_size), runtime(description, std::move(device)), player(runtime) {
    use_all_memory(runtime, description);
  }
  uint32_t vocab_size;
  Runtime runtime;
  Player player;

  std::vector<float> logits(PassRequest request, bool all, PassResult* result = nullptr) {
    std::vector<float> output((all ? request.tokens.size() : request.segments.size()) * vocab_size, -1.0f);
    request.all_logits = all;
    request.logits = output.data();
    const PassResult taken = player.run(std::move(request));
    if (result != nullptr) *result = taken;
    return output;
  }

  // A pass that is aborted after so long, unless it has ended before.
  void abort(PassRequest request, std::chrono::microseconds wait) {
    std::vector<float> output(request.segments.size() * vocab_size);
    request.logits = output.data();
    std::future<PassResult> pass = player.start(std::move(request));
    std::this_thread::sleep_for(wait);
    runtime.cancel();
    const Failure failure = failure_of([&] { player.finish(std::move(pass)); });
    check(failure.code.empty() || failure.code == "ABORTED", failure.message);
    // The abort may have come after the last op: the tape is cancelled although the pass is complete.
    if (failure.code.empty()) player.recover();
  }
};

}  // namespace synthetic
