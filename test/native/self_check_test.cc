// A device that computes as the CPU does passes with every op; one that executes something else is found out.
#include "../../native/backend/op_names.h"
#include "../../native/backend/self_check.h"
#include "attention_cases.h"
#include "check.h"
#include "failure.h"
#include "fake_device.h"
#include "op_cases.h"
#include "weight_cases.h"

using namespace layerstream;
using namespace layerstream::test;

namespace {

struct Alteration {
  const char* what;
  std::function<void(Op&)> apply;
};

template <class Kind>
std::function<void(Op&)> of(std::function<void(Kind&)> apply) {
  return [apply](Op& op) {
    if (auto* const concrete = std::get_if<Kind>(&op)) apply(*concrete);
  };
}

// Slight enough that text would come out, and noticed by nobody.
const Alteration kAlterations[] = {
    {"embed", of<EmbedOp>([](EmbedOp& op) { op.scale *= 1.05f; })},
    {"norm", of<NormOp>([](NormOp& op) { op.centered = !op.centered; })},
    {"matmul", of<MatmulOp>([](MatmulOp& op) { op.scale *= 1.05f; })},
    {"matmul", of<MatmulOp>([](MatmulOp& op) { op.rows--; })},
    {"rope", of<RopeOp>([](RopeOp& op) { std::swap(op.cosine, op.sine); })},
    {"attention", of<AttentionOp>([](AttentionOp& op) { op.scale *= op.first_position > 0 ? 1.5f : 1.0f; })},
    {"attention", of<AttentionOp>([](AttentionOp& op) { op.window = 30; })},
    {"activation", of<ActivationOp>([](ActivationOp& op) { op.up = {}; })},
    {"scale tokens", of<ScaleTokensOp>([](ScaleTokensOp& op) { op.tokens--; })},
    {"soft cap", of<SoftCapOp>([](SoftCapOp& op) { op.cap *= 0.5f; })},
    {"gather rows", of<GatherRowsOp>([](GatherRowsOp& op) { op.count--; })},
    {"scatter add", of<ScatterAddOp>([](ScatterAddOp& op) { op.count--; })},
    {"permute", of<PermuteOp>([](PermuteOp& op) { op.order = op.order.at(4, op.order.size - 4); op.width--; })},
};

// Gates and caps that do something, norms of more than one element: what an alteration changes.
Op plain(const char* what) {
  NormOp norm{};
  norm.groups = 2;
  norm.width = 40;
  AttentionOp attention{};
  attention.page_positions = 16;
  attention.heads = 4;
  attention.kv_heads = 2;
  attention.head_dim = attention.value_dim = 24;
  attention.page_bytes = 2 * kv_block_bytes(KvFormat::kF32, 16, 24);
  attention.scale = 1.0f;
  ActivationOp activation{};
  activation.width = 70;
  ScaleTokensOp scale{};
  scale.width = 50;
  SoftCapOp cap{};
  cap.width = 30;
  cap.cap = 0.5f;
  GatherRowsOp gather{};
  gather.width = 20;
  ScatterAddOp scatter{};
  scatter.width = 20;
  PermuteOp permute{};
  permute.width = 33;
  MatmulOp matmul{};
  matmul.format = Format::kBF16;
  matmul.rows = 100;
  matmul.columns = 10000;
  EmbedOp embed{};
  embed.columns = 200;
  embed.scale = 1.0f;
  RopeOp rope{};
  rope.heads = 3;
  rope.head_dim = rope.rotary_dim = 16;
  for (const Op& op : {Op(norm), Op(attention), Op(activation), Op(scale), Op(cap), Op(gather), Op(scatter), Op(permute), Op(matmul), Op(embed), Op(rope)}) {
    if (name_of(op) == std::string(what)) return op;
  }
  throw Error("INTERNAL", std::string("There is no op ") + what);
}

void check_with(const Op& op, const FakeOptions& options, const std::shared_ptr<FakeRecord>& record) {
  FakeDevice device(options, record);
  check_computes(device, op);
}

void test_alterations() {
  for (const auto& [what, apply] : kAlterations) {
    const auto record = std::make_shared<FakeRecord>();
    FakeOptions options;
    options.alter = apply;
    const Op op = plain(what);
    const Failure failure = failure_of([&] { check_with(op, options, record); });
    check(failure.code == "DEVICE_UNAVAILABLE" && failure.has("The device 'fake' computes " + std::string(what)) && failure.has("wrongly: value "),
          std::string("an altered ") + what + " is found: " + failure.message);
    check(record->faults.empty(), std::string("use of a device that computes ") + what + " wrongly");
  }
}

// Every format, every option, awkward widths; what has passed is not computed again.
void test_passing() {
  const auto record = std::make_shared<FakeRecord>();
  for (const std::vector<Problem>& problems : {make_op_problems(), make_weight_problems(), make_attention_problems()}) {
    for (const Problem& problem : problems) {
      const Op op = problem.ops(nullptr)[0];
      check_with(op, {}, record);
      const uint64_t commands = record->commands;
      check_with(op, {}, record);
      check(record->commands == commands, describe(op) + " is not computed again");
    }
  }
  check(record->faults.empty(), record->faults.empty() ? "" : record->faults[0]);
}

void test_failing_device() {
  const Op op = plain("soft cap");
  for (uint64_t allocation = 1; allocation <= 2; ++allocation) {
    const auto record = std::make_shared<FakeRecord>();
    FakeOptions options;
    options.failing_allocation = allocation;
    check(code_of([&] { check_with(op, options, record); }) == "DEVICE_FAILED", "memory that runs out");
    check(record->faults.empty(), "memory that runs out leaves nothing behind");
  }
}

}  // namespace

int main() {
  test_alterations();
  test_failing_device();
  test_passing();
  printf("self_check_test: %d checks\n", checks.load());
  return 0;
}
