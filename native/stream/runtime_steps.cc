// From the steps of a plan to ops of the device.
#include <algorithm>

#include "runtime.h"
#include "step_ops.h"

namespace layerstream {

Range Runtime::registers(Register name) const {
  const Range range = on_processor_ ? processor_->registers(name) : registers_[static_cast<size_t>(name)];
  const uint64_t first = pass_wide(name) ? uint64_t{block_.first} * width(name) * sizeof(float) : 0;
  return range.at(first, range.size - first);
}

Range Runtime::registers(Register name, uint64_t offset) const {
  const Range range = registers(name);
  return range.at(offset * sizeof(float), range.size - offset * sizeof(float));
}

void Runtime::run_steps(uint32_t index, const PassRequest& request, uint32_t tokens) {
  const Stage& stage = description_.stages[index];
  if (trace_ && on_processor_) processor_->device().label(processor_->stream(), index);
  if (trace_ && !on_processor_) device_->label(compute_, index);
  chunk_index_ = piece_index_ = 0;
  for (const Step& step : description_.plans[stage.kind]) {
    if (const auto* matmul = std::get_if<MatmulStep>(&step)) {
      run_matmul(index, *matmul, tokens);
    } else if (const auto* norm = std::get_if<NormStep>(&step)) {
      run(stage, *norm, tokens);
    } else if (const auto* rope = std::get_if<RopeStep>(&step)) {
      run(*rope, tokens);
    } else if (const auto* attention = std::get_if<AttentionStep>(&step)) {
      run_attention(index, *attention, request);
    } else if (const auto* activation = std::get_if<ActivationStep>(&step)) {
      run(*activation, tokens);
    } else if (const auto* scale = std::get_if<ScaleTokensStep>(&step)) {
      run(*scale, tokens);
    } else if (const auto* cap = std::get_if<SoftCapStep>(&step)) {
      run(*cap, tokens);
    } else {
      route(index, std::get<RouteStep>(step), tokens);
    }
  }
  if (block_.last) finish_stage(index);
}

// --- products ----------------------------------------------------------------------------------------------------

void Runtime::run_matmul(uint32_t index, const MatmulStep& step, uint32_t tokens) {
  const Stage& stage = description_.stages[index];
  const Matrix& matrix = stage.matrices[step.matrix];
  permuted_group_ = kNone;
  for (uint32_t row = 0; row < matrix.rows;) {
    const uint32_t begin = row;
    row = pass_loaded_rows(stage, row, matrix.rows);
    if (row > begin) {
      const uint64_t offset = matrix.place + begin * matrix.row_bytes - stage.extent_offset;
      launch_rows(stage, step, begin, row, {stage.memory, offset, (row - begin) * matrix.row_bytes}, tokens);
      continue;
    }
    const Chunk& chunk = stage.chunks[chunk_index_];
    if (piece_index_ == 0) chunk_ = use_chunk(index);
    const Piece& piece = chunk.pieces[piece_index_];
    const uint64_t bytes = (piece.row_end - piece.row_begin) * matrix.row_bytes;
    launch_rows(stage, step, piece.row_begin, piece.row_end, chunk_.at(piece.offset, bytes), tokens);
    row = piece.row_end;
    if (++piece_index_ == chunk.pieces.size()) leave_chunk(index);
  }
  for (const Adapter& adapter : matrix.adapters) launch_adapter(matrix, adapter, step, tokens);
}

// Moves behind the pieces of neighbouring chunks in memory: they are multiplied together. Returns the row after them.
uint32_t Runtime::pass_loaded_rows(const Stage& stage, uint32_t row, uint32_t rows) {
  while (row < rows && stage.chunks[chunk_index_].loaded && stage.chunks[chunk_index_].held_on_device()) {
    const Chunk& chunk = stage.chunks[chunk_index_];
    row = chunk.pieces[piece_index_].row_end;
    if (++piece_index_ < chunk.pieces.size()) continue;
    piece_index_ = 0;
    ++chunk_index_;
  }
  return row;
}

// One product for each group of which there are rows.
void Runtime::launch_rows(const Stage& stage, const MatmulStep& step, uint32_t row_begin, uint32_t row_end, Range weight,
                          uint32_t tokens) {
  const Matrix& matrix = stage.matrices[step.matrix];
  const uint32_t group_rows = step.group_rows > 0 ? step.group_rows : matrix.rows;
  for (uint32_t row = row_begin, end = 0; row < row_end; row = end) {
    const uint32_t group = row / group_rows;
    end = static_cast<uint32_t>(std::min<uint64_t>(row_end, (uint64_t{group} + 1) * group_rows));
    MatmulOp op = op_of(step, matrix, description_);
    op.rows = end - row;
    op.tokens = tokens;
    op.weight = weight.at((row - row_begin) * matrix.row_bytes, op.rows * matrix.row_bytes);
    op.input = registers(step.input, step.input_offset + uint64_t{group} * step.group_input_stride);
    op.input_stride = width(step.input);
    if (matrix.permuted()) {
      if (permuted_group_ != group) {
        launch(PermuteOp{op.input, permuted_, matrix.order, tokens, matrix.columns, op.input_stride, matrix.columns});
      }
      permuted_group_ = group;
      op.input = permuted_;
      op.input_stride = matrix.columns;
    }
    op.output = registers(step.output, step.output_offset + uint64_t{group} * step.group_output_stride + row % group_rows);
    op.output_stride = width(step.output);
    const auto rows_of = [&](uint32_t index) {
      return index == kNone ? Range{} : vector(stage, index).at(row * sizeof(float), op.rows * sizeof(float));
    };
    op.bias = rows_of(step.bias_vector);
    op.row_scale = rows_of(step.row_scale_vector);
    op.many_tokens = many_tokens_;
    result_.bytes_multiplied += op.weight.size;
    const Multiplied input = {op.input.buffer, op.input.offset, op.input_stride, op.columns, tokens};
    op.input_kept = step.input != step.output && input == multiplied_;
    launch(op);
    multiplied_ = input;
  }
}

// Adds scale * b (a x) to what the product has left, whatever the order of its columns.
void Runtime::launch_adapter(const Matrix& matrix, const Adapter& adapter, const MatmulStep& step, uint32_t tokens) {
  const uint32_t group_rows = step.group_rows > 0 ? step.group_rows : matrix.rows;
  for (uint32_t row = 0, end = 0; row < matrix.rows; row = end) {
    const uint32_t group = row / group_rows;
    end = row + std::min(group_rows, matrix.rows - row);
    MatmulOp down = down_op(adapter, matrix);
    down.weight = adapter.a_memory;
    down.tokens = tokens;
    down.input = registers(step.input, step.input_offset + uint64_t{group} * step.group_input_stride);
    down.input_stride = width(step.input);
    down.output = adapted_;
    down.output_stride = adapter.rank;
    launch(down);
    MatmulOp up = up_op(adapter, matrix, step);
    up.rows = end - row;
    up.weight = adapter.b_memory.at(row * up.row_bytes, up.rows * up.row_bytes);
    up.tokens = tokens;
    up.input = adapted_;
    up.input_stride = adapter.rank;
    up.output = registers(step.output, step.output_offset + uint64_t{group} * step.group_output_stride);
    up.output_stride = width(step.output);
    launch(up);
  }
}

// --- the others --------------------------------------------------------------------------------------------------

void Runtime::run(const Stage& stage, const NormStep& step, uint32_t tokens) {
  NormOp op = op_of(step);
  op.input = registers(step.input);
  op.output = registers(step.output);
  op.weight = vector(stage, step.weight_vector);
  op.bias = vector(stage, step.bias_vector);
  op.tokens = tokens;
  op.input_stride = width(step.input);
  op.output_stride = width(step.output);
  launch(op);
}

void Runtime::run(const RopeStep& step, uint32_t tokens) {
  RopeOp op = op_of(step);
  op.target = registers(step.target);
  const uint64_t first = uint64_t{block_.first} * step.rotary_dim / 2 * sizeof(float);
  op.cosine = cosines_[step.table].at(first, cosines_[step.table].size - first);
  op.sine = sines_[step.table].at(first, sines_[step.table].size - first);
  op.tokens = tokens;
  op.stride = width(step.target);
  launch(op);
}

void Runtime::run(const ActivationStep& step, uint32_t tokens) {
  ActivationOp op = op_of(step);
  op.gate = registers(step.gate);
  op.gate_stride = width(step.gate);
  if (step.up != Register::kCount) {
    op.up = registers(step.up);
    op.up_stride = width(step.up);
  }
  op.tokens = tokens;
  launch(op);
}

void Runtime::run(const ScaleTokensStep& step, uint32_t tokens) {
  ScaleTokensOp op = op_of(step);
  op.target = registers(step.target);
  op.factor = registers(step.factor);
  op.tokens = tokens;
  op.target_stride = width(step.target);
  op.factor_stride = width(step.factor);
  launch(op);
}

void Runtime::run(const SoftCapStep& step, uint32_t tokens) {
  SoftCapOp op = op_of(step);
  op.target = registers(step.target);
  op.tokens = tokens;
  op.stride = width(step.target);
  launch(op);
}

}  // namespace layerstream
