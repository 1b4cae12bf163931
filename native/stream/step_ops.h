// The ops of a plan's steps, with all that the description says of them: formats, widths, options. Ranges, strides and numbers
// of tokens are for those who launch them.
#pragma once

#include "../backend/ops.h"
#include "model.h"

namespace layerstream {

EmbedOp embed_op(const RuntimeDescription& description);
// Of all rows of the matrix.
MatmulOp op_of(const MatmulStep& step, const Matrix& matrix, const RuntimeDescription& description);
// Of a x, and of b (a x) which is added to the product.
MatmulOp down_op(const Adapter& adapter, const Matrix& matrix);
MatmulOp up_op(const Adapter& adapter, const Matrix& matrix, const MatmulStep& step);
NormOp op_of(const NormStep& step);
RopeOp op_of(const RopeStep& step);
AttentionOp op_of(const AttentionStep& step, const RuntimeDescription& description);
ActivationOp op_of(const ActivationStep& step);
ScaleTokensOp op_of(const ScaleTokensStep& step);
SoftCapOp op_of(const SoftCapStep& step);

}  // namespace layerstream
