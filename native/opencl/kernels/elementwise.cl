// The ops that treat every float apart: item (i, token).

// The numbers of backend/activation.h. (1 + tanh(u)) / 2 is the sigmoid of 2u.
INLINE float activate(uint activation, float x) {
  if (activation == 0) return x * sigmoid(x);
  if (activation == 1) return x * erfc(-x * M_SQRT1_2_F) * 0.5f;
  return x * sigmoid(1.5957691216057308f * MULTIPLY_ADD(0.044715f * x * x, x, x));
}

kernel void activation(global float* gate, ulong gate_offset, global float* up, ulong up_offset, uint width, uint gate_stride,
                       uint up_stride, uint activation, float alpha, float limit) {
  const uint i = get_global_id(0), token = get_global_id(1);
  if (i >= width) return;
  global float* const target = FLOATS(gate, gate_offset) + (size_t)token * gate_stride + i;
  const float factor = up == 0 ? 1.0f : FLOATS(up, up_offset)[(size_t)token * up_stride + i];
  if (activation == 3) {
    const float g = min(*target, limit), u = clamp(factor, -limit, limit);
    *target = g * sigmoid(alpha * g) * (u + 1.0f);
  } else {
    *target = activate(activation, *target) * factor;
  }
}

kernel void scale_tokens(global float* target, ulong target_offset, global float* factor, ulong factor_offset, uint width,
                         uint target_stride, uint factor_stride) {
  const uint i = get_global_id(0), token = get_global_id(1);
  if (i >= width) return;
  FLOATS(target, target_offset)[(size_t)token * target_stride + i] *= sigmoid(FLOATS(factor, factor_offset)[(size_t)token * factor_stride]);
}

kernel void soft_cap(global float* target, ulong target_offset, uint width, uint stride, float cap) {
  const uint i = get_global_id(0), token = get_global_id(1);
  if (i >= width) return;
  global float* const value = FLOATS(target, target_offset) + (size_t)token * stride + i;
  *value = cap * hyperbolic_tangent(*value / cap);
}

kernel void gather_rows(global float* input, ulong input_offset, global float* output, ulong output_offset, global uint* rows,
                        ulong rows_offset, uint width, uint input_stride, uint output_stride) {
  const uint i = get_global_id(0), row = get_global_id(1);
  if (i >= width) return;
  FLOATS(output, output_offset)[(size_t)row * output_stride + i] =
      FLOATS(input, input_offset)[(size_t)WORDS(rows, rows_offset)[row] * input_stride + i];
}

kernel void scatter_add(global float* input, ulong input_offset, global float* output, ulong output_offset, global uint* rows,
                        ulong rows_offset, global float* weights, ulong weights_offset, uint width, uint input_stride,
                        uint output_stride) {
  const uint i = get_global_id(0), row = get_global_id(1);
  if (i >= width) return;
  FLOATS(output, output_offset)[(size_t)WORDS(rows, rows_offset)[row] * output_stride + i] +=
      FLOATS(weights, weights_offset)[row] * FLOATS(input, input_offset)[(size_t)row * input_stride + i];
}

kernel void permute(global float* input, ulong input_offset, global float* output, ulong output_offset, global uint* order,
                    ulong order_offset, uint width, uint input_stride, uint output_stride) {
  const uint i = get_global_id(0), token = get_global_id(1);
  if (i >= width) return;
  FLOATS(output, output_offset)[(size_t)token * output_stride + i] =
      FLOATS(input, input_offset)[(size_t)token * input_stride + WORDS(order, order_offset)[i]];
}

// Item (pair of a head, token).
kernel void rope(global float* target, ulong target_offset, global float* cosine, ulong cosine_offset, global float* sine,
                 ulong sine_offset, uint stride, uint heads, uint head_dim, uint rotary_dim, uint offset, uint interleaved) {
  const uint half_dim = rotary_dim / 2, index = get_global_id(0), token = get_global_id(1);
  if (index >= heads * half_dim) return;
  const uint head = index / half_dim, i = index % half_dim;
  global float* const start = FLOATS(target, target_offset) + (size_t)token * stride + (size_t)head * head_dim + offset;
  global float* const first = start + (interleaved ? 2 * i : i);
  global float* const second = start + (interleaved ? 2 * i + 1 : i + half_dim);
  const float c = FLOATS(cosine, cosine_offset)[(size_t)token * half_dim + i];
  const float s = FLOATS(sine, sine_offset)[(size_t)token * half_dim + i];
  const float a = *first, b = *second;
  *first = a * c - b * s;
  *second = a * s + b * c;
}
