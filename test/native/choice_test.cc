// Greedy choice, and passes that are enqueued before the choice that they run on is known.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <functional>
#include <limits>
#include <random>

#include "../../native/stream/first_maximum.h"
#include "../../native/stream/top_candidates.h"
#include "loaded_model.h"
#include "synthetic_model.h"

using namespace synthetic;

namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr uint32_t kPromptLength = 5;
constexpr uint32_t kSteps = 12;

void test_first_maximum() {
  std::mt19937 random(3);
  for (int round = 0; round < 3000; ++round) {
    std::vector<float> values(1 + random() % (round % 10 == 0 ? 5000 : 70));
    // Few different values, so that the greatest is there more than once.
    for (float& value : values) value = static_cast<float>(random() % 50) - (round % 3 == 0 ? 100.0f : 25.0f);
    if (round % 5 == 0) values[random() % values.size()] = -kInfinity;
    const auto expected = std::max_element(values.begin(), values.end()) - values.begin();
    if (std::isfinite(values[expected])) check(first_maximum(values) == expected, "the first of the greatest");
    values[random() % values.size()] = round % 2 == 0 ? NAN : kInfinity;
    check(first_maximum(values) == -1, "NaN or infinity");
  }
  check(first_maximum(std::vector<float>(40, -kInfinity)) == -1, "no finite value");
  check(first_maximum({}) == -1, "nothing");
}

void test_top_candidates() {
  std::mt19937 random(4);
  for (int round = 0; round < 2000; ++round) {
    std::vector<float> values(1 + random() % 3000);
    const uint32_t different = 1 + random() % 4000;
    for (float& value : values) value = round % 7 == 0 && random() % 2 == 0 ? -kInfinity : static_cast<float>(random() % different);
    const size_t count = 1 + random() % (round % 3 == 0 ? values.size() : std::min<size_t>(values.size(), 20));
    std::vector<float> ordered = values;
    std::sort(ordered.begin(), ordered.end(), std::greater<>());
    std::vector<uint32_t> indices(values.size());
    indices.resize(top_candidates(values, count, indices));
    check(std::is_sorted(indices.begin(), indices.end()) && std::ranges::adjacent_find(indices) == indices.end(), "ascending");
    for (uint32_t index = 0; index < values.size(); ++index) {
      if (values[index] < ordered[count - 1]) continue;
      check(std::ranges::binary_search(indices, index), "one of the greatest is missing");
    }
    if (different > 3000 && values.size() > 2000 && count <= 10 && round % 7 != 0) check(indices.size() < 100, "too many");
  }
}

PassRequest choosing(std::vector<uint32_t> tokens, uint32_t position, std::vector<float>& logits) {
  PassRequest request = make_request(std::move(tokens), position, 0);
  request.logits = logits.data();
  request.choose = true;
  return request;
}

PassRequest following(uint32_t position, std::vector<float>& logits, std::vector<uint32_t> ends = {}) {
  PassRequest request = choosing({0}, position, logits);
  request.tokens.clear();
  request.follows = true;
  request.ends = std::move(ends);
  return request;
}

std::future<PassResult> enqueue(Runtime& runtime, PassRequest request) {
  auto promise = std::make_shared<std::promise<PassResult>>();
  runtime.run_pass(std::move(request), [promise](PassResult result, std::exception_ptr error) {
    if (error) promise->set_exception(error);
    else promise->set_value(result);
  });
  return promise->get_future();
}

const std::vector<uint32_t> kPrompt = {3, 500, 17, 42, 99};

// The prompt's choice and those of the passes after it, each begun when its token is known.
std::vector<int64_t> one_after_the_other(Loaded& model) {
  std::vector<float> logits(kVocab);
  std::vector<int64_t> tokens = {model.player.run(choosing(kPrompt, 0, logits)).token};
  for (uint32_t step = 0; step < kSteps; ++step) {
    tokens.push_back(model.player.run(choosing({static_cast<uint32_t>(tokens.back())}, kPromptLength + step, logits)).token);
    check(tokens.back() == first_maximum(logits), "the choice is of the logits");
  }
  return tokens;
}

