// What every device must do, through Device alone: each cell of its table op x format against float64, and the meaning of
// streams, events, copies and memory. What a device cannot do is skipped with a line that says so.
#include <cstdio>
#include <map>

#include "../../native/backend/measure.h"
#include "../../native/backend/op_names.h"
#include "attention_cases.h"
#include "device_semantics.h"
#include "op_cases.h"
#include "weight_cases.h"

using namespace layerstream;
using namespace layerstream::test;

namespace {

#if defined(__SANITIZE_ADDRESS__)
constexpr bool kSanitized = true;
#else
constexpr bool kSanitized = false;
#endif

bool supports_all(const Problem& problem, const Device& device) {
  for (const Op& op : problem.ops(nullptr)) {
    if (!device.supports(op)) return false;
  }
  return true;
}

struct Cell {
  size_t run = 0, skipped = 0;
};

// Cells are named as in messages: "matmul with 4bit weights".
std::map<std::string, Cell> run_problems(const std::vector<Problem>& problems, Device& device, const char* name) {
  std::map<std::string, Cell> cells;
  for (const Problem& problem : problems) {
    Cell& cell = cells[describe(problem.ops(nullptr)[0])];
    if (!supports_all(problem, device)) {
      cell.skipped++;
      continue;
    }
    cell.run++;
    const std::vector<float> result = launch(problem, problem.ops, device);
    verify(problem, result, name);
    if (problem.parts) verify_same(problem, launch(problem, problem.parts, device), result, name, "how rows and tokens are divided");
  }
  return cells;
}

void check_ops(const std::vector<std::vector<Problem>>& problems, Device& device, const char* name) {
  size_t cells = 0, empty = 0;
  for (const std::vector<Problem>& each : problems) {
    for (const auto& [cell, count] : run_problems(each, device, name)) {
      cells++;
      if (count.skipped == 0) continue;
      printf("conformance_test: %s: skipped %zu of %zu problems of %s: the device has no kernel\n", name, count.skipped,
             count.skipped + count.run, cell.c_str());
      if (count.run == 0) empty++;
    }
  }
  check(empty < cells, std::string(name) + " supports nothing");
  printf("conformance_test: %s: %zu of %zu cells of the table op x format\n", name, cells - empty, cells);
}

// An open device is what was listed, and measures what its plans are made from.
void check_info(Device& device, const DeviceInfo& listed) {
  const DeviceInfo info = device.info();
  const bool same = info.name == listed.name && info.kernels == listed.kernels && info.kind == listed.kind && info.driver == listed.driver &&
                    info.memory_bytes == listed.memory_bytes && info.unified == listed.unified;
  check(same, listed.name + " is what was listed");
  check(info.memory_bytes >= device.free_bytes() && (info.memory_bytes == 0) == (device.free_bytes() == 0), "free memory of " + info.name);
  check((measure_copy_rate(device, 0.01) > 0) != info.unified, "copies to " + info.name);
  check(measure_memory_rate(device, 0.01) > 0, "memory of " + info.name);
  if (info.memory_bytes == 0) return;
  const uint64_t before = device.free_bytes();
  Buffer* const buffer = device.alloc(uint64_t{8} << 20);
  check(device.free_bytes() < before, "allocated memory of " + info.name + " is not free");
  device.free(buffer);
}

void check_names() {
  for (const char* name : {"", "gpu", "cpu:", "cpu:x", "cpu:1x", "cpu:-1", ":0", "cpu:1", "opencl:99999", "cpu:99999999999"}) {
    check(code_of([&] { open_device(name, {}); }) == "DEVICE_UNAVAILABLE", std::string("a device called '") + name + "'");
  }
  check(open_device("cpu:0", {})->info().name == "cpu", "the first device by its index");
}

}  // namespace

int main() {
  const std::vector<std::vector<Problem>> problems = {make_op_problems(), make_weight_problems(), make_attention_problems()};
  check_names();
  size_t devices = 0;
  for (const Backend& backend : backends()) {
    for (const auto& [info, reason] : backend.list()) {
      if (!reason.empty()) {
        printf("conformance_test: skipped %s: %s\n", info.name.c_str(), reason.c_str());
        continue;
      }
      const std::unique_ptr<Device> device = open_device(info.name, {.threads = 2});
      check_info(*device, info);
      devices++;
      check_semantics(*device);
      // On the driver of the tests, HIP's kernels are CUDA's, which sanitizers have seen.
      if (kSanitized && backend.name == std::string("hip")) continue;
      check_ops(problems, *device, info.name.c_str());
      // The kernels that GPUs get, where there is none. Sanitizers do not see them.
      if (kSanitized || backend.name != std::string("opencl") || info.kind != DeviceKind::kProcessor) continue;
      const std::string name = info.name + " as a GPU";
      check_ops(problems, *open_device(info.name, {.threads = 2, .as_gpu = true}), name.c_str());
    }
  }
  check(devices >= 2, "cpu and cpu-discrete are devices everywhere");
  printf("conformance_test: %zu devices, %zu words and %d other checks\n", devices, verified_words, checks.load());
  return 0;
}
