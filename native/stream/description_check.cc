// check_description: what the rest of the runtime takes for granted.
#include <algorithm>
#include <span>
#include <utility>

#include "../platform/error.h"
#include "../platform/memory.h"
#include "model.h"
#include "processor.h"

namespace layerstream {

namespace {

// Larger ones are mistakes; their products cannot overflow.
constexpr uint32_t kMaxWidth = 1u << 28;
constexpr uint32_t kMaxTokens = 1u << 24;
constexpr uint32_t kMaxPartPositions = 1u << 24;
constexpr double kMaxBytes = 0x1p60;
constexpr uint64_t kMaxMatrixBytes = uint64_t{1} << 60;

constexpr size_t index_of(Register name) { return static_cast<size_t>(name); }

bool contains(std::span<const Register> registers, Register name) { return std::ranges::find(registers, name) != registers.end(); }

[[noreturn]] void refuse(const std::string& what) { throw Error("INTERNAL", "The model's description is wrong: " + what + "."); }

void require(bool condition, const char* what) {
  if (!condition) refuse(what);
}

// One stage and its plan.
class StageCheck {
 public:
  StageCheck(const RuntimeDescription& description, size_t index)
      : description_(description), index_(index), stage_(description.stages[index]) {}

  void check_steps() {
    need(stage_.kind < description_.plans.size(), "it has no plan");
    for (const Step& step : description_.plans[stage_.kind]) std::visit([this](const auto& concrete) { check(concrete); }, step);
    need(next_matrix_ == stage_.matrices.size(), "its plan leaves matrices out");
    need(!(uses_attention_ && uses_mlp_), "its plan uses registers that share memory");
  }

  // How many stages after this one are its experts. After check_steps.
  uint32_t experts() const { return experts_; }

  void check_tensors() {
    need(stage_.file < description_.files.size(), "it has no file");
    const uint64_t size = description_.files[stage_.file].size;
    uint64_t end = 0;
    for (const Matrix& matrix : stage_.matrices) {
      need(matrix.rows > 0 && matrix.columns > 0 && matrix.columns <= kMaxWidth && matrix.row_bytes > 0, "a matrix is empty or too wide");
      if (matrix.row_bytes > kMaxMatrixBytes / matrix.rows) corrupt("A matrix is too large");
      if (const std::string problem = encoding_problem(matrix); !problem.empty()) corrupt("A matrix has " + problem);
      const uint64_t bytes = matrix.stored_bytes();
      const bool inside = bytes <= size && matrix.offset <= size - bytes;
      if (!inside || align_up(matrix.offset + bytes, kPageBytes) > size) outside("matrix", matrix.offset);
      if (matrix.offset < end) corrupt("Matrices at byte " + std::to_string(matrix.offset) + " overlap or are out of order");
      end = matrix.offset + bytes;
      const uint64_t order_bytes = uint64_t{matrix.columns} * sizeof(uint32_t);
      if (matrix.permuted() && (order_bytes > size || matrix.column_order > size - order_bytes)) outside("column order", matrix.column_order);
      for (const Adapter& adapter : matrix.adapters) {
        need(adapter.rank > 0 && adapter.a.size() == size_t{adapter.rank} * matrix.columns &&
                 adapter.b.size() == size_t{adapter.rank} * matrix.rows,
             "an adapter has the wrong shape");
      }
    }
    for (const Vector& vector : stage_.vectors) {
      need(vector.format == Format::kF32 || vector.format == Format::kF16 || vector.format == Format::kBF16, "a vector is quantized");
      const uint64_t bytes = row_bytes(vector.format, vector.length, 0);
      if (bytes > size || vector.offset > size - bytes) outside("vector", vector.offset);
    }
  }

 private:
  std::string where() const { return "stage " + std::to_string(index_) + " (kind " + std::to_string(stage_.kind) + "): "; }
  void need(bool condition, const char* what) const {
    if (!condition) refuse(where() + what);
  }
  [[noreturn]] void corrupt(const std::string& what) const {
    throw Error("STORE_INVALID", what + " in " + description_.files[stage_.file].path + ". Decompose the checkpoint again.");
  }
  [[noreturn]] void outside(const char* what, uint64_t offset) const {
    corrupt(std::string("A ") + what + " at byte " + std::to_string(offset) + " does not lie within the " +
            std::to_string(description_.files[stage_.file].size) + " bytes");
  }

  bool is_head() const { return index_ + 1 == description_.stages.size(); }

