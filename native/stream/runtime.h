// Runs passes of one model: takes chunks off the tape, hands ops to the device, gives the space back.
//
// Three kinds of threads meet here. Readers (piscina workers) call read_stage. The pass thread walks the stages of a
// pass and enqueues ops on the compute stream as chunks arrive. The release thread waits for the event behind a chunk's
// last op and frees its space. None of them allocates per stage.
#pragma once

#include <atomic>
#include <condition_variable>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "../backend/device.h"
#include "../io/file.h"
#include "../io/reader.h"
#include "model.h"
#include "tape.h"

namespace layerstream {

struct FileDescription {
  std::string path;
  uint64_t size = 0;
};

// Where rows for token ids come from.
struct EmbeddingDescription {
  uint32_t stage = 0, matrix = 0;
  float scale = 1.0f;
};

struct RuntimeDescription {
  std::string device = "cpu";
  uint32_t threads = 1;
  std::vector<FileDescription> files;
  std::vector<Plan> plans;
  std::vector<Stage> stages;  // in execution order; the embedding's stage first unless tied
  EmbeddingDescription embedding;
  uint32_t register_widths[kRegisterCount] = {};  // floats a token
  std::vector<uint32_t> rope_dims;                // rotary_dim of each rope table
  uint64_t chunk_bytes = 0;
  uint64_t ring_bytes = 0;
  uint32_t max_tokens = 0;                        // tokens in one pass
  uint32_t vocab_size = 0;
  uint32_t kv_layers = 0, kv_heads = 0, head_dim = 0;
  uint32_t page_count = 0, page_positions = 0;
};

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
  std::vector<Segment> segments;
  std::vector<RopeTable> ropes;
  bool all_logits = false;       // of every token, else of the last of each segment
  float* logits = nullptr;       // [rows, vocab_size], host memory; null: no logits, the head is not executed
};

struct PassResult {
  double elapsed_seconds = 0;
  double compute_seconds = 0;    // the compute stream was executing
  double wait_seconds = 0;       // the pass waited for the disk
  uint64_t bytes_taken = 0;      // bytes of chunks that this pass consumed from the tape
};

struct RuntimeStats {
  Tape::Counters tape;
  std::string kernels;
  std::string reader;            // "io_uring" or "pread"
  std::string reader_reason;     // why not io_uring
  std::string buffered_reason;   // empty: direct reads
};

// Embedding rows that are read at once.
constexpr uint32_t kGatherRows = 64;

class Runtime {
 public:
  // Throws Error with DEVICE_UNAVAILABLE, DEVICE_FAILED, IO_ERROR or STORE_CORRUPT.
  explicit Runtime(RuntimeDescription description);
  // Waits for a running pass, which it aborts. No reader may be inside.
  ~Runtime();

  // Reads one stage into the ring, or, if it is held and not yet loaded, into its own memory. Blocks.
  Tape::Status read_stage(uint64_t position, uint32_t stage);
  // Runs the pass on the pass thread; `done` is called there with the result or the error. One at a time.
  void run_pass(PassRequest request, std::function<void(PassResult, std::exception_ptr)> done);
  // Ends the running pass and all reads with ABORTED, as soon as possible.
  void cancel() { tape_.cancel(); }
  // After cancel or an error, when all readers have returned and no pass runs: ready for position 0 again.
  void reset();
  // Before a pass: false. The end of a pass sets it to true.
  void set_idle(bool idle) { tape_.set_idle(idle); }
  // Held, and read completely: no longer on the tape.
  bool loaded(uint32_t stage) const { return stage < description_.stages.size() && loaded_[stage]; }
  RuntimeStats stats();

 private:
  struct ReaderLease;

  Runtime(RuntimeDescription description, std::unique_ptr<Device> device);
  void allocate();
  void load_vectors();
  void pass_loop();
  void release_loop();
  PassResult execute(const PassRequest& request);
  void upload_tables(const PassRequest& request);
  void gather_embeddings(const PassRequest& request);
  void embed_row(const Matrix& matrix, Range row, uint32_t token);
  void run_stage(uint32_t index, const PassRequest& request, uint32_t tokens);
  void skip_stage(uint32_t index);
  void run(const Stage& stage, const NormStep& step, uint32_t tokens);
  void run(const Stage& stage, const RopeStep& step, uint32_t tokens);
  void run(const Stage& stage, const AttentionStep& step, const PassRequest& request);
  void run(const ActivationStep& step, uint32_t tokens);
  void run_matmul(uint32_t index, const MatmulStep& step, uint32_t tokens);
  void launch_rows(const Stage& stage, const MatmulStep& step, uint32_t row_begin, uint32_t row_end, Range weight,
                   uint32_t tokens);
  // The current chunk of a stage on the tape, waiting for it if it is not there yet.
  Range take_chunk(uint32_t index);
  void finish_chunk();
  void finish_stage(uint32_t index);
  Range logits_range(const PassRequest& request, uint32_t rows);
  bool on_tape(uint32_t stage) const { return !loaded_[stage]; }
  void launch(const Op& op) { device_->launch(compute_, {&op, 1}); }
  uint32_t keep_last_tokens(const PassRequest& request);

  RuntimeDescription description_;
  std::unique_ptr<Device> device_;
  bool unified_;
  std::vector<WeightFile> files_;
  std::vector<Buffer*> buffers_;  // everything from device_->alloc
  uint8_t* ring_memory_ = nullptr;
  Buffer* ring_slots_ = nullptr;  // alias of the ring, or its mirror in device memory
  Tape tape_;
  Stream* compute_ = nullptr;
  Stream* copies_ = nullptr;
  std::vector<Event*> chunk_events_;
  Event* copied_ = nullptr;
  Event* finished_ = nullptr;
  Event* stage_events_[2] = {};   // the pass thread stays at most two stages ahead, so that an abort is prompt
  Range registers_[kRegisterCount];
  Buffer* logits_ = nullptr;      // an alias of the caller's memory, or where logits are before their download
  uint64_t logits_bytes_ = 0;
  std::unique_ptr<std::atomic<bool>[]> loaded_;
  Range keys_, values_;           // KV cache: [layer][page][...]
  uint64_t layer_cache_bytes_ = 0;
  std::vector<Range> cosines_, sines_;
  Range pages_;                   // page tables of the segments of a pass
  uint8_t* tables_host_ = nullptr;  // pinned source of cosines, sines and page tables
  uint8_t* gather_host_ = nullptr;
  Buffer* gather_buffer_ = nullptr;
  std::unique_ptr<Reader> gather_reader_;

  // The chunk that the pass thread is consuming.
  uint64_t next_sequence_ = 0;
  size_t chunk_index_ = 0;
  size_t piece_index_ = 0;
  Range chunk_{};
  PassResult result_;

  std::mutex readers_mutex_;
  std::vector<std::unique_ptr<Reader>> readers_;
  std::string reader_reason_;
  bool uring_ = true;

  std::mutex pass_mutex_;
  std::condition_variable pass_ready_;
  bool stop_ = false;
  bool has_pass_ = false;
  PassRequest pass_;
  std::function<void(PassResult, std::exception_ptr)> done_;

  std::mutex release_mutex_;
  std::condition_variable release_changed_;
  uint64_t recorded_ = 0;  // chunks whose event has been recorded
  uint64_t released_ = 0;

  std::thread pass_thread_;
  std::thread release_thread_;
};

}  // namespace layerstream
