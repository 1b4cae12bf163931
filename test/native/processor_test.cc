// Stages that are placed on the processor beside a device with memory of its own, which here has the same kernels: the same bits
// as held on one device, wherever their weights are.
#include <cstdio>
#include <string>

#include "loaded_model.h"
#include "synthetic_model.h"

using namespace synthetic;

namespace {

const std::vector<uint32_t> kPrompt = {3, 500, 17, 17, 0, 508, 42, 250, 99, 1, 77};

// A prompt as one of few tokens and again as one of many, then single tokens, whose logits nobody wants of the first.
std::vector<float> conversation(Loaded& model) {
  std::vector<float> all = model.logits(make_request(kPrompt, 0, 0), true);
  PassRequest many = make_request(kPrompt, 0, 0);
  many.request_tokens = 100;
  for (const float value : model.logits(many, true)) all.push_back(value);
  model.player.run(make_request({5}, 11, 0));
  for (uint32_t position = 12; position < 15; ++position) {
    for (const float value : model.logits(make_request({position * 29}, position, 0), false)) all.push_back(value);
  }
  return all;
}

void place(RuntimeDescription& description, uint32_t percent, std::mt19937& random) {
  for (Stage& stage : description.stages) {
    stage.on_processor = Processor::takes(description, stage) && random() % 100 < percent;
  }
}

// For each chunk apart, but on the device nothing of stages that are placed on the processor.
std::vector<std::vector<uint8_t>> draw_tiers(RuntimeDescription description, uint32_t percent, std::mt19937& random) {
  std::vector<std::vector<uint8_t>> tiers;
  for (uint32_t index = 0; index < description.stages.size(); ++index) {
    Stage& stage = description.stages[index];
    cut_into_chunks(stage, description.chunk_bytes);
    const Tier whole = draw_tier(random, percent, false);
    std::vector<uint8_t>& flags = tiers.emplace_back();
    for (size_t chunk = 0; chunk < stage.chunks.size(); ++chunk) {
      Tier tier = gathered(description, index) ? whole : draw_tier(random, percent, false);
      if (stage.on_processor && tier == Tier::kDevice) tier = Tier::kHost;
      flags.push_back(static_cast<uint8_t>(tier));
    }
  }
  return tiers;
}

void test_same_bits(const RuntimeDescription& base, const std::vector<float>& expected, bool normed_carried) {
  std::mt19937 random(normed_carried ? 3 : 4);
  for (const uint64_t chunk_bytes : {10000u, 1u << 20}) {
    for (const uint32_t placed : {100, 50}) {
      RuntimeDescription description = base;
      description.device = "cpu-discrete";
      description.threads = 2;
      description.chunk_bytes = chunk_bytes;
      description.normed_carried = normed_carried;
      description.trace_spans = placed == 100 ? 1000 : 0;
      place(description, placed, random);
      give_ring(description, largest_chunk(description));
      Loaded model(description);
      for (const uint32_t percent : {0, 50, 100, 30, 90, 0}) {
        const std::vector<std::vector<uint8_t>> tiers = draw_tiers(description, percent, random);
        for (size_t stage = 0; stage < tiers.size(); ++stage) description.stages[stage].held_chunks = tiers[stage];
        const uint64_t chunk = largest_chunk(description);
        model.player.set_held(tiers, {.staging = (1 + random() % 3) * chunk, .slots = (1 + random() % 3) * chunk});
        const std::string name = "chunks of " + std::to_string(chunk_bytes) + ", placed " + std::to_string(placed) + ", held " + std::to_string(percent);
        for (int round = 0; round < 2; ++round) check(equal(conversation(model), expected), "other bits: " + name);
        PassResult result;
        model.logits(make_request({1}, 0, 0), false, &result);
        check(result.bytes_taken == streamed_bytes(description), "bytes of a pass: " + name);
      }
      for (int round = 0; round < 10; ++round) model.abort(make_request({9}, 0, 0), std::chrono::microseconds(round * round * 20));
      check(equal(conversation(model), expected), "other bits after aborts");
    }
  }
}

void test_refusals(const RuntimeDescription& base) {
  const auto code = [](const RuntimeDescription& description) { return failure_of([&] { Runtime runtime(description); }).code; };
  for (uint32_t index = 0; index < base.stages.size(); ++index) {
    RuntimeDescription description = base;
    description.device = "cpu-discrete";
    give_ring(description, 2 * largest_chunk(description));
    description.stages[index].on_processor = true;
    const bool taken = Processor::takes(description, description.stages[index]);
    check(code(description) == (taken ? "" : "INTERNAL"), "a stage that the processor takes, or does not");
    if (!taken) continue;
    hold(description, description.stages[index], Tier::kDevice);
    check(code(description) == "INTERNAL", "a stage of the processor that is held on the device");
  }
}

}  // namespace

int main() {
  const TemporaryDirectory directory, tied_directory;
  for (const bool tied : {false, true}) {
    const RuntimeDescription description = write_model((tied ? tied_directory : directory).path(), tied);
    RuntimeDescription held = description;
    for (Stage& stage : held.stages) hold(held, stage, true);
    Loaded model(held);
    const std::vector<float> expected = conversation(model);
    for (const bool normed_carried : {true, false}) test_same_bits(description, expected, normed_carried);
    test_refusals(description);
  }
  printf("processor_test: %d checks passed\n", checks.load());
}
