// Passes whose stages work on blocks of tokens: the same bits as all tokens at once, in one trip of the tape.
#include <cstdio>
#include <string>

#include "loaded_model.h"
#include "synthetic_model.h"

using namespace synthetic;

namespace {

const std::vector<uint32_t> kPrompt = {3, 500, 17, 17, 0, 508, 42, 250, 99, 1, 77, 8, 9};

// Two sequences in one pass, which blocks cut anywhere, then a token of one of them.
std::vector<float> conversation(Loaded& model, PassResult* result = nullptr) {
  PassRequest both = make_request(kPrompt, 0, 0);
  const PassRequest other = make_request({100, 200, 300}, 0, 4);
  both.tokens.insert(both.tokens.end(), other.tokens.begin(), other.tokens.end());
  both.segments.push_back(other.segments[0]);
  std::vector<float> all = model.logits(both, true);
  const std::vector<float> last = model.logits(both, false, result);
  const std::vector<float> next = model.logits(make_request({5}, 13, 0), false);
  all.insert(all.end(), last.begin(), last.end());
  all.insert(all.end(), next.begin(), next.end());
  return all;
}

// The largest that a stage streams, and a chunk: the end of the ring is left out where a chunk does not fit.
uint64_t least_ring(RuntimeDescription description, bool all) {
  uint64_t most = 0;
  for (uint32_t index = 0; index < description.stages.size(); ++index) {
    Stage& stage = description.stages[index];
    if (gathered(description, index)) continue;
    cut_into_chunks(stage, description.chunk_bytes);
    mark_held(stage);
    uint64_t bytes = 0, largest = 0;
    for (const Chunk& chunk : stage.chunks) {
      if (chunk.held() && !all) continue;
      bytes += chunk.length;
      largest = std::max(largest, chunk.length);
    }
    most = std::max(most, bytes + largest);
  }
  return most;
}

void hold_mask(RuntimeDescription& description, uint32_t mask) {
  for (uint32_t index = 0; index < description.stages.size(); ++index) hold(description, description.stages[index], (mask >> index & 1) != 0);
}

// The thread sanitizer takes minutes for all of them, and sees the same threads meet in each.
#if defined(__SANITIZE_THREAD__)
const std::vector<uint64_t> kChunkBytes = {10000};
const std::vector<uint32_t> kBlockTokens = {3, 16};
#else
const std::vector<uint64_t> kChunkBytes = {4096, 10000, 1 << 20};
const std::vector<uint32_t> kBlockTokens = {1, 3, 8, 16};
#endif

void test_same_bits(const RuntimeDescription& base, const std::vector<float>& expected) {
  for (const char* device : {"cpu", "cpu-discrete"}) {
    const bool discrete = std::string(device) != "cpu";
    for (const uint64_t chunk_bytes : kChunkBytes) {
      for (const uint32_t block_tokens : kBlockTokens) {
        for (const uint32_t mask : {0u, 0b01010101u, UINT32_MAX}) {
          RuntimeDescription description = base;
          description.device = device;
          description.threads = 2;
          description.chunk_bytes = chunk_bytes;
          description.block_tokens = block_tokens;
          // Nothing of this model uses the `normed` of the stage before.
          description.normed_carried = mask == 0;
          hold_mask(description, mask);
          give_ring(description, std::max(least_ring(description, discrete), largest_chunk(description)));
          const std::string name = std::string(device) + ", chunks of " + std::to_string(chunk_bytes) + ", blocks of " +
                                   std::to_string(block_tokens) + ", held " + std::to_string(mask);
          Loaded model(description);
          PassResult result;
          for (int round = 0; round < 2; ++round) check(equal(conversation(model, &result), expected), "other bits: " + name);
          check(result.bytes_taken == streamed_bytes(description), "more than one trip: " + name);
        }
      }
    }
  }
}

void test_small_ring(RuntimeDescription description, const std::vector<float>& expected) {
  description.chunk_bytes = 4096;
  description.block_tokens = 4;
  hold_mask(description, 0);
  give_ring(description, least_ring(description, true) / 2);
  Loaded model(description);
  std::vector<float> logits(kVocab);
  PassRequest request = make_request(kPrompt, 0, 0);
  request.logits = logits.data();
  const Failure failure = failure_of([&] { model.player.run(request); });
  check(failure.code == "INTERNAL" && failure.has("does not hold"), "a ring that blocks would wait in for ever: " + failure.message);
  // Block by block in passes of their own.
  for (uint32_t first = 0; first < kPrompt.size(); first += 4) {
    const auto end = kPrompt.begin() + std::min<size_t>(first + 4, kPrompt.size());
    logits = model.logits(make_request({kPrompt.begin() + first, end}, first, 0), false);
  }
  const auto last = expected.begin() + (kPrompt.size() - 1) * kVocab;
  check(equal(logits, {last, last + kVocab}), "passes of one block");
}

// An abort between blocks: the pass ends, and after a reset everything is as new.
void test_cancel(RuntimeDescription description, const std::vector<float>& expected) {
  description.chunk_bytes = 4096;
  description.block_tokens = 1;
  hold_mask(description, 0b00100010);
  give_ring(description, least_ring(description, false));
  Loaded model(description);
  for (int round = 0; round < 20; ++round) {
    model.abort(make_request(kPrompt, 0, 0), std::chrono::microseconds(round * round * 20));
  }
  check(equal(conversation(model), expected), "other bits after many aborts");
}

}  // namespace

int main() {
  const TemporaryDirectory directory;
  const RuntimeDescription description = write_model(directory.path(), false);
  RuntimeDescription whole = description;
  hold_mask(whole, UINT32_MAX);
  Loaded model(whole);
  const std::vector<float> expected = conversation(model);
  test_same_bits(description, expected);
  test_small_ring(description, expected);
  test_cancel(description, expected);
  const TemporaryDirectory tied_directory;
  const RuntimeDescription tied = write_model(tied_directory.path(), true);
  RuntimeDescription tied_whole = tied;
  hold_mask(tied_whole, UINT32_MAX);
  Loaded tied_model(tied_whole);
  test_same_bits(tied, conversation(tied_model));
  printf("blocks_test: %d checks passed\n", checks.load());
}
