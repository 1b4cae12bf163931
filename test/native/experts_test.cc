// Models with experts, and every kind of step: right against float64, the same bits wherever weights live, experts read
// only when chosen, and what happens when those reads fail or are aborted.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <string>

#include "expert_models.h"
#include "loaded_model.h"
#include "reference_walk.h"

using namespace synthetic;
namespace filesystem = std::filesystem;

namespace {

const std::vector<uint32_t> kPrompt = {3, 200, 17, 17, 0, 108, 42, 150, 99, 1, 77, 17, 54, 2, 199};
const std::vector<uint32_t> kMore = {8, 8, 8, 100, 7, 63, 31, 180, 5};
constexpr uint32_t kDecoded = 3;

std::vector<RopeTable> ropes_of(const RuntimeDescription& description) {
  std::vector<RopeTable> ropes;
  for (const uint32_t dim : description.rope_dims) {
    RopeTable& rope = ropes.emplace_back();
    rope.attention_factor = 1.25f;
    for (uint32_t i = 0; i < dim / 2; ++i) rope.inverse_frequencies.push_back(std::pow(1e3f, -2.0f * i / dim));
  }
  return ropes;
}

PassRequest request_of(const RuntimeDescription& description, const std::vector<uint32_t>& tokens, uint32_t first_position,
                       uint32_t first_page = 0) {
  PassRequest request = make_request(tokens, first_position, first_page);
  request.ropes = ropes_of(description);
  return request;
}

// A prompt of more tokens than there are experts, decoding, and a second prompt behind it.
template <typename Logits>
void converse(Logits&& logits) {
  logits(kPrompt, 0);
  auto position = static_cast<uint32_t>(kPrompt.size());
  for (uint32_t i = 0; i < kDecoded; ++i, ++position) logits({position * 11 % 200}, position);
  logits(kMore, position);
}

std::vector<float> conversation(Loaded& model, const RuntimeDescription& description) {
  std::vector<float> all;
  converse([&](const std::vector<uint32_t>& tokens, uint32_t position) {
    const std::vector<float> next = model.logits(request_of(description, tokens, position), true);
    all.insert(all.end(), next.begin(), next.end());
  });
  return all;
}

uint64_t bytes_of(const RuntimeDescription& description, size_t index) {
  Stage stage = description.stages[index];
  cut_into_chunks(stage, description.chunk_bytes);
  mark_held(stage);
  uint64_t bytes = 0;
  for (size_t chunk = 0; chunk < stage.chunks.size(); ++chunk) bytes += stage.chunks[chunk].length - stage.known(chunk);
  return bytes;
}

// What the passes of a conversation should come to.
struct Reference {
  std::vector<double> logits;
  std::vector<std::set<size_t>> chosen;  // of each pass
};

Reference reference_of(const RuntimeDescription& description) {
  Reference reference;
  ReferenceWalk walk(description);
  converse([&](const std::vector<uint32_t>& tokens, uint32_t) {
    const std::vector<double> next = walk.run(tokens, ropes_of(description));
    reference.logits.insert(reference.logits.end(), next.begin(), next.end());
    reference.chosen.push_back(walk.chosen);
  });
  return reference;
}

void give_rings(RuntimeDescription& description, uint64_t places, uint64_t rest = 0) {
  give_ring(description, places * largest_chunk(description) + rest);
  description.expert_ring_bytes = places * largest_chunk(description, true) + rest;
}

void test_reference(const RuntimeDescription& base, const Reference& expected) {
  double largest = 0;
  for (const double logit : expected.logits) largest = std::max(largest, std::abs(logit));
  for (const char* device : {"cpu", "cpu-discrete"}) {
    RuntimeDescription description = base;
    description.device = device;
    give_rings(description, 3);
    Loaded model(description);
    const std::vector<float> logits = conversation(model, description);
    check(logits.size() == expected.logits.size(), "logits");
    double error = 0;
    for (size_t i = 0; i < logits.size(); ++i) error = std::max(error, std::abs(logits[i] - expected.logits[i]));
    check(error <= 2e-5 * largest, "off by " + std::to_string(error / largest) + " of the largest logit");
  }
  std::set<size_t> all;
  for (const std::set<size_t>& pass : expected.chosen) all.insert(pass.begin(), pass.end());
  for (const size_t pass : {1, 2, 3}) check(expected.chosen[pass] != all, "a single token leaves experts out");
}

void test_same_bits(const RuntimeDescription& base, const Reference& reference) {
  std::vector<float> expected;
  std::mt19937 random(9);
  int number = 0;
  for (const char* device : {"cpu", "cpu-discrete"}) {
    for (const uint64_t chunk_bytes : {4096u, 10000u, 1u << 20}) {
      for (const int percent : {100, 0, 50, 20}) {
        RuntimeDescription description = base;
        description.device = device;
        description.chunk_bytes = chunk_bytes;
        description.threads = 1 + number % 3;
        for (Stage& stage : description.stages) hold(description, stage, draw_tier(random, percent, description.device == "cpu"));
        const uint64_t rests[] = {0, 4096, 100};
        const uint64_t places[] = {1, 2, 3, 20};
        give_rings(description, places[number % 4], rests[number % 3]);
        if (percent == 100 && description.device == "cpu") description.expert_ring_bytes = 0;
        ++number;
        Loaded model(description);
        const std::string name = description.device + ", chunks of " + std::to_string(chunk_bytes) + ", held " + std::to_string(percent);
        const std::vector<float> first = conversation(model, description);
        if (expected.empty()) expected = first;
        check(equal(first, expected), "other bits: " + name);

        std::set<size_t> chosen;
        for (const std::set<size_t>& pass : reference.chosen) chosen.insert(pass.begin(), pass.end());
        for (uint32_t stage = 0; stage < description.stages.size(); ++stage) {
          const bool reached = !description.stages[stage].routed() || chosen.contains(stage);
          check(model.runtime.loaded(stage) == (!held(description.stages[stage]) || reached), "held experts are loaded when chosen: " + name);
        }
        // Another conversation, whose bytes are counted: nothing held is read again, nothing is read that was not chosen.
        size_t pass = 0;
        std::vector<float> second;
        converse([&](const std::vector<uint32_t>& tokens, uint32_t position) {
          PassResult result;
          const std::vector<float> next = model.logits(request_of(description, tokens, position), true, &result);
          second.insert(second.end(), next.begin(), next.end());
          uint64_t bytes = streamed_bytes(description);
          for (const size_t stage : reference.chosen[pass]) bytes += held(description.stages[stage]) ? 0 : bytes_of(description, stage);
          check(result.bytes_taken == bytes, "bytes of pass " + std::to_string(pass) + ": " + name);
          ++pass;
        });
        check(equal(second, expected), "other bits the second time: " + name);
      }
    }
  }
}

// With everything else held, what the disk brings is the chosen experts and nothing more.
void test_reads(const RuntimeDescription& base, const Reference& reference) {
  for (const char* device : {"cpu", "cpu-discrete"}) {
    const bool unified = std::string(device) == "cpu";
    for (const Tier tier : {Tier::kDisk, Tier::kDevice, Tier::kHost}) {
      if (unified && tier == Tier::kHost) continue;
      RuntimeDescription description = base;
      description.device = device;
      description.chunk_bytes = 4096;
      for (Stage& stage : description.stages) hold(description, stage, stage.routed() ? tier : Tier::kDevice);
      give_rings(description, 3);
      Loaded model(description);
      std::set<size_t> loaded;
      size_t pass = 0;
      converse([&](const std::vector<uint32_t>& tokens, uint32_t position) {
        const uint64_t before = model.runtime.stats().reads.bytes_read;
        model.logits(request_of(description, tokens, position), false);
        const uint64_t brought = model.runtime.stats().reads.bytes_read - before;
        uint64_t bytes = 0;
        for (size_t stage = 0; stage < description.stages.size(); ++stage) {
          const bool read = description.stages[stage].routed() ? reference.chosen[pass].contains(stage) : pass == 0;
          if (!read || (held(description.stages[stage]) && !loaded.insert(stage).second)) continue;
          bytes += bytes_of(description, stage);
        }
        check(brought == bytes, "pass " + std::to_string(pass) + " read " + std::to_string(brought) + " bytes, not " + std::to_string(bytes));
        ++pass;
      });
      check(model.runtime.stats().reads.read_nanoseconds > 0, "time of reads");
    }
  }
}

// Sequences that choose the same experts and others, in one pass: each as if it were alone.
void test_segments(RuntimeDescription description) {
  give_rings(description, 2);
  Loaded model(description);
  const std::vector<std::vector<uint32_t>> sequences = {{9, 8, 7}, {100}, {9, 8, 7}, {9}};
  PassRequest together;
  std::vector<float> alone;
  uint32_t page = 0;
  for (const std::vector<uint32_t>& tokens : sequences) {
    const std::vector<float> logits = model.logits(request_of(description, tokens, 0, 7), false);
    alone.insert(alone.end(), logits.begin(), logits.end());
    const PassRequest request = request_of(description, tokens, 0, page++);
    together.tokens.insert(together.tokens.end(), tokens.begin(), tokens.end());
    together.segments.push_back(request.segments[0]);
    together.ropes = request.ropes;
  }
  check(equal(model.logits(together, false), alone), "sequences together");
}

void test_cancel(RuntimeDescription description, const std::vector<float>& expected) {
  std::mt19937 random(4);
  description.chunk_bytes = 4096;
  for (const char* device : {"cpu", "cpu-discrete"}) {
    description.device = device;
    for (Stage& stage : description.stages) hold(description, stage, draw_tier(random, 33, description.device == "cpu"));
    give_rings(description, 2);
    Loaded model(description);
    int aborted = 0;
    for (int round = 0; round < 40; ++round) {
      std::vector<float> logits(description.vocab_size);
      PassRequest request = request_of(description, kPrompt, 0);
      request.logits = logits.data();
      std::future<PassResult> pass = model.player.start(request);
      std::this_thread::sleep_for(std::chrono::microseconds(round * 100));
      model.runtime.cancel();
      const Failure failure = failure_of([&] { model.player.finish(std::move(pass)); });
      check(failure.code.empty() || failure.code == "ABORTED", failure.message);
      if (failure.code.empty()) model.player.recover();
      else ++aborted;
      if (round % 10 == 0) check(equal(conversation(model, description), expected), "other bits after an abort");
    }
    check(aborted > 0, "no abort came before the end of its pass");
    check(equal(conversation(model, description), expected), "other bits after many aborts");
  }
}

void test_truncated_file(const filesystem::path& directory, const RuntimeDescription& base, const std::vector<float>& expected) {
  const filesystem::path file = directory / "experts-1";
  const filesystem::path copy = directory / "copy";
  filesystem::copy_file(file, copy);
  const uint64_t size = filesystem::file_size(file);
  for (const char* device : {"cpu", "cpu-discrete"}) {
    for (const bool experts : {false, true}) {
      for (const uint64_t length : {size / 2 / kPageBytes * kPageBytes, size / 2 | 1, uint64_t{0}}) {
        RuntimeDescription description = base;
        description.device = device;
        description.chunk_bytes = 4096;
        for (Stage& stage : description.stages) hold(description, stage, experts && stage.routed());
        give_rings(description, 3);
        Loaded model(description);
        filesystem::resize_file(file, length);
        for (int attempt = 0; attempt < 2; ++attempt) {
          const Failure failure = failure_of([&] { model.logits(request_of(description, kPrompt, 0), false); });
          check(failure.code == "IO_ERROR" && failure.message.find(file.string()) != std::string::npos, "shrunk: " + failure.message);
        }
        // The same file, not another of that name: it is still open.
        {
          std::ifstream source(copy, std::ios::binary);
          std::ofstream(file, std::ios::binary | std::ios::in) << source.rdbuf();
        }
        const Failure changed = failure_of([&] { model.logits(request_of(description, kPrompt, 0), false); });
        check(changed.code == "STORE_CORRUPT" && changed.message.find(file.string()) != std::string::npos, "changed: " + changed.message);
        Loaded again(description);
        check(equal(conversation(again, description), expected), "after the file is whole again");
      }
    }
  }
}

void test_constructor_failures(const RuntimeDescription& base, const filesystem::path& directory) {
  const auto code = [](const RuntimeDescription& description) { return failure_of([&] { Runtime runtime(description); }).code; };
  for (const char* device : {"cpu", "cpu-discrete"}) {
    RuntimeDescription description = base;
    description.device = device;
    give_rings(description, 1);
    check(code(description).empty(), "rings of one chunk each");
    description.expert_ring_bytes -= 1;
    check(code(description) == "INTERNAL", "a chunk that does not fit in the expert ring");
    for (Stage& stage : description.stages) hold(description, stage, true);
    description.expert_ring_bytes = 0;
    check(code(description) == (description.device == "cpu" ? "" : "INTERNAL"), "held experts without a ring");
  }
  // A column order that points outside its matrix.
  RuntimeDescription description = base;
  give_rings(description, 1);
  for (size_t stage = 0; stage < description.stages.size(); ++stage) {
    for (Matrix& matrix : description.stages[stage].matrices) {
      if (!matrix.permuted()) continue;
      const filesystem::path path = description.files[description.stages[stage].file].path;
      const uint32_t wrong = matrix.columns;
      filesystem::copy_file(path, directory / "copy", filesystem::copy_options::overwrite_existing);
      std::fstream(path, std::ios::binary | std::ios::in | std::ios::out)
          .seekp(static_cast<std::streamoff>(matrix.column_order + sizeof wrong))
          .write(reinterpret_cast<const char*>(&wrong), sizeof wrong);
      const Failure failure = failure_of([&] { Runtime runtime(description); });
      check(failure.code == "STORE_INVALID" && failure.message.find(path.string()) != std::string::npos, "column order: " + failure.message);
      filesystem::copy_file(directory / "copy", path, filesystem::copy_options::overwrite_existing);
      return;
    }
  }
}

void test_model(const filesystem::path& directory, const RuntimeDescription& description, bool own_files) {
  const Reference reference = reference_of(description);
  test_reference(description, reference);
  test_same_bits(description, reference);
  test_reads(description, reference);
  test_segments(description);
  RuntimeDescription held = description;
  for (Stage& stage : held.stages) hold(held, stage, true);
  Loaded model(held);
  const std::vector<float> expected = conversation(model, held);
  test_cancel(description, expected);
  if (own_files) test_truncated_file(directory, description, expected);
  test_constructor_failures(description, directory);
}

}  // namespace

int main() {
  const TemporaryDirectory mixture, latent;
  test_model(mixture.path(), write_mixture(mixture.path()), true);
  test_model(latent.path(), write_latent(latent.path()), false);
  printf("experts_test: %d checks passed\n", checks.load());
}
