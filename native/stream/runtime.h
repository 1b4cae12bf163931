// Runs passes of one model: takes chunks off the tape, hands ops to the device, gives the space back.
//
// Three kinds of threads meet here. The reader (a piscina worker) is inside read_tape. The pass thread walks the stages of a
// pass and enqueues ops on the compute stream as chunks arrive. The release thread waits for the event behind a chunk's
// last op, or behind its copy to the device, and frees its space. None of them allocates per stage.
//
// Routed stages (experts) are not on the tape. At a route step the pass thread waits for the router's logits, chooses
// experts on the host, and has the chosen ones read by `Experts` while the rest of the stage runs; then each of them runs
// on the tokens that chose it.
//
// The parts: runtime.cc construction and threads; runtime_reader.cc the reader; runtime_memory.cc what is allocated and loaded
// at construction; runtime_working_memory.cc registers; runtime_kv_cache.cc the KV cache; runtime_attention.cc its use;
// runtime_pass.cc the pass; runtime_blocks.cc its tokens in blocks; runtime_steps.cc from steps to ops;
// runtime_experts.cc routing; runtime_processor.cc stages that the processor computes.
#pragma once

#include <atomic>
#include <condition_variable>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <thread>
#include <vector>

#include "../backend/device.h"
#include "../io/file.h"
#include "../io/reader.h"
#include "../platform/trace.h"
#include "decoders.h"
#include "experts.h"
#include "kv_spill.h"
#include "model.h"
#include "populator.h"
#include "processor.h"
#include "read_meter.h"
#include "router.h"
#include "slots.h"
#include "tape.h"

namespace layerstream {

struct RopeTable {
  std::vector<float> inverse_frequencies;  // rotary_dim / 2
  float attention_factor = 1.0f;
};

// Consecutive tokens of one sequence.
struct Segment {
  uint32_t tokens = 0;
  uint32_t first_position = 0;
  std::vector<uint32_t> pages;  // of the KV cache, enough for first_position + tokens
};

struct PassRequest {
  std::vector<uint32_t> tokens;  // of all segments, concatenated
  // Enqueued behind another pass, whose choice is its one token. It does not run if that failed, had none to choose, or chose
  // one of `ends`.
  bool follows = false;
  std::vector<uint32_t> ends;
  std::vector<Segment> segments;
  std::vector<RopeTable> ropes;
  bool prompt = false;           // carries a prompt, or what is new of one
  uint32_t request_tokens = 0;   // of the request whose tokens, or some of them, the pass carries
  bool all_logits = false;       // of every token, else of the last of each segment
  bool choose = false;           // the token of the greatest logit; of one segment, without all_logits
  float* logits = nullptr;       // [rows, vocab_size], host memory; null: no logits, the head is not executed
};

struct PassResult {
  bool ran = true;
  int64_t token = -1;            // the choice: first_maximum of the logits
  double compute_seconds = 0;    // the compute stream was executing
  double wait_seconds = 0;       // the pass waited for the disk
  uint64_t bytes_copied = 0;     // bytes of weights that went to a device with memory of its own
  uint64_t bytes_multiplied = 0; // bytes of weights that went through products, wherever they lay
  uint64_t bytes_taken = 0;      // bytes of chunks that this pass consumed, from the tape and of experts
};

struct RuntimeStats {
  PassResult passes;             // sums over all
  ReadMeter::Counters reads;     // of weights, and of the KV cache from its file
  KvSpill::Counters spill;
  double read_cpu_seconds = 0;   // of the thread that reads the tape
  std::string kernels;
  std::string reader;            // "io_uring" or "pread"
  std::string reader_reason;     // why not io_uring
  std::string buffered_reason;   // empty: direct reads
};

// Tokens of a pass that the ops of a stage work on.
struct TokenBlock {
  uint32_t first = 0, count = 0;
  bool last = true;
};

// Memory that chunks pass through.
struct RingSizes {
  uint64_t staging = 0, experts = 0, slots = 0;  // as RuntimeDescription::ring_bytes, expert_ring_bytes, slot_bytes
};

// Embedding rows that are read at once.
constexpr uint32_t kGatherRows = 64;

class Runtime {
 public:
  // On the device that the description names, unless another one is given. Throws Error with DEVICE_UNAVAILABLE,
  // DEVICE_FAILED, IO_ERROR, STORE_CORRUPT, or what check_description throws.
  explicit Runtime(RuntimeDescription description, std::unique_ptr<Device> device = nullptr);
  // Waits for a running pass, which it aborts. Not while the reader is inside.
  ~Runtime();

