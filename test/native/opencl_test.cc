// What is OpenCL's own: memory that a driver grants in small parts only, and the cache of built kernels.
#include <cstdio>
#include <filesystem>
#include <fstream>

#include "../../native/opencl/device.h"
#include "../../native/platform/error.h"
#include "attention_cases.h"
#include "device_semantics.h"
#include "op_cases.h"
#include "temporary_directory.h"
#include "weight_cases.h"

using namespace layerstream;
using namespace layerstream::test;

namespace {

std::unique_ptr<Device> open(uint64_t max_allocation, const std::string& cache_directory) {
  std::string reason;
  std::unique_ptr<Device> device = opencl::open_device({1, cache_directory, max_allocation}, &reason);
  if (!device) {
    printf("opencl_test: skipped: %s\n", reason.c_str());
    exit(0);
  }
  return device;
}

size_t largest_range(const Problem& problem) {
  size_t largest = 0;
  for (const Op& op : problem.ops(nullptr)) {
    if (const auto* matmul = std::get_if<MatmulOp>(&op)) largest = std::max({largest, matmul->input.size, matmul->output.size});
    else largest = problem.memory.size() * sizeof(float);
  }
  return largest;
}

// Buffers of a few KiB: rows, registers and pages lie in several.
void test_small_buffers() {
  for (const uint64_t limit : {uint64_t{1} << 15, uint64_t{1} << 18, uint64_t{1} << 21}) {
    const std::unique_ptr<Device> device = open(limit, "");
    check_semantics(*device);
    size_t run = 0;
    for (const std::vector<Problem>& problems : {make_op_problems(), make_weight_problems(), make_attention_problems()}) {
      for (const Problem& problem : problems) {
        if (largest_range(problem) > limit) continue;
        verify(problem, launch(problem, problem.ops, *device), "opencl, in small buffers");
        run++;
      }
    }
    check(run > 20, "problems that fit in small buffers");
  }
}

// Attention of GPUs: more splits, and more tokens, than have room at once.
void test_many_splits() {
  std::string reason;
  const std::unique_ptr<Device> device = opencl::open_device({.as_gpu = true}, &reason);
  const AttentionCase long_cache{.heads = 512, .kv_heads = 2, .head_dim = 8, .value_dim = 16, .tokens = 2, .first_position = 4000,
                                 .page_positions = 64, .sinks = true};
  const AttentionCase many_tokens{.heads = 512, .kv_heads = 128, .head_dim = 8, .value_dim = 16, .tokens = 40, .first_position = 200,
                                  .page_positions = 64, .window = 150};
  for (const AttentionCase& each : {long_cache, many_tokens}) {
    const Problem problem = make_attention(each, KvFormat::kBF16);
    verify(problem, launch(problem, problem.ops, *device), "opencl as a GPU, in several launches");
  }
}

// More than there is: said with numbers, and nothing is left of the attempt.
void test_out_of_memory() {
  const std::unique_ptr<Device> device = open(0, "");
  const DeviceInfo info = device->info();
  const uint64_t before = device->free_bytes();
  check(before == info.memory_bytes, "nothing is allocated at first");
  Buffer* const small = device->alloc(4096);
  const uint64_t rest = device->free_bytes();
  for (const bool reserved : {false, true}) {
    std::string message;
    Buffer* const large = reserved ? device->reserve(info.memory_bytes) : nullptr;
    try {
      if (reserved) device->commit({large, 0, info.memory_bytes});
      else device->alloc(info.memory_bytes);
    } catch (const Error& error) {
      message = error.what();
    }
    check(message.find("bytes") != std::string::npos && message.find(info.kernels) != std::string::npos, "memory that there is not: " + message);
    if (large != nullptr) device->free(large);
    check(device->free_bytes() == rest, "memory after an allocation that failed");
  }
  const Problem problem = make_op_problems().front();
  verify(problem, launch(problem, problem.ops, *device), "opencl, after an allocation that failed");
  device->free(small);
  check(device->free_bytes() == before, "everything is given back");
}

size_t files_in(const std::string& directory) {
  size_t files = 0;
  for ([[maybe_unused]] const auto& entry : std::filesystem::directory_iterator(directory)) files++;
  return files;
}

// Built once; what is not what it should be is built again and replaced.
void test_cache() {
  const TemporaryDirectory temporary;
  const std::string directory = temporary.file("kernels");
  const std::vector<Problem> problems = make_op_problems();
  const auto run = [&] {
    const std::unique_ptr<Device> device = open(0, directory);
    verify(problems.front(), launch(problems.front(), problems.front().ops, *device), "opencl, with a cache");
  };
  run();
  const size_t files = files_in(directory);
  check(files == 1, "a built program is kept");
  const std::filesystem::path file = std::filesystem::directory_iterator(directory)->path();
  const auto content = [&] {
    std::ifstream stream(file, std::ios::binary);
    return std::string{std::istreambuf_iterator<char>(stream), std::istreambuf_iterator<char>()};
  };
  const std::string whole = content();
  const auto written = std::filesystem::last_write_time(file);
  run();
  check(files_in(directory) == files && std::filesystem::last_write_time(file) == written, "a kept program is used");
  std::string wrong_middle = whole;
  wrong_middle[whole.size() / 2] ^= 1;
  for (const std::string& damaged : {whole.substr(0, whole.size() / 2), wrong_middle, std::string(), std::string(100, 'x')}) {
    std::ofstream(file, std::ios::binary | std::ios::trunc) << damaged;
    run();
    check(content().size() > damaged.size() / 2 && content() != damaged, "a damaged file is replaced");
  }
  check(files_in(directory) == files, "nothing else is left");
  // A cache that cannot be written is none.
  std::filesystem::remove_all(directory);
  std::ofstream(directory) << "a file";
  run();
}

}  // namespace

int main() {
  test_small_buffers();
  test_many_splits();
  test_out_of_memory();
  test_cache();
  printf("opencl_test: %d checks passed\n", checks.load());
}
