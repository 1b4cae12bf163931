// Layers of the KV cache in a file, or in pinned memory beside a device: the same bits as where passes use them, whatever moves
// between passes, and what happens when the file cannot be written.
#include <sys/resource.h>

#include <csignal>
#include <cstdio>
#include <string>

#include "../../native/stream/kv_parts.h"
#include "../../native/stream/pinned_pages.h"
#include "fake_device.h"
#include "loaded_model.h"
#include "long_context.h"
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

// Caches that come in several parts, whole or in blocks of tokens, and layers with windows.
// The thread sanitizer takes minutes for all of them, and sees the same threads meet in each.
#if defined(__SANITIZE_THREAD__)
const std::vector<KvFormat> kPartFormats = {KvFormat::kQ8};
const std::vector<uint32_t> kPartBlocks = {100};
#else
const std::vector<KvFormat> kPartFormats = {KvFormat::kF32, KvFormat::kBF16, KvFormat::kQ8};
const std::vector<uint32_t> kPartBlocks = {0, 100, 7};
#endif

void test_parts(const RuntimeDescription& base, const std::string& directory) {
  for (const KvFormat format : kPartFormats) {
    RuntimeDescription description = with_long_context(base);
    description.kv_format = format;
    const std::vector<uint8_t> pages(description.page_count, 1);
    give_ring(description, 4 << 20);
    Loaded in_memory(description);
    in_memory.runtime.set_working_memory(description.max_tokens, pages, kLayers);
    const std::vector<float> expected = long_conversation(in_memory, make_request);
    for (const uint32_t block_tokens : kPartBlocks) {
      for (const uint32_t part_pages : {kPartPages, 2 * kPartPages, 4 * kPartPages}) {
        RuntimeDescription parted = spilling(description, directory, block_tokens);
        parted.kv_part_pages = part_pages;
        Loaded model(parted);
        const uint32_t layers = part_pages == kPartPages ? 0 : 1;
        // At first without content.
        model.runtime.set_working_memory(1, std::vector<uint8_t>(description.page_count, 0), layers);
        model.runtime.set_working_memory(description.max_tokens, pages, layers);
        check(equal(long_conversation(model, make_request), expected), "other bits with parts of " + std::to_string(part_pages) + " pages");
      }
    }
  }
}

// Every position that the tokens see is in one part, in order; pages are read that were written before, and all that changes goes
// back before it is read again.
void test_walk() {
  constexpr uint32_t kPositions = 32, kWalkPages = 4;
  const std::vector<uint32_t> pages(40);
  for (const uint32_t window : {0u, 1u, 130u, 5000u}) {
    const std::vector<KvTokens> tokens = {{0, 1, 0, pages}, {0, 300, 0, pages}, {300, 84, 0, pages}, {384, 1, 384, pages}, {511, 130, 511, pages}};
    KvPartWalk walk({{3, 7, window}, {5, 9, 0}}, tokens, kPositions, kWalkPages);
    for (size_t layer = 0; layer < 2; ++layer) {
      for (size_t i = 0; i < tokens.size(); ++i) {
        AttentionOp op{};
        op.first_position = tokens[i].first_position;
        op.tokens = tokens[i].tokens;
        op.window = layer == 0 ? window : 0;
        for (uint32_t part = 0; part == 0 || !op.ends(); ++part) {
          const KvPartWork work = walk.current();
          check(work.layer == layer && work.tokens == i && walk.layer(work).stage == (layer == 0 ? 7u : 9u), "the order of parts");
          check(part == 0 || work.begin == op.part_end, "parts follow one another");
          op.part_begin = work.begin;
          op.part_end = work.end;
          check(op.begins() == (part == 0) && work.begin % kAttentionPartPositions == 0, "where parts begin");
          for (uint32_t page = 0; page < pages.size(); ++page) {
            const uint32_t first = page * kPositions, end = first + kPositions;
            const bool in_part = first >= work.begin && end <= work.end;
            const bool seen = end > op.begin_position() && first < op.first_position, changed = end > op.first_position && first < op.end_position();
            check((page >= work.reads.begin && page < work.reads.end) == (in_part && seen), "pages that are read");
            check((page >= work.writes.begin && page < work.writes.end) == (in_part && changed), "pages that go back");
          }
          walk.advance();
        }
      }
    }
    check(walk.done(), "parts end");
  }
  check(KvPartWalk({}, {{0, 1, 0, pages}}, kPositions, kWalkPages).done(), "no layers");
}

// Content stays where pages are kept, neighbours stay together, and what is given back is free again.
void test_pinned_pages() {
  constexpr uint32_t kCount = 24, kBlock = 5;
  const auto record = std::make_shared<layerstream::test::FakeRecord>();
  // The first that `keep` makes.
  auto device = std::make_unique<layerstream::test::FakeDevice>(layerstream::test::FakeOptions{.failing_allocation = 4}, record);
  auto here = std::make_unique<PinnedPages>(*device, kCount, kPageBytes, kBlock);
  PinnedPages& pages = *here;
  const auto holds = [&](const std::vector<uint32_t>& expected) {
    for (const uint32_t page : expected) {
      if (*pages.at(page) != page) return false;
    }
    return true;
  };
  pages.add(std::vector<PageRun>{{2, 9}, {12, 1}});
  for (uint32_t page = 2; page < 13; ++page) {
    if (page != 11) *pages.at(page) = static_cast<uint8_t>(page);
  }
  check(pages.together(2, 9) == kBlock && pages.together(7, 4) == 4 && pages.together(12, 1) == 1, "blocks of neighbours");
  std::vector<uint8_t> kept(kCount, 0);
  for (const uint32_t page : {3u, 4u, 6u, 7u, 8u, 9u, 10u, 23u}) kept[page] = 1;
  pages.keep(kept);
  check(holds({2, 3, 4, 5, 6, 7, 8, 9, 10}) && pages.together(2, 9) == kBlock, "without memory to move pages to, they stay");
  pages.keep(kept);
  check(holds({3, 4, 6, 7, 8, 9, 10}) && pages.together(3, 2) == 2 && pages.together(7, 4) == 4, "what is kept of blocks");
  pages.add(std::vector<PageRun>{{2, 9}});
  check(holds({3, 4, 6, 7, 8, 9, 10}), "what is added beside it");
  pages.keep(std::vector<uint8_t>(kCount, 0));
  check(pages.at(3) == nullptr && pages.at(10) == nullptr, "nothing is kept");
  pages.add(std::vector<PageRun>{{0, 1}});
  here.reset();
  device.reset();
  check(record->faults.empty(), "what was allocated is free");
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
  test_walk();
  test_pinned_pages();
  test_parts(description, spill);
  test_parts(discrete, "");
  test_unwritable(description, expected);
  test_full_disk(description, spill, expected);
  test_cancel(description, spill, expected);
  test_cancel(discrete, "", expected);
  test_refused(description, spill);
  printf("kv_spill_test: %d checks passed\n", checks.load());
}