  // Reads the tape, stage after stage and pass after pass: streamed chunks into the ring; in the first pass after a reset,
  // held chunks that are not in memory yet to where they stay. Blocks until the ring is full and no pass runs (kPaused: to
  // be called again for the next one), the tape is cancelled or a read fails (kCancelled; passes throw the error), or
  // nothing is left to read (kDone). By one thread at a time: throws Error{"INTERNAL"} otherwise.
  Tape::Status read_tape();
  // Runs the pass on the pass thread; `done` is called there with the result or the error. One at a time, and one more that
  // follows it.
  void run_pass(PassRequest request, std::function<void(PassResult, std::exception_ptr)> done);
  // Ends the running pass with ABORTED and the reading, as soon as possible.
  void cancel() { tape_.cancel(); }
  // After cancel or an error, when the reader has returned and no pass runs: the tape starts over.
  void reset();
  // Before a pass: false. The end of a pass sets it to true.
  void set_idle(bool idle) { tape_.set_idle(idle, description_.read_ahead); }
  // All held chunks of the stage have been read. When no pass runs.
  bool loaded(uint32_t stage) const;
  // When the tape has been cancelled, the reader has returned and no pass runs; reset() must follow. Changes what is held (a
  // Tier for each chunk of each stage, as in Stage::held_chunks) and the sizes of rings. Memory of chunks that are held
  // no longer is given back at once; new ones are read by the next pass. Throws what check_held throws, before any
  // change, and Error{"DEVICE_FAILED"}: what was held before is held again then, if there is the memory for that.
  void set_held(std::vector<std::vector<uint8_t>> tiers, const RingSizes& rings);
  // When no pass runs: from now on passes have at most so many tokens, and only these pages of the KV cache (a flag each)
  // are used, of which `kv_layers` layers are in the device's memory and the others elsewhere (kv_spill.h). What is left out loses its
  // content and gives its memory back at once; what is new costs memory once it is used. At first there is none. Throws
  // Error{"INTERNAL"} for more than the description has, Error{"KV_SPILL_FAILED"} when the file cannot be written and
  // Error{"DEVICE_FAILED"} when memory does not last: what was used before can be used on then.
  void set_working_memory(uint32_t tokens, std::span<const uint8_t> pages, uint32_t kv_layers);
  RuntimeStats stats();
  // Pinned memory is device memory.
  bool unified() const { return unified_; }
  // What passes did and when; null unless the description asks for it.
  Trace* trace() { return trace_.get(); }

 private:
  struct Opened {
    RuntimeDescription description;
    std::unique_ptr<Device> device;
  };

