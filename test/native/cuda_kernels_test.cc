// What CUDA's kernels compute depends on neither the order in which a block's threads run nor the size of the device, and is
// right without tensor cores. (conformance_test.cc has every problem; these are some of them.)
#include <cstdio>
#include <cstdlib>

#include "../../native/cuda/device.h"
#include "attention_cases.h"
#include "check.h"
#include "op_cases.h"
#include "weight_cases.h"

using namespace layerstream;
using namespace layerstream::test;

namespace {

std::unique_ptr<Device> open(const char* driver) {
  setenv("LAYERSTREAM_CUDA_DRIVER", driver, 1);
  std::string reason;
  std::unique_ptr<Device> device = cuda::open_device({}, &reason);
  if (!device) printf("cuda_kernels_test: skipped: %s\n", reason.c_str());
  return device;
}

// One of every `step`, beginning with the `first`.
std::vector<Problem> some(const std::vector<Problem>& problems, size_t first, size_t step) {
  std::vector<Problem> result;
  for (size_t i = first; i < problems.size(); i += step) result.push_back(problems[i]);
  return result;
}

std::vector<std::vector<float>> results(const std::vector<Problem>& problems, const char* driver) {
  std::vector<std::vector<float>> results;
  const std::unique_ptr<Device> device = open(driver);
  check(device != nullptr, "a device of the tests' driver");
  for (const Problem& problem : problems) {
    for (const Op& op : problem.ops(nullptr)) check(device->supports(op), problem.name + " is supported");
    results.push_back(launch(problem, problem.ops, *device));
    verify(problem, results.back(), driver);
    if (problem.parts) verify_same(problem, launch(problem, problem.parts, *device), results.back(), driver, "how it is divided");
  }
  return results;
}

void check_same(const std::vector<Problem>& problems, const std::vector<std::vector<float>>& expected, const char* driver, const char* what) {
  const std::vector<std::vector<float>> actual = results(problems, driver);
  for (size_t i = 0; i < problems.size(); ++i) verify_same(problems[i], actual[i], expected[i], "cuda", what);
}

// Instrumented, each problem takes several times as long; conformance_test has them all.
#if defined(__SANITIZE_ADDRESS__)
constexpr size_t kOpStep = 11, kWeightStep = 11, kAttentionStep = 7;
#else
constexpr size_t kOpStep = 5, kWeightStep = 4, kAttentionStep = 3;
#endif

}  // namespace

int main() {
  if (!open("")) return 0;
  std::vector<Problem> problems = some(make_op_problems(), 0, kOpStep);
  for (const Problem& problem : some(make_weight_problems(), 1, kWeightStep)) problems.push_back(problem);
  for (const Problem& problem : some(make_attention_problems(), 0, kAttentionStep)) problems.push_back(problem);
  const std::vector<std::vector<float>> expected = results(problems, "multiprocessors=1");
  check_same(problems, expected, "order=1", "the order of threads");
  check_same(problems, expected, "multiprocessors=200", "the size of the device");
  results(problems, "capability=75");
  printf("cuda_kernels_test: %zu problems, %zu words and %d other checks\n", problems.size(), verified_words, checks.load());
  return 0;
}