void test_following(Loaded& model, const std::vector<int64_t>& expected) {
  std::vector<float> logits(kVocab);
  std::future<PassResult> next = model.player.start(choosing(kPrompt, 0, logits));
  for (uint32_t step = 0; step < kSteps; ++step) {
    // Behind a pass that runs, and behind one that has ended.
    if (step % 3 == 2) next.wait();
    std::future<PassResult> after = enqueue(model.runtime, following(kPromptLength + step, logits));
    check(next.get().token == expected[step], "token " + std::to_string(step));
    next = std::move(after);
  }
  check(next.get().token == expected[kSteps], "the last token");
}

void test_ends(Loaded& model, const std::vector<int64_t>& expected) {
  std::vector<float> logits(kVocab);
  std::future<PassResult> first = model.player.start(choosing(kPrompt, 0, logits));
  const auto end = static_cast<uint32_t>(expected[0]);
  const PassResult ended = enqueue(model.runtime, following(kPromptLength, logits, {end + 1, end})).get();
  check(first.get().token == end && !ended.ran && ended.token == -1, "a choice that ends");
  check(!enqueue(model.runtime, following(kPromptLength, logits)).get().ran, "nothing to follow");
  model.player.run(make_request({1}, 0, 1));
  check(!enqueue(model.runtime, following(1, logits)).get().ran, "behind a pass that did not choose");
}

void test_refused(Loaded& model) {
  std::vector<float> logits(kVocab);
  // The first one may have ended before the third is asked for: then both others may be enqueued.
  bool refused = false;
  for (int round = 0; round < 200 && !refused; ++round) {
    std::future<PassResult> first = model.player.start(choosing(kPrompt, 0, logits));
    std::future<PassResult> second = enqueue(model.runtime, following(kPromptLength, logits));
    std::future<PassResult> third;
    const Failure failure = failure_of([&] { third = enqueue(model.runtime, following(kPromptLength + 1, logits)); });
    refused = failure.code == "INTERNAL";
    first.get();
    second.get();
    if (third.valid()) third.get();
  }
  check(refused, "two passes that follow");
}

void test_abort(Loaded& model, const std::vector<int64_t>& expected) {
  std::vector<float> logits(kVocab);
  for (int round = 0; round < 30; ++round) {
    std::future<PassResult> first = model.player.start(choosing(kPrompt, 0, logits));
    std::future<PassResult> second = enqueue(model.runtime, following(kPromptLength, logits));
    std::this_thread::sleep_for(std::chrono::microseconds(round * 20));
    model.runtime.cancel();
    bool ran = false;
    const Failure failure = failure_of([&] { ran = second.get().ran; });
    check(failure.code.empty() || failure.code == "ABORTED", failure.message);
    const Failure failure_before = failure_of([&] { first.get(); });
    check(failure_before.code.empty() || (failure_before.code == "ABORTED" && !ran), "behind an abort");
    model.player.recover();
  }
  check(one_after_the_other(model) == expected, "other tokens after aborts");
}

}  // namespace

int main() {
  test_first_maximum();
  test_top_candidates();
  const TemporaryDirectory directory;
  for (const char* device : {"cpu", "cpu-discrete"}) {
    RuntimeDescription description = write_model(directory.path(), false);
    description.device = device;
    for (Stage& stage : description.stages) hold(description, stage, true);
    give_ring(description, 4 * largest_chunk(description));
    Loaded model(description);
    const std::vector<int64_t> expected = one_after_the_other(model);
    check(std::count(expected.begin(), expected.end(), expected[0]) < kSteps, "tokens differ");
    test_following(model, expected);
    test_ends(model, expected);
    test_refused(model);
    test_abort(model, expected);
    test_following(model, expected);
  }
  printf("choice_test: %d checks passed\n", checks.load());
}