  static Opened opened(RuntimeDescription description, std::unique_ptr<Device> device);
  explicit Runtime(Opened opened);
  // runtime_memory.cc
  Range alloc(uint64_t bytes);
  Buffer* mirror(uint8_t* host, uint64_t bytes);
  uint8_t* alloc_pinned(uint64_t bytes);
  void allocate();
  void allocate_ring(uint64_t bytes);
  void free_ring();
  void allocate_slots(uint64_t bytes);
  void change_held(const std::vector<std::vector<uint8_t>>& tiers, const RingSizes& rings);
  void commit_held(Stage& stage);
  void free_host(Chunk& chunk);
  void discard_held(Stage& stage, const std::vector<uint8_t>& tiers);
  void allocate_tables();
  void allocate_routing();
  void allocate_experts();
  // runtime_working_memory.cc
  void reserve_working_memory();
  Range reserve(uint64_t bytes);
  uint64_t lay_out_registers(uint32_t tokens);
  void allocate_token_tables();
  void free_token_tables();
  // runtime_reader.cc
  void order_tape();
  void populate_held();
  bool on_tape(const Chunk& chunk) const { return !chunk.held() || (first_pass() && !chunk.loaded); }
  bool first_pass() const { return position_ < first_pass_.size(); }
  Tape::Status read_stage(uint32_t index);
  void publish_one();
  // runtime.cc
  void pass_loop();
  PassResult run(PassRequest& request, bool at_once);
  void report();
  bool take_choice(PassRequest& request) const;
  void release_loop();
  // runtime_pass.cc
  PassResult execute(const PassRequest& request);
  void check_files() const;
  void upload_tables(const PassRequest& request);
  void gather_embeddings(const PassRequest& request);
  const uint8_t* embedding_on_host(uint32_t token) const;
  uint32_t keep_last_tokens(const PassRequest& request);
  Range logits_range(const PassRequest& request, uint32_t rows);
  void skip_stage(uint32_t index);
  // The current chunk of a stage, in device memory: from the tape, from pinned memory, or an expert's.
  Range take_chunk(uint32_t index);
  // Waits for the current chunk on the tape.
  uint8_t* take_from_tape(uint32_t index);
  // The pass thread has waited for the disk since `start`, for bytes of the stage.
  void count_wait(uint32_t index, Trace::Time start);
  // To device memory, for the ops that are enqueued from now on.
  void copy_chunk(uint32_t index, Range destination, const uint8_t* source, Event* copied);
  uint64_t busy_nanoseconds() { return device_->busy_nanoseconds(compute_) + (processor_ ? processor_->busy_nanoseconds() : 0); }
  // The oldest chunk leaves the tape once what its event was recorded behind has run.
  void leave_tape();
  Event* next_chunk_event() { return chunk_events_[next_sequence_ % Tape::kSlots]; }
  // Waits for the compute stream, for the sake of the stage.
  void wait_for_compute(uint32_t index, Event* event);
  void finish_chunk(uint32_t index);
  void finish_stage(uint32_t index);
  // runtime_blocks.cc
  void run_stage(uint32_t index, const PassRequest& request, uint32_t tokens);
  void check_room_for_blocks(uint32_t index) const;
  Range use_chunk(uint32_t index);
  void leave_chunk(uint32_t index);
  uint32_t block_rows(uint32_t tokens) const;
  bool pass_wide(Register name) const;
  // runtime_processor.cc
  bool runs_on_processor(const Stage& stage, uint32_t tokens) const;
  void run_on_processor(uint32_t index, const PassRequest& request, uint32_t tokens);
  void end_on_processor();
  void exchange_hidden(uint32_t tokens, bool to_processor);
  Range take_chunk_there(uint32_t index);
  void finish_chunk_there();
  void leave_tape_from_processor();
  // runtime_steps.cc
  void run_steps(uint32_t index, const PassRequest& request, uint32_t tokens);
  void run_matmul(uint32_t index, const MatmulStep& step, uint32_t tokens);
  uint32_t pass_loaded_rows(const Stage& stage, uint32_t row, uint32_t rows);
  void launch_rows(const Stage& stage, const MatmulStep& step, uint32_t row_begin, uint32_t row_end, Range weight, uint32_t tokens);
  void launch_adapter(const Matrix& matrix, const Adapter& adapter, const MatmulStep& step, uint32_t tokens);
  void run(const Stage& stage, const NormStep& step, uint32_t tokens);
  void run(const RopeStep& step, uint32_t tokens);
  void run(const ActivationStep& step, uint32_t tokens);
  void run(const ScaleTokensStep& step, uint32_t tokens);
  void run(const SoftCapStep& step, uint32_t tokens);
  // runtime_kv_cache.cc
  void reserve_kv_cache();
  void set_kv_cache(std::span<const uint8_t> pages, uint32_t layers);
  void commit_pages(uint32_t layer, std::span<const uint8_t> pages);
  void discard_pages(uint32_t layer, std::span<const uint8_t> pages);
  Range pages_of_layer(uint32_t layer, uint64_t first, uint64_t count) const;
  void begin_spilled(const PassRequest& request);
  void end_spilled();
  void abort_spilled();
  struct SegmentTokens {
    KvTokens kv;
    uint32_t row;  // of the first of them in the block
    Range pages;   // of their segment, on the device
  };
  std::vector<SegmentTokens> tokens_of_block(const PassRequest& request, uint32_t first, uint32_t rows) const;
  // runtime_attention.cc
  void run_attention(uint32_t index, const AttentionStep& step, const PassRequest& request);
  AttentionOp attention_op(const Stage& stage, const AttentionStep& step) const;
  void set_cache(AttentionOp& op, Range cache) const;
  void run_in_parts(uint32_t index, AttentionOp op);
  // runtime_experts.cc
  void route(uint32_t index, const RouteStep& step, uint32_t tokens);
  void run_experts(uint32_t index, const RouteStep& step, const PassRequest& request);

