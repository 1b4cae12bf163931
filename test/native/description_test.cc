// Descriptions that contradict themselves, or the files they speak of, are refused: each of these would else reach
// memory that is not its own, hang, or compute nonsense.
#include <cstdio>
#include <functional>
#include <string>

#include "expert_models.h"
#include "loaded_model.h"

using namespace synthetic;

namespace {

using Change = std::function<void(RuntimeDescription&)>;

// The step of the given kind in a plan.
template <typename StepKind>
StepKind& step_of(RuntimeDescription& description, size_t plan, size_t number = 0) {
  for (Step& step : description.plans[plan]) {
    if (auto* found = std::get_if<StepKind>(&step); found != nullptr && number-- == 0) return *found;
  }
  fprintf(stderr, "description_test: no such step\n");
  exit(1);
}

uint32_t& width_of(RuntimeDescription& description, Register name) { return description.register_widths[static_cast<size_t>(name)]; }

void refused(const RuntimeDescription& base, const char* code, const std::string& what, const Change& change) {
  RuntimeDescription description = base;
  change(description);
  const Failure failure = failure_of([&] { check_description(description); });
  check(failure.code == code, what + " came to \"" + failure.code + "\": " + failure.message);
}

constexpr size_t kAttentionPlan = 1, kMoePlan = 2, kExpertPlan = 3, kHeadPlan = 4;
constexpr auto kInternal = "INTERNAL";
constexpr auto kInvalid = "STORE_INVALID";

void test_steps(const RuntimeDescription& mixture, const RuntimeDescription& latent) {
  const auto norm = [&](const char* what, const std::function<void(NormStep&)>& change) {
    refused(mixture, kInternal, what, [&](RuntimeDescription& d) { change(step_of<NormStep>(d, kAttentionPlan)); });
  };
  norm("a norm without width", [](NormStep& s) { s.width = 0; });
  norm("a norm wider than its register", [](NormStep& s) { s.groups = 2; });
  norm("a norm of very many groups", [](NormStep& s) { s.groups = s.width = UINT32_MAX; });
  norm("a norm that adds to its input", [](NormStep& s) { s.output = s.input, s.accumulate = true; });
  norm("a weight that is not there", [](NormStep& s) { s.weight_vector = 99; });
  refused(mixture, kInvalid, "a bias of another length", [](RuntimeDescription& d) { step_of<NormStep>(d, kAttentionPlan).bias_vector = 3; });
  refused(mixture, kInvalid, "group weights of one group",
          [](RuntimeDescription& d) { step_of<NormStep>(d, kAttentionPlan, 1).group_weights = true; });

  const auto matmul = [&](const char* what, const std::function<void(MatmulStep&)>& change) {
    refused(latent, kInternal, what, [&](RuntimeDescription& d) { change(step_of<MatmulStep>(d, kAttentionPlan, 1)); });
  };
  matmul("a matrix out of order", [](MatmulStep& s) { s.matrix = 0; });
  matmul("a matrix that is not there", [](MatmulStep& s) { s.matrix = 6; });
  matmul("an input offset", [](MatmulStep& s) { s.input_offset = 1; });
  matmul("an output offset", [](MatmulStep& s) { s.output_offset = UINT32_MAX; });
  matmul("an input stride", [](MatmulStep& s) { s.group_input_stride = UINT32_MAX; });
  matmul("an output stride", [](MatmulStep& s) { s.group_output_stride += 5; });
  matmul("small groups", [](MatmulStep& s) { s.group_rows = 1; });
  matmul("a product onto its input", [](MatmulStep& s) { s.output = s.input, s.group_output_stride = 0, s.group_rows = 32; });
  refused(latent, kInternal, "a matrix that no step uses", [](RuntimeDescription& d) { d.plans[kAttentionPlan].pop_back(); });
  refused(mixture, kInvalid, "a row scale of another length",
          [](RuntimeDescription& d) { step_of<MatmulStep>(d, kAttentionPlan).row_scale_vector = 0; });

  refused(mixture, kInternal, "a rope table that is not there", [](RuntimeDescription& d) { step_of<RopeStep>(d, kAttentionPlan).table = 1; });
  refused(mixture, kInternal, "a rotation of another width", [](RuntimeDescription& d) { step_of<RopeStep>(d, kAttentionPlan).rotary_dim = 8; });
  refused(mixture, kInternal, "a rotation beyond its head", [](RuntimeDescription& d) { step_of<RopeStep>(d, kAttentionPlan).offset = 9; });
  refused(mixture, kInternal, "more heads than fit", [](RuntimeDescription& d) { step_of<RopeStep>(d, kAttentionPlan).heads = 7; });
  refused(mixture, kInternal, "a rotation of odd width", [](RuntimeDescription& d) { d.rope_dims[0] = 13; });

  const auto attention = [&](const char* what, const std::function<void(AttentionStep&)>& change) {
    refused(mixture, kInternal, what, [&](RuntimeDescription& d) { change(step_of<AttentionStep>(d, kAttentionPlan)); });
  };
  attention("no heads", [](AttentionStep& s) { s.heads = 0; });
  attention("heads that divide unevenly", [](AttentionStep& s) { s.heads = 5; });
  attention("more KV heads than the cache has", [](AttentionStep& s) { s.kv_heads = 6; });
  attention("wider keys than the cache has", [](AttentionStep& s) { s.head_dim = 24; });
  attention("wider values than the cache has", [](AttentionStep& s) { s.value_dim = 13; });
  attention("values in keys without such a cache", [](AttentionStep& s) { s.value = Register::kCount; });
  attention("output onto keys", [](AttentionStep& s) { s.output = s.key; });
  attention("narrow output onto queries", [](AttentionStep& s) { s.output = s.query; });
  attention("a slope too few", [](AttentionStep& s) { s.alibi_slopes.pop_back(); });
  attention("a length whose logarithm is 0", [](AttentionStep& s) { s.logn_length = 1; });
  refused(mixture, kInvalid, "a sink too many", [](RuntimeDescription& d) { step_of<AttentionStep>(d, kAttentionPlan).sinks_vector = 4; });
  refused(mixture, kInternal, "a layer beyond the cache", [](RuntimeDescription& d) { d.kv_layers = 1; });
  refused(latent, kInternal, "values wider than the keys they are in",
          [](RuntimeDescription& d) { step_of<AttentionStep>(d, kAttentionPlan).value_dim = 41; });

  refused(mixture, kInternal, "a wide activation", [](RuntimeDescription& d) { ++step_of<ActivationStep>(d, kExpertPlan).width; });
  refused(mixture, kInternal, "a clamped SwiGLU of one factor",
          [](RuntimeDescription& d) { step_of<ActivationStep>(d, kExpertPlan).up = Register::kCount; });
  refused(latent, kInternal, "a wide scaling", [](RuntimeDescription& d) { step_of<ScaleTokensStep>(d, kMoePlan).width = 91; });
  refused(mixture, kInternal, "a cap of 0", [](RuntimeDescription& d) { step_of<SoftCapStep>(d, kHeadPlan).cap = 0; });
  refused(mixture, kInternal, "a wide cap", [](RuntimeDescription& d) { ++step_of<SoftCapStep>(d, kHeadPlan).width; });
  refused(mixture, kInternal, "logits before the head",
          [](RuntimeDescription& d) { d.plans[kMoePlan].push_back(SoftCapStep{Register::kLogits, 1, 1.0f}); });
  refused(mixture, kInternal, "registers that share memory",
          [](RuntimeDescription& d) { d.plans[kMoePlan].push_back(SoftCapStep{Register::kQuery, 1, 1.0f}); });
}

void test_experts(const RuntimeDescription& base) {
  const auto route = [&](const char* what, const std::function<void(RouteStep&)>& change) {
    refused(base, kInternal, what, [&](RuntimeDescription& d) { change(step_of<RouteStep>(d, kMoePlan)); });
  };
  route("no experts", [](RouteStep& s) { s.rule.experts = 0; });
  route("an expert less than there are stages", [](RouteStep& s) { s.rule.experts = 4, s.rule.group_count = 1; });
  route("an expert more than there are stages", [](RouteStep& s) { s.rule.experts = 9, s.rule.group_count = 1; });
  route("more experts a token than there are", [](RouteStep& s) { s.rule.per_token = 9; });
  route("more experts a token than its groups have", [](RouteStep& s) { s.rule.per_token = 5; });
  route("none a token", [](RouteStep& s) { s.rule.per_token = 0; });
  route("uneven groups", [](RouteStep& s) { s.rule.group_count = 3; });
  route("no groups", [](RouteStep& s) { s.rule.group_count = 0; });
  route("more groups kept than there are", [](RouteStep& s) { s.rule.groups_kept = 5; });
  route("no groups kept", [](RouteStep& s) { s.rule.groups_kept = 0; });
  route("the two best of groups of one", [](RouteStep& s) { s.rule.group_count = 8; });
  route("experts that write what they read", [](RouteStep& s) { s.output = s.input; });
  route("experts that read what they overwrite", [](RouteStep& s) { s.input = Register::kExpertInput; });
  refused(base, kInvalid, "a correction too short", [](RuntimeDescription& d) { step_of<RouteStep>(d, kMoePlan).correction_vector = 0; });
  refused(base, kInternal, "two routes", [](RuntimeDescription& d) { d.plans[kMoePlan].push_back(step_of<RouteStep>(d, kMoePlan)); });
  refused(base, kInternal, "a route in an expert", [](RuntimeDescription& d) { d.plans[kExpertPlan].push_back(step_of<RouteStep>(d, kMoePlan)); });
  refused(base, kInternal, "an expert that uses what is not its own",
          [](RuntimeDescription& d) { step_of<MatmulStep>(d, kExpertPlan).input = Register::kNormed; });
  refused(base, kInternal, "an expert that rotates",
          [](RuntimeDescription& d) { d.plans[kExpertPlan].push_back(step_of<RopeStep>(d, kAttentionPlan)); });
  refused(base, kInternal, "a wide expert input", [](RuntimeDescription& d) { ++width_of(d, Register::kExpertInput); });
  refused(base, kInternal, "experts out of order", [](RuntimeDescription& d) { std::swap(d.stages[3].expert, d.stages[4].expert); });
  refused(base, kInternal, "an expert that is no expert", [](RuntimeDescription& d) { d.stages[3].expert = kNone; });
  refused(base, kInternal, "an expert without a route", [](RuntimeDescription& d) { d.stages[0].expert = 0; });
  refused(base, kInternal, "an expert at the end", [](RuntimeDescription& d) { d.stages.back().expert = 0; });
  refused(base, kInternal, "nothing behind the experts", [](RuntimeDescription& d) {
    d.stages.pop_back();
    d.embedding.stage = 0;
  });
}

void test_tensors(const RuntimeDescription& base) {
  const auto matrix = [&](const char* code, const char* what, const std::function<void(Matrix&)>& change) {
    refused(base, code, what, [&](RuntimeDescription& d) { change(d.stages[1].matrices[1]); });
  };
  matrix(kInternal, "no rows", [](Matrix& m) { m.rows = 0; });
  matrix(kInternal, "no columns", [](Matrix& m) { m.columns = 0; });
  matrix(kInternal, "rows of no bytes", [](Matrix& m) { m.row_bytes = 0; });
  matrix(kInternal, "more columns than the input has", [](Matrix& m) { ++m.columns; });
  matrix(kInvalid, "rows beyond the file", [](Matrix& m) { m.rows = UINT32_MAX; });
  matrix(kInvalid, "very wide rows", [](Matrix& m) { m.row_bytes = UINT64_MAX / 2; });
  matrix(kInvalid, "an offset beyond the file", [](Matrix& m) { m.offset = UINT64_MAX - 100; });
  refused(base, kInvalid, "matrices on one another",
          [](RuntimeDescription& d) { d.stages[1].matrices[1].offset = d.stages[1].matrices[0].offset + 1; });
  matrix(kInvalid, "a column order beyond the file", [](Matrix& m) { m.column_order = UINT64_MAX - 1; });
  matrix(kInternal, "an adapter without rank", [](Matrix& m) { m.adapters.push_back({}); });
  matrix(kInternal, "an adapter of the wrong shape", [](Matrix& m) {
    m.adapters.push_back({.rank = 2, .a = std::vector<float>(2 * m.columns), .b = std::vector<float>(2 * m.rows - 1)});
  });
  refused(base, kInvalid, "a matrix in the last page of a file that ends there", [](RuntimeDescription& d) { --d.files[0].size; });
  const auto vector = [&](const char* code, const char* what, const std::function<void(Vector&)>& change) {
    refused(base, code, what, [&](RuntimeDescription& d) { change(d.stages[1].vectors[0]); });
  };
  vector(kInvalid, "a vector beyond the file", [](Vector& v) { v.offset = UINT64_MAX - 1; });
  vector(kInvalid, "a vector longer than the file", [](Vector& v) { v.length = UINT32_MAX; });
  vector(kInternal, "a quantized vector", [](Vector& v) { v.format = Format::kQ8; });
}

void test_sizes(const RuntimeDescription& base) {
  const auto size = [&](const char* what, const Change& change) { refused(base, kInternal, what, change); };
  size("no stages", [](RuntimeDescription& d) { d.stages.clear(); });
  size("a plan that is not there", [](RuntimeDescription& d) { d.stages[1].kind = 5; });
  size("a file that is not there", [](RuntimeDescription& d) { d.stages[0].file = 99; });
  size("no tokens", [](RuntimeDescription& d) { d.max_tokens = 0; });
  size("too many tokens", [](RuntimeDescription& d) { d.max_tokens = UINT32_MAX; });
  size("a register of all memory", [](RuntimeDescription& d) { width_of(d, Register::kGate) = UINT32_MAX; });
  size("a register that no plan can use", [](RuntimeDescription& d) { width_of(d, Register::kQuery) = 0; });
  size("another vocabulary than the logits'", [](RuntimeDescription& d) { ++d.vocab_size; });
  size("parts that end within a split", [](RuntimeDescription& d) { ++d.kv_part_pages; });
  size("parts beyond all numbers", [](RuntimeDescription& d) { d.kv_part_pages = UINT32_MAX; });
  size("empty pages", [](RuntimeDescription& d) { d.page_positions = 0; });
  size("a cache beyond all numbers", [](RuntimeDescription& d) { d.page_count = d.page_positions = UINT32_MAX; });
  size("an embedding that is not there", [](RuntimeDescription& d) { d.embedding.stage = 999; });
  size("an embedding's matrix that is not there", [](RuntimeDescription& d) { d.embedding.matrix = 1; });
  size("an embedding of another width", [](RuntimeDescription& d) { d.embedding = {1, 3, 1.0f}; });
}

}  // namespace

int main() {
  const TemporaryDirectory mixture_directory, latent_directory;
  const RuntimeDescription mixture = write_mixture(mixture_directory.path());
  const RuntimeDescription latent = write_latent(latent_directory.path());
  check_description(mixture);
  check_description(latent);
  test_steps(mixture, latent);
  test_experts(latent);
  test_tensors(mixture);
  test_sizes(mixture);
  printf("description_test: %d checks passed\n", checks.load());
}