  // `length` floats from `offset` on exist in each row of the register, and this stage may use it.
  void use(Register name, uint64_t length, uint64_t offset = 0) {
    need(offset + length <= description_.register_widths[index_of(name)], "a step reaches beyond a register");
    need(name != Register::kLogits || is_head(), "only the last stage has logits");
    need(!stage_.routed() || contains(kMlpRegisters, name), "an expert uses a register that is not its own");
    uses_attention_ |= contains(kAttentionRegisters, name);
    uses_mlp_ |= contains(kMlpRegisters, name);
  }
  void vector(uint32_t index, uint64_t length) const {
    if (index == kNone) return;
    need(index < stage_.vectors.size(), "a step uses a vector that is not there");
    if (stage_.vectors[index].length != length) {
      corrupt("Vector " + std::to_string(index) + " of stage " + std::to_string(index_) + " has " +
              std::to_string(stage_.vectors[index].length) + " elements instead of " + std::to_string(length));
    }
  }

  void check(const NormStep& step) {
    need(step.groups > 0 && step.width > 0, "a norm has no width");
    const uint64_t width = uint64_t{step.groups} * step.width;
    use(step.input, width);
    use(step.output, width);
    need(!step.accumulate || step.input != step.output, "a norm adds to its own input");
    const uint64_t weights = step.group_weights ? width : step.width;
    vector(step.weight_vector, weights);
    vector(step.bias_vector, weights);
  }

  void check(const MatmulStep& step) {
    need(step.matrix == next_matrix_, "its plan uses matrices in another order than they have on disk");
    need(next_matrix_ < stage_.matrices.size(), "a step uses a matrix that is not there");
    const Matrix& matrix = stage_.matrices[next_matrix_++];
    vector(step.bias_vector, matrix.rows);
    vector(step.row_scale_vector, matrix.rows);
    const uint64_t group_rows = step.group_rows > 0 ? step.group_rows : matrix.rows;
    const uint64_t last_group = (matrix.rows - 1) / group_rows;
    const uint64_t output_rows = std::min<uint64_t>(group_rows, matrix.rows);
    const uint64_t input_end = step.input_offset + last_group * step.group_input_stride + matrix.columns;
    const uint64_t output_end = step.output_offset + last_group * step.group_output_stride + output_rows;
    use(step.input, input_end);
    use(step.output, output_end);
    need(step.input != step.output || step.output_offset >= input_end || step.input_offset >= output_end,
         "a product overwrites its own input");
  }

  void check(const RopeStep& step) {
    need(!stage_.routed(), "an expert rotates");
    use(step.target, uint64_t{step.heads} * step.head_dim);
    need(step.table < description_.rope_dims.size() && description_.rope_dims[step.table] == step.rotary_dim, "a rope table is missing");
    need(uint64_t{step.offset} + step.rotary_dim <= step.head_dim, "a rotation reaches beyond its head");
  }

  void check(const AttentionStep& step) {
    need(!stage_.routed() && stage_.layer < description_.kv_layers, "attention without a place in the KV cache");
    need(step.heads > 0 && step.kv_heads > 0 && step.heads % step.kv_heads == 0 && step.kv_heads == description_.kv_heads,
         "heads and KV heads disagree");
    const bool values_in_keys = step.value == Register::kCount;
    need(step.head_dim == description_.key_dim && (values_in_keys ? description_.value_dim == 0 : step.value_dim == description_.value_dim),
         "attention and KV cache disagree");
    need(step.head_dim > 0 && step.value_dim > 0 && (!values_in_keys || step.value_dim <= step.head_dim), "a head has no value");
    use(step.query, uint64_t{step.heads} * step.head_dim);
    use(step.key, uint64_t{step.kv_heads} * step.head_dim);
    if (!values_in_keys) use(step.value, uint64_t{step.kv_heads} * step.value_dim);
    use(step.output, uint64_t{step.heads} * step.value_dim);
    need(step.output != step.key && (values_in_keys || step.output != step.value), "attention overwrites its keys");
    need(step.output != step.query || step.value_dim == step.head_dim, "attention overwrites its queries");
    vector(step.sinks_vector, step.heads);
    need(step.alibi_slopes.empty() || step.alibi_slopes.size() == step.heads, "a head has no slope");
    need(step.logn_length != 1, "the logarithm of its trained length vanishes");
  }

  void check(const ActivationStep& step) {
    use(step.gate, step.width);
    if (step.up != Register::kCount) use(step.up, step.width);
    need(step.up != Register::kCount || step.activation != Activation::kClampedSwiglu, "a clamped SwiGLU needs two factors");
  }

  void check(const ScaleTokensStep& step) {
    use(step.target, step.width);
    use(step.factor, 1);
    need(step.target != step.factor, "a step scales by what it scales");
  }

  void check(const SoftCapStep& step) {
    use(step.target, step.width);
    need(step.cap > 0, "a cap is not positive");
  }