  uint32_t width(Register name) const { return description_.register_widths[static_cast<size_t>(name)]; }
  // Of the tokens of the block that is running.
  Range registers(Register name) const;
  // From the register's first token's float `offset` on.
  Range registers(Register name, uint64_t offset) const;
  Range vector(const Stage& stage, uint32_t index) const {
    if (index == kNone) return {};
    return on_processor_ ? stage.vectors[index].on_processor : stage.vectors[index].memory;
  }
  void launch(const Op& op) {
    enqueue(op);
    multiplied_ = {};
  }
  // Where the stage runs.
  void enqueue(const Op& op) {
    if (on_processor_) {
      processor_->device().launch(processor_->stream(), {&op, 1});
    } else {
      device_->launch(compute_, {&op, 1});
    }
  }

  RuntimeDescription description_;
  std::unique_ptr<Trace> trace_;
  std::unique_ptr<Device> device_;
  bool unified_;
  bool usable_ = true;            // false after a change of what is held that failed half-way
  std::vector<WeightFile> files_;
  std::vector<Buffer*> buffers_;  // everything from device_->alloc and alias_host
  std::vector<void*> pinned_;     // everything from device_->alloc_pinned
  uint8_t* ring_memory_ = nullptr;
  Buffer* ring_alias_ = nullptr;  // on unified devices, and for the processor
  std::unique_ptr<Slots> slots_;  // on devices that are not unified
  std::unique_ptr<Processor> processor_;  // where stages are placed there
  bool on_processor_ = false;     // the stage that runs is there
  bool took_from_tape_ = false;   // its current chunk
  ReadMeter meter_;
  Tape tape_;
  std::unique_ptr<Decoders> decoders_;  // null without compressed chunks
  std::vector<Decoders::Work> encoded_ = std::vector<Decoders::Work>(Tape::kSlots);  // being read, by sequence; the reader's
  Stream* compute_ = nullptr;
  Stream* copies_ = nullptr;
  std::vector<Event*> chunk_events_;  // by sequence: behind the last op on what is on the tape, or behind its copy to the device
  Event* copied_ = nullptr;       // behind the copy of a chunk that is not on the tape
  Event* finished_ = nullptr;
  Event* block_events_[2] = {};   // where passes are long, their thread stays at most two blocks ahead, so that an abort is prompt
  uint64_t blocks_run_ = 0;
  uint32_t tokens_ = 0;            // that a pass may have
  Buffer* register_memory_ = nullptr;
  uint64_t register_bytes_ = 0;    // of the address space
  Range registers_[kRegisterCount];
  Buffer* logits_ = nullptr;      // an alias of the caller's memory, or where logits are before their download
  uint64_t logits_bytes_ = 0;
  std::vector<Range> kv_cache_;   // of each layer, by page
  std::vector<uint8_t> kv_pages_;  // a flag for each page: in use
  std::vector<uint8_t> spilled_;   // a flag for each layer: its cache is elsewhere
  std::unique_ptr<KvSpill> spill_;
  bool spilling_ = false;         // the pass that runs uses spilled layers
  std::vector<Range> cosines_, sines_;
  Range pages_;                   // page tables of the segments of a pass
  uint32_t table_tokens_ = 0;      // for which the next one, and the tables of routing, have room
  uint8_t* tables_host_ = nullptr;  // pinned source of cosines, sines and page tables
  uint8_t* gather_host_ = nullptr;
  Buffer* gather_buffer_ = nullptr;
  std::unique_ptr<Reader> gather_reader_;
  uint32_t permuted_columns_ = 0, adapter_rank_ = 0;
  uint32_t attention_state_width_ = 0;
  Range attention_state_;         // [tokens, heads, attention_state_floats]: between parts of a layer's cache, where these are
  Range permuted_;                // [tokens, columns]: input of a matrix with a column order
  Range adapted_;                 // [tokens, rank]

