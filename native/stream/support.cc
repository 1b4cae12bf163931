#include "support.h"

#include "../backend/op_names.h"
#include "../platform/error.h"

namespace layerstream {

namespace {

// The ops of one stage, as Device::supports looks at them. Ranges, strides and numbers of tokens are left out.
class StageSupport {
 public:
  StageSupport(const RuntimeDescription& description, const Device& device, size_t index)
      : description_(description), device_(device), index_(index), stage_(description.stages[index]) {}

  void require(const Op& op) const {
    if (device_.supports(op)) return;
    throw Error("DEVICE_UNAVAILABLE", "The device '" + device_.info().name + "' has no kernel for " + describe(op) + ", which stage " +
                                          std::to_string(index_) + " of the model needs. Choose another device, `cpu` for example.");
  }

  void require_step(const NormStep& step) const {
    NormOp op{};
    op.groups = step.groups;
    op.width = step.width;
    op.centered = step.centered;
    op.group_weights = step.group_weights;
    op.accumulate = step.accumulate;
    require(op);
  }

  void require_step(const MatmulStep& step) const {
    const Matrix& matrix = stage_.matrices[step.matrix];
    MatmulOp op{};
    op.format = matrix.format;
    op.block = matrix.block;
    op.row_bytes = matrix.row_bytes;
    op.rows = matrix.rows;
    op.columns = matrix.columns;
    op.accumulate = step.accumulate;
    op.scale = step.scale;
    op.precision = description_.precision;
    require(op);
    if (matrix.permuted()) {
      PermuteOp permute{};
      permute.width = matrix.columns;
      require(permute);
    }
    for (const Adapter& adapter : matrix.adapters) {
      MatmulOp product{};
      product.format = Format::kF32;
      product.rows = adapter.rank;
      product.columns = matrix.columns;
      require(product);
    }
  }

  void require_step(const RopeStep& step) const {
    RopeOp op{};
    op.heads = step.heads;
    op.head_dim = step.head_dim;
    op.rotary_dim = step.rotary_dim;
    op.offset = step.offset;
    op.interleaved = step.interleaved;
    require(op);
  }

  void require_step(const AttentionStep& step) const {
    AttentionOp op{};
    op.kv_format = description_.kv_format;
    op.page_bytes = description_.kv_page_bytes();
    op.page_positions = description_.page_positions;
    op.heads = step.heads;
    op.kv_heads = step.kv_heads;
    op.head_dim = step.head_dim;
    op.value_dim = step.value_dim;
    op.window = step.window;
    op.scale = step.scale;
    op.values_in_keys = step.value == Register::kCount;
    op.soft_cap = step.soft_cap;
    op.logn_length = step.logn_length;
    require(op);
  }

  void require_step(const ActivationStep& step) const {
    ActivationOp op{};
    op.width = step.width;
    op.activation = step.activation;
    op.alpha = step.alpha;
    op.limit = step.limit;
    require(op);
  }

  void require_step(const ScaleTokensStep& step) const {
    ScaleTokensOp op{};
    op.width = step.width;
    require(op);
  }

  void require_step(const SoftCapStep& step) const {
    SoftCapOp op{};
    op.width = step.width;
    op.cap = step.cap;
    require(op);
  }

  void require_step(const RouteStep&) const {
    GatherRowsOp gather{};
    gather.width = description_.register_widths[static_cast<size_t>(Register::kExpertInput)];
    require(gather);
    ScatterAddOp scatter{};
    scatter.width = description_.register_widths[static_cast<size_t>(Register::kExpertOutput)];
    require(scatter);
  }

 private:
  const RuntimeDescription& description_;
  const Device& device_;
  const size_t index_;
  const Stage& stage_;
};

}  // namespace

void check_support(const RuntimeDescription& description, const Device& device) {
  const EmbeddingDescription& embedding = description.embedding;
  const Matrix& table = description.stages[embedding.stage].matrices[embedding.matrix];
  StageSupport(description, device, embedding.stage)
      .require(EmbedOp{table.format, table.block, table.columns, embedding.scale, {}, {}});
  for (size_t index = 0; index < description.stages.size(); ++index) {
    const StageSupport stage(description, device, index);
    for (const Step& step : description.plans[description.stages[index].kind]) {
      std::visit([&](const auto& concrete) { stage.require_step(concrete); }, step);
    }
  }
}

}  // namespace layerstream
