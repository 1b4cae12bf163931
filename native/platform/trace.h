// What a model does and when, for a program that asks (`profilingMode`).
//
// Kept are the latest spans, in a ring of fixed size, and sums over all of them: apart for prompts and for single tokens,
// by kind of stage and activity. Whoever records holds a Trace*, null where nobody asked. Any thread; nothing is allocated
// after construction.
#pragma once

#include <chrono>
#include <cstdint>
#include <mutex>
#include <vector>

#include "memory.h"

namespace layerstream {

// Who is busy: a row of the trace. The readers of the tape are kReader, kReader + 1, ...
enum class Track : uint16_t { kJavaScript, kPass, kCompute, kCopies, kEmbedding, kExperts, kDecoders, kKvCache, kReader };

enum class Activity : uint16_t {
  // JavaScript, between passes
  kEngine,  // layerstream's own: sampling, decoding text, preparing a pass
  kCaller,  // the program that iterates over the tokens
  kSwitch,  // from a pass to JavaScript and back; sums only
  // the pass thread
  kPass,
  kDiskWait,
  kComputeWait,
  // readers
  kRead,
  kSpaceWait,
  // of the part of the KV cache that is in a file
  kReadKv,
  kWriteKv,
  // of compressed chunks
  kDecode,
  // the compute stream did nothing: for want of a chunk from disk, of its copy, or of anything to do; sums only
  kDiskStall,
  kCopyStall,
  kIdle,
  // device streams
  kCopy,
  kEmbed,
  kNorm,
  kRope,
  kAttention,
  kActivation,
  kScaleTokens,
  kSoftCap,
  kGatherRows,
  kScatterAdd,
  kPermute,
  kMatmul,  // + weight format
};

// Bytes moved or read, and additions and multiplications.
struct Work {
  uint64_t bytes = 0;
  uint64_t operations = 0;
};

class Trace {
 public:
  using Clock = std::chrono::steady_clock;
  using Time = Clock::time_point;

  static constexpr uint32_t kNoStage = UINT32_MAX;

  struct Span {
    uint64_t begin, end;  // nanoseconds since the trace was made
    uint64_t bytes, operations;
    uint32_t stage;
    uint16_t activity;
    uint8_t track;
    uint8_t lane;         // of the spans of one track that overlap
  };
  static_assert(sizeof(Span) == 40, "SPAN_BYTES in src/engine/trace-file.ts");

  struct Sum {
    uint64_t count = 0;
    uint64_t nanoseconds = 0;  // of reads: in which at least one was in flight
    uint64_t bytes = 0;
    uint64_t operations = 0;
  };

  // Sums of passes of one phase: sums[kind of stage * activities + activity]; what belongs to no stage has kind `kinds`.
  struct Phase {
    uint64_t tokens = 0;
    std::vector<Sum> sums;
  };

  // `kind_of_stage` are numbers below `kinds`. Keeps `spans` (at least 1) spans. Throws Error{"DEVICE_FAILED"}.
  Trace(std::vector<uint32_t> kind_of_stage, uint32_t kinds, uint32_t activities, uint32_t spans);

  void record(Track track, Activity activity, uint32_t stage, Time begin, Time end, Work work = {}, uint8_t lane = 0);

  // Around every pass, by the pass thread. `prompt`: it belongs to a request of several tokens; `at_once`: it waited
  // for the pass before to end.
  void begin_pass(bool prompt, uint32_t tokens, bool at_once = false);
  void end_pass();
  // What JavaScript does from now on: kEngine, kCaller, kPass while it waits for one, kIdle when nobody generates.
  void enter(Activity activity);

  uint32_t activities() const { return activities_; }
  uint32_t kinds() const { return kinds_; }
  Phase phase(bool prompt) const;
  // Spans recorded so far; the ring has the last ones.
  uint64_t recorded() const;
  // Appends spans from number `first` on, or from the oldest that is left, at most `limit`; returns the number of the first.
  uint64_t copy(uint64_t first, uint32_t limit, std::vector<Span>* output) const;

 private:
  // The latest intervals of one kind, which do not overlap, in order.
  struct Intervals {
    static constexpr uint32_t kCount = 512;
    uint64_t begin[kCount] = {};
    uint64_t end[kCount] = {};
    uint64_t count = 0;

    void add(uint64_t from, uint64_t to);
    // Nanoseconds of [from, to) that they cover.
    uint64_t within(uint64_t from, uint64_t to) const;
  };

  uint64_t since_start(Time time) const;
  Sum& sum(uint32_t stage, Activity activity);
  void add(uint32_t stage, Activity activity, uint64_t nanoseconds, Work work = {});
  void explain_gap(uint32_t stage, uint64_t until);
  void push(const Span& span);

  const Time start_ = Clock::now();
  const std::vector<uint32_t> kind_of_stage_;
  const uint32_t kinds_;
  const uint32_t activities_;
  const uint32_t capacity_;
  Arena memory_;
  Span* ring_;
  uint64_t recorded_ = 0;
  Phase phases_[2];            // of single tokens, of prompts
  bool prompt_ = true;
  bool in_pass_ = false;
  uint64_t pass_begin_ = 0, pass_end_ = 0;
  uint64_t compute_end_ = 0;   // of the last op
  uint64_t read_end_ = 0;      // reads in flight before this have been counted
  Intervals disk_waits_, copies_;
  Activity javascript_ = Activity::kIdle;
  uint64_t javascript_since_ = 0;
  mutable std::mutex mutex_;
};

}  // namespace layerstream
