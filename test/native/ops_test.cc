// Every op on the executors of every instruction set of the CPU, whose results may not depend on the number of threads.
// What devices do is conformance_test's part.
#include <cstdio>

#include "../../native/cpu/execute.h"
#include "attention_cases.h"
#include "op_cases.h"
#include "weight_cases.h"

using namespace layerstream;
using namespace layerstream::test;

namespace {

std::vector<float> execute(const Problem& problem, cpu::Executor& executor) {
  std::vector<float> memory = problem.memory;
  cpu::CpuBuffer buffer(memory.data());
  for (const Op& op : problem.ops(&buffer)) executor.execute(op);
  return memory;
}

}  // namespace

int main() {
  const cpu::KernelTable* const tables[] = {&cpu::scalar_kernels(), cpu::avx2_kernels(), cpu::avx512_kernels(), cpu::vnni_kernels(),
                                            cpu::neon_kernels()};
  for (const std::vector<Problem>& problems : {make_op_problems(), make_weight_problems(), make_attention_problems()}) {
    for (const cpu::KernelTable* kernels : tables) {
      if (kernels == nullptr) continue;
      cpu::Executor alone(*kernels, 1), together(*kernels, 3);
      for (const Problem& problem : problems) {
        const std::vector<float> result = execute(problem, alone);
        verify(problem, result, kernels->name);
        verify_same(problem, execute(problem, together), result, kernels->name, "the number of threads");
      }
    }
  }
  printf("ops_test: %zu words are right\n", verified_words);
  return 0;
}
