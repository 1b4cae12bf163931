// A work group of LANES normalises one group of a token.

kernel void norm(global float* input, ulong input_offset, global float* output, ulong output_offset, global float* weight,
                 ulong weight_offset, global float* bias, ulong bias_offset, uint width, uint input_stride,
                 uint output_stride, float epsilon, uint centered, uint group_weights, uint accumulate) {
  local float partial[LANES];
  const uint lane = get_local_id(0), group = get_group_id(0);
  const size_t token = get_group_id(1);
  global const float* const source = FLOATS(input, input_offset) + token * input_stride + (size_t)group * width;
  global float* const target = FLOATS(output, output_offset) + token * output_stride + (size_t)group * width;
  const uint parameters = group_weights ? group * width : 0;
  float mean = 0.0f;
  if (centered) {
    float sum = 0.0f;
    for (uint i = lane; i < width; i += LANES) sum += source[i];
    mean = sum_of_lanes(partial, sum) / (float)width;
  }
  float squares = 0.0f;
  for (uint i = lane; i < width; i += LANES) {
    const float difference = source[i] - mean;
    squares = MULTIPLY_ADD(difference, difference, squares);
  }
  const float factor = 1.0f / sqrt(sum_of_lanes(partial, squares) / (float)width + epsilon);
  for (uint i = lane; i < width; i += LANES) {
    float value = (source[i] - mean) * factor;
    if (weight != 0) value *= FLOATS(weight, weight_offset)[parameters + i];
    if (bias != 0) value += FLOATS(bias, bias_offset)[parameters + i];
    target[i] = accumulate ? target[i] + value : value;
  }
}