  void check(const RouteStep& step) {
    const RoutingRule& rule = step.rule;
    need(!stage_.routed() && !std::exchange(routes_, true), "a stage routes twice, or an expert does");
    need(description_.block_tokens == 0, "experts are read once a pass, not once a block of tokens");
    need(rule.experts > 0 && rule.per_token > 0 && rule.per_token <= rule.experts, "a token has no experts, or too many");
    need(rule.group_count > 0 && rule.experts % rule.group_count == 0 && rule.groups_kept > 0 && rule.groups_kept <= rule.group_count,
         "groups of experts are uneven");
    need(rule.per_token <= rule.experts / rule.group_count * rule.groups_kept, "a token has more experts than its groups");
    need(rule.group_score == GroupScore::kMax || rule.experts / rule.group_count >= 2, "a group has fewer than two experts");
    use(step.logits, rule.experts);
    use(step.input, description_.register_widths[index_of(Register::kExpertInput)]);
    use(step.output, description_.register_widths[index_of(Register::kExpertOutput)]);
    vector(step.correction_vector, rule.experts);
    for (const Register name : {step.input, step.output}) {
      need(name == Register::kHidden || name == Register::kNormed, "experts read and write what outlives a stage");
    }
    need(step.input != step.output, "experts write what they read");
    for (uint32_t expert = 0; expert < rule.experts; ++expert) {
      const size_t index = index_ + 1 + expert;
      need(index + 1 < description_.stages.size() && description_.stages[index].expert == expert, "an expert is missing");
    }
    experts_ = rule.experts;
  }

  const RuntimeDescription& description_;
  const size_t index_;
  const Stage& stage_;
  uint32_t next_matrix_ = 0;
  uint32_t experts_ = 0;
  bool uses_attention_ = false, uses_mlp_ = false, routes_ = false;
};

void check_sizes(const RuntimeDescription& description) {
  require(description.max_tokens > 0 && description.max_tokens <= kMaxTokens, "no pass of that many tokens");
  for (const uint32_t width : description.register_widths) require(width <= kMaxWidth, "a register is too wide");
  for (const uint32_t dim : description.rope_dims) require(dim > 0 && dim % 2 == 0 && dim <= kMaxWidth, "a rotation of an odd width");
  require(description.register_widths[index_of(Register::kLogits)] == description.vocab_size, "logits are not as wide as the vocabulary");
  require(description.page_positions > 0, "pages of the KV cache are empty");
  const uint64_t part_positions = uint64_t{description.kv_part_pages} * description.page_positions;
  require(part_positions <= kMaxPartPositions && part_positions % kAttentionPartPositions == 0,
          "parts of the KV cache do not end where attention can go on");
  const double page_floats = double(description.page_positions) * description.kv_heads * (double(description.key_dim) + description.value_dim);
  require(std::max(page_floats * sizeof(float), double{kPageBytes}) * description.page_count * std::max(description.kv_layers, 1u) <= kMaxBytes,
          "the KV cache is too large");
}

void check_embedding(const RuntimeDescription& description) {
  const EmbeddingDescription& embedding = description.embedding;
  require(embedding.stage < description.stages.size() && embedding.matrix < description.stages[embedding.stage].matrices.size(),
          "the embedding is missing");
  const Stage& stage = description.stages[embedding.stage];
  const Matrix& matrix = stage.matrices[embedding.matrix];
  require(!stage.routed() && !matrix.permuted() && !matrix.encoded() && matrix.columns == description.register_widths[index_of(Register::kHidden)],
          "embedding and hidden state disagree");
}

}  // namespace

void check_held(const RuntimeDescription& description, size_t index, std::span<const uint8_t> tiers, bool unified) {
  const Stage& stage = description.stages[index];
  require(tiers.empty() || tiers.size() == stage.chunks.size(), "chunks and tiers for what is held disagree");
  const auto most = static_cast<uint8_t>(unified ? Tier::kDevice : Tier::kHost);
  require(std::ranges::all_of(tiers, [&](uint8_t tier) { return tier <= most; }), "a tier that the device does not have");
  const auto on_device = [](uint8_t tier) { return tier == static_cast<uint8_t>(Tier::kDevice); };
  require(!stage.on_processor || unified || std::ranges::none_of(tiers, on_device), "a stage of the processor is held on the device");
  const bool gathered = index == description.embedding.stage && index + 1 != description.stages.size();
  if (!stage.routed() && !gathered) return;
  require(std::ranges::adjacent_find(tiers, std::ranges::not_equal_to()) == tiers.end(), "a part of an expert or an embedding is held");
}

void check_description(const RuntimeDescription& description) {
  check_sizes(description);
  require(!description.stages.empty(), "there are no stages");
  check_embedding(description);
  uint32_t experts_due = 0;
  for (size_t index = 0; index < description.stages.size(); ++index) {
    StageCheck check(description, index);
    require((experts_due > 0) == description.stages[index].routed(), "an expert that no stage routes to, or the other way round");
    check.check_tensors();
    require(!description.stages[index].on_processor || Processor::takes(description, description.stages[index]),
            "the processor does not take a stage of this kind");
    if (index == description.embedding.stage && index + 1 != description.stages.size()) continue;
    check.check_steps();
    experts_due = experts_due > 0 ? experts_due - 1 : check.experts();
  }
}

}  // namespace layerstream
