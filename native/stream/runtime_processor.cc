// Stages that are placed on the processor: in passes of few tokens, their weights are multiplied where they are.
#include "runtime.h"

namespace layerstream {

bool Runtime::runs_on_processor(const Stage& stage, uint32_t tokens) const {
  return processor_ && stage.on_processor && !many_tokens_ && tokens <= Processor::kTokens;
}

void Runtime::run_on_processor(uint32_t index, const PassRequest& request, uint32_t tokens) {
  exchange_hidden(tokens, true);
  device_->record(finished_, compute_);
  wait_for_compute(index, finished_);
  on_processor_ = true;
  multiplied_ = {};
  block_ = {0, tokens, true};
  run_steps(index, request, tokens);
  const Trace::Time start = Trace::Clock::now();
  if (processor_->finish()) leave_tape_from_processor();
  if (trace_) trace_->record(Track::kPass, Activity::kComputeWait, index, start, Trace::Clock::now());
  on_processor_ = false;
  multiplied_ = {};
  block_ = {};
  exchange_hidden(tokens, false);
}

// What stages leave to one another, of all tokens.
void Runtime::exchange_hidden(uint32_t tokens, bool to_processor) {
  for (const Register name : {Register::kHidden, Register::kNormed}) {
    if (name == Register::kNormed && !description_.normed_carried) continue;
    const Range range = registers_[static_cast<size_t>(name)].at(0, uint64_t{tokens} * width(name) * sizeof(float));
    if (to_processor) {
      device_->download(compute_, processor_->address(name), range);
    } else {
      device_->upload(compute_, range, processor_->address(name));
    }
  }
}

// After a failure: nothing uses the ring or the caller's memory any more.
void Runtime::end_on_processor() {
  on_processor_ = false;
  if (!processor_) return;
  try {
    processor_->finish();
  } catch (...) {
  }
}

// The current chunk, in pinned memory: of the host's tier, or of the ring.
Range Runtime::take_chunk_there(uint32_t index) {
  const Chunk& chunk = description_.stages[index].chunks[chunk_index_];
  took_from_tape_ = !chunk.loaded;
  // The ring may have no room for the next chunk before the one that is being multiplied has left it.
  if (took_from_tape_ && !tape_.is_ready(taken_sequence_) && processor_->finish()) leave_tape_from_processor();
  const uint8_t* ring = took_from_tape_ ? take_from_tape(index) : nullptr;
  if (chunk.tier == Tier::kHost) return {chunk.alias, 0, chunk.length};
  return {ring_alias_, static_cast<uint64_t>(ring - ring_memory_), chunk.length};
}

void Runtime::finish_chunk_there() {
  if (took_from_tape_ && processor_->finish_chunk()) leave_tape_from_processor();
}

void Runtime::leave_tape_from_processor() {
  device_->record(next_chunk_event(), copies_);
  leave_tape();
}

}  // namespace layerstream
