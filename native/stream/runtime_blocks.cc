// A pass of many tokens: each stage works on blocks of them, one after the other, while its weights stay where they are.
// So one trip of the tape serves a prompt of any length, and only `hidden` is as long as the prompt.
#include <algorithm>

#include "../platform/error.h"
#include "runtime.h"

namespace layerstream {

uint32_t Runtime::block_rows(uint32_t tokens) const {
  return description_.block_tokens == 0 ? tokens : std::min(tokens, description_.block_tokens);
}

// Whether the register has a row for each token of the pass, not only for those of a block.
bool Runtime::pass_wide(Register name) const {
  return name == Register::kHidden || name == Register::kLogits || (name == Register::kNormed && description_.normed_carried);
}

void Runtime::run_stage(uint32_t index, const PassRequest& request, uint32_t tokens) {
  if (runs_on_processor(description_.stages[index], tokens)) return run_on_processor(index, request, tokens);
  const uint32_t rows = block_rows(tokens);
  if (rows < tokens) check_room_for_blocks(index);
  staying_ = kNone;
  for (uint32_t first = 0; first < tokens; first += rows) {
    if (tape_.cancelled()) throw Error("ABORTED", "The pass was aborted.");
    const uint32_t count = std::min(rows, tokens - first);
    block_ = {first, count, first + count == tokens};
    route_ = nullptr;
    run_steps(index, request, count);
    if (route_ != nullptr) run_experts(index, *route_, request);
    // A pass of few tokens is short on a device with memory of its own, and nothing comes between its ops.
    if (!unified_ && !many_tokens_) continue;
    device_->record(block_events_[blocks_run_ % 2], compute_);
    if (++blocks_run_ > 1) wait_for_compute(index, block_events_[blocks_run_ % 2]);
  }
  block_ = {};
}

// Chunks that stay until the last block must fit together, or later ones would wait for ever: in the slots those that are not
// held; on unified devices in the staging ring all that pass through it from the first streamed one on.
void Runtime::check_room_for_blocks(uint32_t index) const {
  uint64_t bytes = 0, largest = 0;
  bool stays = false;
  for (const Chunk& chunk : description_.stages[index].chunks) {
    const uint64_t in_slot = chunk.held_on_device() ? 0 : chunk.length;
    const uint64_t staged = !unified_ ? in_slot : chunk.loaded ? 0 : chunk.staging_bytes(0, chunk.held());
    stays = stays || !chunk.held_on_device();
    if (stays) bytes += staged;
    largest = std::max(largest, staged);
  }
  const uint64_t room = unified_ ? description_.ring_bytes : description_.slot_bytes;
  // A chunk is never cut by the ring's end.
  if (bytes == 0 || bytes + largest <= room) return;
  throw Error("INTERNAL", "A " + std::string(unified_ ? "staging ring" : "ring of slots") + " of " + std::to_string(room) +
                              " bytes does not hold the " + std::to_string(bytes) + " bytes of stage " + std::to_string(index) +
                              " for blocks of tokens.");
}

// The current chunk of the stage: taken off the tape by the first block, and kept for the others.
Range Runtime::use_chunk(uint32_t index) {
  if (block_.first == 0) arrived_[chunk_index_] = take_chunk(index);
  return arrived_[chunk_index_];
}

// What was copied to a slot stays there until the last block. On unified devices, chunks leave the tape in order: with the first
// block as long as they are held, which are then where they stay, and with the last one from the first streamed one on.
void Runtime::leave_chunk(uint32_t index) {
  if (unified_ && block_.first == 0 && staying_ == kNone && !description_.stages[index].chunks[chunk_index_].held()) staying_ = chunk_index_;
  const bool stays = !unified_ || chunk_index_ >= staying_;
  if (stays ? block_.last : block_.first == 0) return finish_chunk(index);
  ++chunk_index_;
  piece_index_ = 0;
}

}  // namespace layerstream
