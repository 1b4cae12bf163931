#include "step_ops.h"

namespace layerstream {

EmbedOp embed_op(const RuntimeDescription& description) {
  const EmbeddingDescription& embedding = description.embedding;
  const Matrix& matrix = description.stages[embedding.stage].matrices[embedding.matrix];
  EmbedOp op{};
  op.format = matrix.format;
  op.block = matrix.block;
  op.columns = matrix.columns;
  op.scale = embedding.scale;
  return op;
}

MatmulOp op_of(const MatmulStep& step, const Matrix& matrix, const RuntimeDescription& description) {
  MatmulOp op{};
  op.format = matrix.format;
  op.block = matrix.block;
  op.row_bytes = matrix.row_bytes;
  op.rows = matrix.rows;
  op.columns = matrix.columns;
  op.accumulate = step.accumulate;
  op.scale = step.scale;
  // A rounded score could choose another expert.
  op.precision = step.output == Register::kRouter ? Precision::kExact : description.precision;
  return op;
}

MatmulOp down_op(const Adapter& adapter, const Matrix& matrix) {
  MatmulOp op{};
  op.format = Format::kF32;
  op.row_bytes = matrix.columns * sizeof(float);
  op.rows = adapter.rank;
  op.columns = matrix.columns;
  return op;
}

MatmulOp up_op(const Adapter& adapter, const Matrix& matrix, const MatmulStep& step) {
  MatmulOp op{};
  op.format = Format::kF32;
  op.row_bytes = adapter.rank * sizeof(float);
  op.rows = matrix.rows;
  op.columns = adapter.rank;
  op.accumulate = true;
  op.scale = adapter.scale * step.scale;
  return op;
}

NormOp op_of(const NormStep& step) {
  NormOp op{};
  op.groups = step.groups;
  op.width = step.width;
  op.epsilon = step.epsilon;
  op.centered = step.centered;
  op.group_weights = step.group_weights;
  op.accumulate = step.accumulate;
  return op;
}

RopeOp op_of(const RopeStep& step) {
  RopeOp op{};
  op.heads = step.heads;
  op.head_dim = step.head_dim;
  op.rotary_dim = step.rotary_dim;
  op.offset = step.offset;
  op.interleaved = step.interleaved;
  return op;
}

AttentionOp op_of(const AttentionStep& step, const RuntimeDescription& description) {
  AttentionOp op{};
  op.kv_format = description.kv_format;
  op.page_bytes = description.kv_page_bytes();
  op.page_positions = description.page_positions;
  op.heads = step.heads;
  op.kv_heads = step.kv_heads;
  op.head_dim = step.head_dim;
  op.value_dim = step.value_dim;
  op.window = step.window;
  op.scale = step.scale;
  op.values_in_keys = step.value == Register::kCount;
  op.soft_cap = step.soft_cap;
  op.logn_length = step.logn_length;
  return op;
}

ActivationOp op_of(const ActivationStep& step) {
  ActivationOp op{};
  op.width = step.width;
  op.activation = step.activation;
  op.alpha = step.alpha;
  op.limit = step.limit;
  return op;
}

ScaleTokensOp op_of(const ScaleTokensStep& step) {
  ScaleTokensOp op{};
  op.width = step.width;
  return op;
}

SoftCapOp op_of(const SoftCapStep& step) {
  SoftCapOp op{};
  op.width = step.width;
  op.cap = step.cap;
  return op;
}

}  // namespace layerstream
