// The pass: what the pass thread of a Runtime does with one request.
#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstring>
#include <utility>

#include "../platform/error.h"
#include "../platform/memory.h"
#include "first_maximum.h"
#include "runtime.h"
#include "step_ops.h"

namespace layerstream {

namespace {

using Clock = Trace::Clock;
// A shorter wait is the cost of looking.
constexpr std::chrono::microseconds kLeastWait{2};
// Up to so many tokens, products cost less a token at a time than it takes to unpack weights for many.
constexpr uint32_t kFewTokens = 16;

double seconds_since(Clock::time_point start) { return std::chrono::duration<double>(Clock::now() - start).count(); }

}  // namespace

// Gives a pass that follows another its token. Whether it is to run.
bool Runtime::take_choice(PassRequest& request) const {
  if (chosen_ < 0 || std::ranges::find(request.ends, static_cast<uint32_t>(chosen_)) != request.ends.end()) return false;
  const EmbeddingDescription& embedding = description_.embedding;
  const auto token = static_cast<uint32_t>(chosen_);
  if (token >= description_.stages[embedding.stage].matrices[embedding.matrix].rows) {
    throw Error("TOKEN_OUT_OF_RANGE", "The embedding has no row for token " + std::to_string(token) + ".");
  }
  request.tokens = {token};
  return true;
}

PassResult Runtime::execute(const PassRequest& request) {
  const Clock::time_point start = Clock::now();
  const uint64_t busy_before = busy_nanoseconds();
  result_ = {};
  block_ = {};
  if (slots_) slots_->clear();
  many_tokens_ = request.request_tokens > kFewTokens;
  auto tokens = static_cast<uint32_t>(request.tokens.size());
  allocate_token_tables();
  if (trace_) device_->label(compute_, kNone);
  upload_tables(request);
  begin_spilled(request);

  const uint32_t head = static_cast<uint32_t>(description_.stages.size()) - 1;
  const uint32_t embed = description_.embedding.stage;
  const auto held = [](const Chunk& chunk) { return chunk.held(); };
  if (embed != head && std::ranges::any_of(description_.stages[embed].chunks, held)) skip_stage(embed);
  gather_embeddings(request);

  for (uint32_t index = 0; index < description_.stages.size(); ++index) {
    if ((index == embed && index != head) || description_.stages[index].routed()) continue;
    if (tape_.cancelled()) throw Error("ABORTED", "The pass was aborted.");
    if (index == head) {
      if (request.logits == nullptr) {
        skip_stage(index);
        continue;
      }
      if (!request.all_logits) {
        tokens = keep_last_tokens(request);
        many_tokens_ = false;
      }
      registers_[static_cast<size_t>(Register::kLogits)] = logits_range(request, tokens);
    }
    run_stage(index, request, tokens);
    report();
  }

  if (request.logits != nullptr && !unified_) {
    const Range logits = registers(Register::kLogits);
    device_->download(compute_, request.logits, logits.at(0, uint64_t{tokens} * description_.vocab_size * sizeof(float)));
  }
  device_->record(finished_, compute_);
  wait_for_compute(head, finished_);

  end_spilled();
  check_files();
  if (request.choose) result_.token = first_maximum({request.logits, description_.vocab_size});
  result_.compute_seconds = static_cast<double>(busy_nanoseconds() - busy_before) * 1e-9;
  result_.wait_seconds = std::min(result_.wait_seconds, std::max(0.0, seconds_since(start) - result_.compute_seconds));
  return result_;
}

// What has been read of a file that was written to meanwhile may be anything.
void Runtime::check_files() const {
  for (const WeightFile& file : files_) {
    if (file.unchanged()) continue;
    throw Error("STORE_CORRUPT", file.path() + " has changed since the model was loaded. Run `layerstream verify` on the store, then load it again.");
  }
}

Range Runtime::logits_range(const PassRequest& request, uint32_t rows) {
  const uint64_t bytes = uint64_t{rows} * description_.vocab_size * sizeof(float);
  if (unified_ || bytes > logits_bytes_) {
    logits_bytes_ = 0;
    if (logits_ != nullptr) device_->free(std::exchange(logits_, nullptr));
    logits_ = unified_ ? device_->alias_host(request.logits, bytes) : device_->alloc(bytes);
    logits_bytes_ = bytes;
  }
  return {logits_, 0, bytes};
}

void Runtime::upload_tables(const PassRequest& request) {
  uint64_t used = 0;
  const auto send = [&](Range destination, uint64_t bytes) {
    if (bytes > 0) device_->upload(compute_, destination.at(0, bytes), tables_host_ + used);
    used += bytes;
  };
  auto* pages = reinterpret_cast<uint32_t*>(tables_host_);
  uint64_t page_count = 0;
  for (const Segment& segment : request.segments) {
    std::copy(segment.pages.begin(), segment.pages.end(), pages + page_count);
    page_count += segment.pages.size();
  }
  send(pages_, page_count * sizeof(uint32_t));

  for (size_t table = 0; table < request.ropes.size(); ++table) {
    const RopeTable& rope = request.ropes[table];
    const size_t half = rope.inverse_frequencies.size();
    const uint64_t bytes = request.tokens.size() * half * sizeof(float);
    auto* cosine = reinterpret_cast<float*>(tables_host_ + used);
    auto* sine = reinterpret_cast<float*>(tables_host_ + used + bytes);
    for (const Segment& segment : request.segments) {
      for (uint32_t token = 0; token < segment.tokens; ++token) {
        const auto position = static_cast<float>(segment.first_position + token);
        for (size_t i = 0; i < half; ++i) {
          // The angle is rounded to float32 first, as the reference does; so is every later step.
          const float angle = position * rope.inverse_frequencies[i];
          *cosine++ = static_cast<float>(std::cos(static_cast<double>(angle))) * rope.attention_factor;
          *sine++ = static_cast<float>(std::sin(static_cast<double>(angle))) * rope.attention_factor;
        }
      }
    }
    send(cosines_[table], bytes);
    send(sines_[table], bytes);
  }
}

// Rows for the token ids: from the device's memory where the matrix is held there and loaded, else from pinned memory, or with one
// read a row.
void Runtime::gather_embeddings(const PassRequest& request) {
  const Stage& stage = description_.stages[description_.embedding.stage];
  const Matrix& matrix = stage.matrices[description_.embedding.matrix];
  const auto embed = [&](Range row, uint32_t token) {
    const uint64_t row_bytes = uint64_t{width(Register::kHidden)} * sizeof(float);
    const Range output = registers(Register::kHidden).at(token * row_bytes, row_bytes);
    EmbedOp op = embed_op(description_);
    op.row = row;
    op.output = output;
    launch(op);
  };
  const auto count = static_cast<uint32_t>(request.tokens.size());
  if (trace_) device_->label(compute_, description_.embedding.stage);
  if (stage.resident()) {
    const Range memory{stage.memory, matrix.place - stage.extent_offset, matrix.rows * matrix.row_bytes};
    for (uint32_t token = 0; token < count; ++token) {
      embed(memory.at(request.tokens[token] * matrix.row_bytes, matrix.row_bytes), token);
    }
    return;
  }
  const uint64_t slot_bytes = align_up(matrix.row_bytes, kPageBytes) + kPageBytes;
  for (uint32_t first = 0; first < count; first += kGatherRows) {
    const uint32_t size = std::min(kGatherRows, count - first);
    const Clock::time_point start = Clock::now();
    try {
      for (uint32_t i = 0; i < size; ++i) {
        const uint64_t offset = matrix.offset + request.tokens[first + i] * matrix.row_bytes;
        const uint64_t begin = align_down(offset, kPageBytes);
        if (const uint8_t* row = embedding_on_host(request.tokens[first + i])) {
          std::memcpy(gather_host_ + i * slot_bytes + offset % kPageBytes, row, matrix.row_bytes);
          continue;
        }
        if (gather_reader_->full()) gather_reader_->wait();
        gather_reader_->submit({&files_[stage.file], begin, align_up(offset + matrix.row_bytes, kPageBytes) - begin,
                                gather_host_ + i * slot_bytes, 0, description_.embedding.stage});
      }
      while (!gather_reader_->idle()) gather_reader_->wait();
    } catch (...) {
      gather_reader_->drain();
      throw;
    }
    count_wait(description_.embedding.stage, start);
    if (!unified_) device_->upload(compute_, {gather_buffer_, 0, size * slot_bytes}, gather_host_);
    for (uint32_t i = 0; i < size; ++i) {
      const uint64_t offset = matrix.offset + request.tokens[first + i] * matrix.row_bytes;
      embed({gather_buffer_, i * slot_bytes + offset % kPageBytes, matrix.row_bytes}, first + i);
    }
    // The next batch, or the next pass, reads into the same memory.
    device_->record(finished_, compute_);
    device_->synchronize(finished_);
  }
}

// The token's row, where it is held in pinned memory and loaded; else null.
const uint8_t* Runtime::embedding_on_host(uint32_t token) const {
  const EmbeddingDescription& embedding = description_.embedding;
  const Stage& stage = description_.stages[embedding.stage];
  for (const Chunk& chunk : stage.chunks) {
    if (chunk.tier != Tier::kHost || !chunk.loaded) continue;
    for (const Piece& piece : chunk.pieces) {
      if (piece.matrix != embedding.matrix || token < piece.row_begin || token >= piece.row_end) continue;
      return chunk.host + piece.offset + (token - piece.row_begin) * stage.matrices[piece.matrix].row_bytes;
    }
  }
  return nullptr;
}

// Moves the last token of every segment to the front of `hidden`; the head needs no others.
uint32_t Runtime::keep_last_tokens(const PassRequest& request) {
  const uint64_t row_bytes = uint64_t{width(Register::kHidden)} * sizeof(float);
  const Range hidden = registers(Register::kHidden);
  uint32_t end = 0;
  uint32_t row = 0;
  for (const Segment& segment : request.segments) {
    end += segment.tokens;
    if (end - 1 != row) device_->copy(compute_, hidden.at(row * row_bytes, row_bytes), hidden.at((end - 1) * row_bytes, row_bytes));
    ++row;
  }
  return row;
}

Range Runtime::take_chunk(uint32_t index) {
  const Stage& stage = description_.stages[index];
  const Chunk& chunk = stage.chunks[chunk_index_];
  if (on_processor_) return take_chunk_there(index);
  const uint64_t known = stage.known(chunk_index_);
  if (stage.routed()) {
    const Clock::time_point start = Clock::now();
    if (tape_.cancelled()) throw Error("ABORTED", "The pass was aborted.");
    const Range range = experts_->take();
    count_wait(index, start);
    if (!unified_) result_.bytes_copied += chunk.length - known;
    if (!chunk.loaded) result_.bytes_taken += chunk.read_bytes(known);
    return range;
  }
  if (chunk.loaded) {
    const Range slot = slots_->take(chunk.length);
    copy_chunk(index, slot, chunk.host, copied_);
    return slot;
  }
  const uint8_t* host = take_from_tape(index);
  const Range held{stage.memory, chunk.offset - stage.extent_offset, chunk.length};
  if (unified_) return chunk.held() ? held : Range{ring_alias_, static_cast<uint64_t>(host - ring_memory_), chunk.length};
  const Range range = chunk.held_on_device() ? held : slots_->take(chunk.length);
  copy_chunk(index, range.at(known, chunk.length - known), chunk.tier == Tier::kHost ? chunk.host : host, next_chunk_event());
  leave_tape();
  return range;
}

uint8_t* Runtime::take_from_tape(uint32_t index) {
  const Stage& stage = description_.stages[index];
  const Clock::time_point start = Clock::now();
  uint8_t* const host = tape_.wait_ready(taken_sequence_++);
  count_wait(index, start);
  result_.bytes_taken += stage.chunks[chunk_index_].read_bytes(stage.known(chunk_index_));
  return host;
}

void Runtime::copy_chunk(uint32_t index, Range destination, const uint8_t* source, Event* copied) {
  if (trace_) device_->label(copies_, index);
  device_->upload(copies_, destination, source);
  result_.bytes_copied += destination.size;
  device_->record(copied, copies_);
  device_->wait(compute_, copied);
}

void Runtime::count_wait(uint32_t index, Trace::Time start) {
  const Trace::Time end = Clock::now();
  result_.wait_seconds += std::chrono::duration<double>(end - start).count();
  if (trace_ && end - start >= kLeastWait) trace_->record(Track::kPass, Activity::kDiskWait, index, start, end);
}

void Runtime::wait_for_compute(uint32_t index, Event* event) {
  if (!trace_) return device_->synchronize(event);
  const Trace::Time start = Clock::now();
  device_->synchronize(event);
  const Trace::Time end = Clock::now();
  if (end - start >= kLeastWait) trace_->record(Track::kPass, Activity::kComputeWait, index, start, end);
}

// The last op on the current chunk has been enqueued, of this block and all others.
void Runtime::finish_chunk(uint32_t index) {
  const Stage& stage = description_.stages[index];
  const Chunk& chunk = stage.chunks[chunk_index_];
  ++chunk_index_;
  piece_index_ = 0;
  if (stage.routed()) {
    experts_->finish();
  } else if (on_processor_) {
    finish_chunk_there();
  } else if (unified_) {
    device_->record(next_chunk_event(), compute_);
    leave_tape();
  } else if (!chunk.held_on_device()) {
    slots_->finish();
  }
}

void Runtime::leave_tape() {
  ++next_sequence_;
  std::lock_guard lock(release_mutex_);
  recorded_ = next_sequence_;
  release_changed_.notify_all();
}

void Runtime::finish_stage(uint32_t index) {
  chunk_index_ = piece_index_ = 0;
  for (Chunk& chunk : description_.stages[index].chunks) {
    chunk.loaded = chunk.held();
  }
}

void Runtime::skip_stage(uint32_t index) {
  piece_index_ = 0;
  const std::vector<Chunk>& chunks = description_.stages[index].chunks;
  for (chunk_index_ = 0; chunk_index_ < chunks.size();) {
    if (chunks[chunk_index_].loaded) {
      ++chunk_index_;
      continue;
    }
    if (unified_ || chunks[chunk_index_].held_on_device()) {
      take_chunk(index);
      finish_chunk(index);
    } else {
      take_from_tape(index);
      device_->record(next_chunk_event(), copies_);
      leave_tape();
      ++chunk_index_;
    }
  }
  finish_stage(index);
}

}  // namespace layerstream
