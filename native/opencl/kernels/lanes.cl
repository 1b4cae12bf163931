// Reductions over the LANES work items of a group; `partial` has an element for each.

INLINE float sum_of_lanes(local float* partial, float value) {
  const uint lane = get_local_id(0);
  partial[lane] = value;
  barrier(CLK_LOCAL_MEM_FENCE);
  for (uint count = LANES / 2; count > 0; count /= 2) {
    if (lane < count) partial[lane] += partial[lane + count];
    barrier(CLK_LOCAL_MEM_FENCE);
  }
  const float sum = partial[0];
  barrier(CLK_LOCAL_MEM_FENCE);
  return sum;
}

INLINE float largest_of_lanes(local float* partial, float value) {
  const uint lane = get_local_id(0);
  partial[lane] = value;
  barrier(CLK_LOCAL_MEM_FENCE);
  for (uint count = LANES / 2; count > 0; count /= 2) {
    if (lane < count) partial[lane] = max(partial[lane], partial[lane + count]);
    barrier(CLK_LOCAL_MEM_FENCE);
  }
  const float largest = partial[0];
  barrier(CLK_LOCAL_MEM_FENCE);
  return largest;
}
