// Layers of the KV cache in a file, or in pinned memory beside a device: the same bits as where passes use them, whatever moves
// between passes, and what happens when the file cannot be written.
#include <sys/resource.h>

#include <csignal>
#include <cstdio>
#include <string>

#include "loaded_model.h"
#include "synthetic_model.h"

using namespace synthetic;

namespace {

const std::vector<uint32_t> kPrompt = {3, 500, 17, 17, 0, 508, 42, 250, 99, 1, 77, 8, 9};
const std::vector<uint8_t> kAllPages(kPages, 1);

// `before_pass` is called before each of the passes: a prompt, another sequence, decoding of both in turn.
template <typename Function>
std::vector<float> conversation(Loaded& model, const Function& before_pass) {
  std::vector<float> all;
  const auto add = [&](const PassRequest& request, bool every) {
    before_pass();
    const std::vector<float> logits = model.logits(request, every);
    all.insert(all.end(), logits.begin(), logits.end());
  };
  add(make_request(kPrompt, 0, 0), true);
  add(make_request({100, 200, 300}, 0, 5), false);
  for (uint32_t position = 13; position < 18; ++position) {
    add(make_request({position * 29}, position, 0), false);
    add(make_request({position * 17, 4}, 3 + 2 * (position - 13), 5), false);
  }
  return all;
}

RuntimeDescription spilling(RuntimeDescription description, const std::string& directory, uint32_t block_tokens) {
  description.spill_directory = directory;
  description.block_tokens = block_tokens;
  give_ring(description, 4 << 20);
  return description;
}

// `directory`: of the file; devices with memory of their own need none.
void test_same_bits(const RuntimeDescription& base, const std::string& directory) {
  for (const KvFormat format : {KvFormat::kF32, KvFormat::kBF16, KvFormat::kQ8}) {
    RuntimeDescription plain = base;
    plain.kv_format = format;
    give_ring(plain, 4 << 20);
    Loaded in_memory(plain);
    const std::vector<float> expected = conversation(in_memory, [] {});
    for (const uint32_t block_tokens : {0u, 3u}) {
      for (uint32_t layers = 0; layers <= kLayers; ++layers) {
        Loaded model(spilling(plain, directory, block_tokens));
        model.runtime.set_working_memory(kMaxTokens, kAllPages, layers);
        check(equal(conversation(model, [] {}), expected), "other bits with layers in memory: " + std::to_string(layers));
      }
      // Layers move between every two passes.
      Loaded model(spilling(plain, directory, block_tokens));
      uint32_t pass = 0;
      const auto move = [&] { model.runtime.set_working_memory(kMaxTokens, kAllPages, pass++ * 7 % (kLayers + 1)); };
      check(equal(conversation(model, move), expected), "other bits while layers move");
      check(equal(conversation(model, move), expected), "other bits the second time");
    }
  }
}

void test_unwritable(const RuntimeDescription& base, const std::vector<float>& expected) {
  Loaded model(spilling(base, "/nonexistent/layerstream", 0));
  const Failure failure = failure_of([&] { model.runtime.set_working_memory(kMaxTokens, kAllPages, 1); });
  check(failure.code == "KV_SPILL_FAILED" && failure.has("/nonexistent/layerstream"), "no directory: " + failure.message);
  check(equal(conversation(model, [] {}), expected), "after a file that could not be made");
}

// A limit of the process stands for a full disk.
void test_full_disk(const RuntimeDescription& base, const std::string& directory, const std::vector<float>& expected) {
  std::signal(SIGXFSZ, SIG_IGN);
  rlimit unlimited{}, limited{};
  getrlimit(RLIMIT_FSIZE, &unlimited);
  limited = unlimited;
  Loaded model(spilling(base, directory, 0));
  check(equal(conversation(model, [] {}), expected), "before the disk is full");
  for (const uint64_t bytes : {uint64_t{0}, 3 * uint64_t{kPageBytes}, 20 * uint64_t{kPageBytes}}) {
    limited.rlim_cur = bytes;
    setrlimit(RLIMIT_FSIZE, &limited);
    const Failure failure = failure_of([&] {
      model.runtime.set_working_memory(kMaxTokens, kAllPages, 0);
      conversation(model, [] {});
    });
    setrlimit(RLIMIT_FSIZE, &unlimited);
    check(failure.code == "KV_SPILL_FAILED" && failure.has(directory), "a full disk: " + failure.message);
    check(equal(conversation(model, [] {}), expected), "after the disk was full");
    model.runtime.set_working_memory(kMaxTokens, kAllPages, kLayers);
    check(equal(conversation(model, [] {}), expected), "back in memory");
  }
}

void test_cancel(const RuntimeDescription& base, const std::string& directory, const std::vector<float>& expected) {
  Loaded model(spilling(base, directory, 1));
  model.runtime.set_working_memory(kMaxTokens, kAllPages, 0);
  for (int round = 0; round < 20; ++round) {
    model.abort(make_request(kPrompt, 0, 0), std::chrono::microseconds(round * round * 20));
  }
  check(equal(conversation(model, [] {}), expected), "other bits after many aborts");
}

void test_refused(const RuntimeDescription& base, const std::string& directory) {
  RuntimeDescription plain = base;
  give_ring(plain, 4 << 20);
  Loaded nowhere(plain);
  check(failure_of([&] { nowhere.runtime.set_working_memory(kMaxTokens, kAllPages, 1); }).code == "INTERNAL", "no directory is named");
  Loaded model(spilling(base, directory, 0));
  check(failure_of([&] { model.runtime.set_working_memory(kMaxTokens, kAllPages, kLayers + 1); }).code == "INTERNAL", "too many layers");
}

void test_runs() {
  check(page_runs({}).empty(), "no pages");
  check(page_runs({7, 3, 4, 5, 9, 5}) == std::vector<PageRun>{{3, 3}, {7, 1}, {9, 1}}, "runs of neighbours");
}

}  // namespace

int main() {
  test_runs();
  const TemporaryDirectory directory;
  const RuntimeDescription description = write_model(directory.path(), false);
  RuntimeDescription plain = description;
  give_ring(plain, 4 << 20);
  Loaded in_memory(plain);
  const std::vector<float> expected = conversation(in_memory, [] {});
  const std::string spill = directory.path().string();
  RuntimeDescription discrete = description;
  discrete.device = "cpu-discrete";
  test_same_bits(description, spill);
  test_same_bits(discrete, "");
  test_unwritable(description, expected);
  test_full_disk(description, spill, expected);
  test_cancel(description, spill, expected);
  test_cancel(discrete, "", expected);
  test_refused(description, spill);
  printf("kv_spill_test: %d checks passed\n", checks.load());
}