  // Routing, of one stage at a time.
  Router router_;
  std::unique_ptr<Experts> experts_;
  uint32_t routed_experts_ = 0, routes_per_token_ = 0, router_width_ = 0;  // at most; 0: nothing is routed
  float* router_logits_ = nullptr;  // [tokens, router_width], pinned; null on a unified device
  uint8_t* routes_host_ = nullptr;  // the next two, pinned
  uint32_t* rows_host_ = nullptr;   // tokens of each expert, [tokens * per_token]
  float* weights_host_ = nullptr;
  Buffer* routes_ = nullptr;
  Range rows_, weights_;            // the same for ops
  std::vector<uint32_t> arriving_;  // stages of chosen experts that are not in memory yet
  const RouteStep* route_ = nullptr;  // of the stage that is running, once its experts are chosen

  // The chunk that the pass thread is consuming.
  uint64_t next_sequence_ = 0;   // to be given back
  uint64_t taken_sequence_ = 0;  // to be waited for
  size_t chunk_index_ = 0;
  size_t piece_index_ = 0;
  std::vector<Range> arrived_;   // chunks of the stage that is running, for its later blocks
  size_t staying_ = kNone;       // the first chunk of that stage that is in the ring until the last block; kNone: none yet
  TokenBlock block_;
  Range chunk_{};
  uint32_t permuted_group_ = kNone;  // of the running product: whose input is in permuted_
  PassResult result_;
  // The input of the latest op, if that was a product.
  struct Multiplied {
    const Buffer* buffer = nullptr;
    uint64_t offset = 0;
    uint32_t stride = 0, columns = 0, tokens = 0;

    bool operator==(const Multiplied&) const = default;
  };
  Multiplied multiplied_;
  bool many_tokens_ = false;  // MatmulOp::many_tokens of the stage that runs

  // The reader's: what the first pass after a reset reads, and every later one, and where it is.
  std::vector<uint32_t> first_pass_, cycle_;
  Populator populator_;
  uint64_t position_ = 0;
  size_t reader_chunk_ = 0;
  std::unique_ptr<Reader> reader_;
  std::string reader_reason_;
  bool uring_ = true;
  std::atomic<bool> reader_inside_ = false;
  std::atomic<uint64_t> read_cpu_nanoseconds_ = 0;

  std::mutex pass_mutex_;
  std::condition_variable pass_ready_;
  bool stop_ = false;
  struct Pass {
    PassRequest request;
    std::function<void(PassResult, std::exception_ptr)> done;
  };
  std::deque<Pass> passes_;      // the first one runs
  // What `done` of the pass before is still to be told, with its result or error.
  std::function<void()> report_;
  PassResult pass_sums_;
  int64_t chosen_ = -1;          // by the pass before

  std::mutex release_mutex_;
  std::condition_variable release_changed_;
  uint64_t recorded_ = 0;  // chunks whose event has been recorded
  uint64_t released_ = 0;

  std::thread pass_thread_;
  std::thread release_thread_;
};

}  // namespace layerstream
