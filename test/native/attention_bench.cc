// Rate of attention on one core: arithmetic for prompts, bytes of the cache for single tokens.
#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <memory>
#include <random>
#include <vector>

#include "../../native/cpu/kernels.h"

using namespace layerstream::cpu;

namespace {

struct Shape {
  uint32_t heads, kv_heads, head_dim, value_dim, first_position, tokens;
  bool values_in_keys = false;
};

void print_rate(const KernelTable& kernels, const Shape& shape) {
  const uint32_t page_positions = 64;
  const uint32_t positions = shape.first_position + shape.tokens;
  const uint32_t page_count = (positions + page_positions - 1) / page_positions;
  std::mt19937 random(1);
  std::uniform_real_distribution<float> uniform(-1.0f, 1.0f);
  const auto filled = [&](size_t count) {
    std::vector<float> values(count);
    for (float& value : values) value = uniform(random);
    return values;
  };
  const size_t width = size_t{shape.heads} * shape.head_dim;
  const std::vector<float> query = filled(shape.tokens * width);
  const size_t slots = size_t{page_count} * page_positions * shape.kv_heads;
  const size_t cache = slots * shape.head_dim;
  const uint32_t cached_dim = shape.head_dim + (shape.values_in_keys ? 0 : shape.value_dim);
  // The cache of a model is page-aligned.
  std::vector<float> memory = filled(slots * cached_dim + 32);
  void* start_of_cache = memory.data();
  size_t room = memory.size() * sizeof(float);
  const float* keys = static_cast<float*>(std::align(64, slots * cached_dim * sizeof(float), start_of_cache, room));
  std::vector<float> output(query.size());
  std::vector<float> scratch(attention_scratch_floats(shape.head_dim, shape.value_dim));
  std::vector<uint32_t> pages(page_count);
  for (uint32_t i = 0; i < page_count; i++) pages[i] = i;
  AttentionArgs args = {};
  args.query = query.data();
  args.query_stride = args.output_stride = width;
  args.output = output.data();
  args.heads = shape.heads;
  args.kv_heads = shape.kv_heads;
  args.head_dim = shape.head_dim;
  args.value_dim = shape.value_dim;
  args.scale = 1.0f / std::sqrt(static_cast<float>(shape.head_dim));
  args.first_position = shape.first_position;
  args.token_end = shape.tokens;
  args.pages = pages.data();
  args.page_positions = page_positions;
  args.keys = keys;
  args.values = shape.values_in_keys ? nullptr : keys + cache;
  args.scratch = scratch.data();
  double best = 1e300;
  for (int repeat = 0; repeat < 7; repeat++) {
    const auto start = std::chrono::steady_clock::now();
    for (uint32_t head = 0; head < shape.kv_heads; head++) {
      args.head_begin = head * (shape.heads / shape.kv_heads);
      args.head_end = args.head_begin + shape.heads / shape.kv_heads;
      kernels.attention(args);
    }
    const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start;
    best = std::min(best, seconds.count());
  }
  const double pairs = shape.tokens * (shape.first_position + (shape.tokens + 1) / 2.0) * shape.heads;
  const double bytes = 4.0 * positions * shape.kv_heads * cached_dim;
  printf("%-6s heads %u/%u x %u/%u  %3u tokens after %-5u %8.3f ms %7.1f GFLOP/s %6.1f GB/s of cache\n", kernels.name,
         shape.heads, shape.kv_heads, shape.head_dim, shape.value_dim, shape.tokens, shape.first_position, best * 1e3,
         2 * pairs * (shape.head_dim + shape.value_dim) / best / 1e9, bytes / best / 1e9);
}

}  // namespace

int main() {
  const Shape shapes[] = {{32, 8, 128, 128, 0, 512},  {32, 8, 128, 128, 2048, 64}, {8, 8, 64, 64, 0, 512},
                          {32, 8, 128, 128, 8191, 1}, {32, 8, 64, 64, 8191, 1},    {8, 8, 128, 128, 8191, 1},
                          // multi-head latent attention of DeepSeek-V2-Lite
                          {16, 1, 576, 512, 0, 256, true}, {16, 1, 576, 512, 8191, 1, true}};
  for (const KernelTable* kernels : {avx512_kernels(), avx2_kernels(), neon_kernels(), &scalar_kernels()}) {
    if (kernels == nullptr) continue;
    for (const Shape& shape : shapes) print_rate(*kernels, shape);
  }
  return 0;
}
