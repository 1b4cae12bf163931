// What every device must do, through Device alone: each cell of its table op x format against float64, and the meaning of
// streams, events, copies and memory. What a device cannot do is skipped with a line that says so.
#include <cstdio>
#include <map>

#include "../../native/backend/op_names.h"
#include "attention_cases.h"
#include "device_semantics.h"
#include "op_cases.h"
#include "weight_cases.h"

using namespace layerstream;
using namespace layerstream::test;

namespace {

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

}  // namespace

int main() {
  const std::vector<std::vector<Problem>> problems = {make_op_problems(), make_weight_problems(), make_attention_problems()};
  size_t devices = 0;
  for (const Backend& backend : backends()) {
    std::string reason;
    const std::unique_ptr<Device> device = backend.open({2}, &reason);
    if (!device) {
      printf("conformance_test: skipped %s: %s\n", backend.name, reason.c_str());
      continue;
    }
    devices++;
    check_semantics(*device);
    check_ops(problems, *device, backend.name);
  }
  check(devices >= 2, "cpu and cpu-discrete are devices everywhere");
  printf("conformance_test: %zu devices, %zu words and %d other checks\n", devices, verified_words, checks.load());
  return 0;
}
