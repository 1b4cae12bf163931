// Rate of attention on one core: arithmetic for prompts, bytes of the cache for single tokens. An argument names the
// only kernels to measure.
#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <random>
#include <string>
#include <vector>

#include "../../native/cpu/kernels.h"
#include "../../native/platform/memory.h"

using namespace layerstream;
using namespace layerstream::cpu;

namespace {

struct Shape {
  uint32_t heads, kv_heads, head_dim, value_dim, first_position, tokens;
  bool values_in_keys = false;
};

void print_rate(const KernelTable& kernels, const Shape& shape, KvFormat format) {
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
  const uint32_t value_dim = shape.values_in_keys ? 0 : shape.value_dim;
  const size_t values_offset = shape.kv_heads * kv_block_bytes(format, page_positions, shape.head_dim);
  const size_t page_bytes = align_up(values_offset + shape.kv_heads * kv_block_bytes(format, page_positions, value_dim), kPageBytes);
  Arena cache(page_count * page_bytes);
  const std::vector<float> vector = filled(std::max(shape.head_dim, value_dim));
  const auto fill = [&](uint8_t* block, uint32_t dim) {
    float* scales = reinterpret_cast<float*>(block + kv_scales_offset(page_positions, dim));
    for (uint32_t i = 0; i < page_positions; i++) {
      kernels.encode_kv(format, vector.data(), dim, block + size_t{i} * dim * kv_element_bytes(format), scales + i);
    }
  };
  for (uint32_t page = 0; page < page_count; page++) {
    for (uint32_t head = 0; head < shape.kv_heads; head++) {
      uint8_t* start = cache.data() + page * page_bytes;
      fill(start + head * kv_block_bytes(format, page_positions, shape.head_dim), shape.head_dim);
      if (value_dim > 0) fill(start + values_offset + head * kv_block_bytes(format, page_positions, value_dim), value_dim);
    }
  }
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
  args.kv_format = format;
  args.page_bytes = page_bytes;
  args.keys = cache.data();
  args.values = shape.values_in_keys ? nullptr : cache.data() + values_offset;
  args.scratch = scratch.data();
  double best = 1e300;
  for (int repeat = 0; repeat < (shape.tokens > 1 ? 3 : 7); repeat++) {
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
  const double bytes = static_cast<double>(page_bytes) / page_positions * positions;
  printf("%-6s %-4s heads %u/%u x %u/%u  %3u tokens after %-5u %8.3f ms %7.1f GFLOP/s %6.1f GB/s of cache\n", kernels.name,
         kKvFormatNames[static_cast<size_t>(format)], shape.heads, shape.kv_heads, shape.head_dim, shape.value_dim, shape.tokens,
         shape.first_position, best * 1e3, 2 * pairs * (shape.head_dim + shape.value_dim) / best / 1e9, bytes / best / 1e9);
}

}  // namespace

int main(int argument_count, char** arguments) {
  const Shape shapes[] = {{32, 8, 128, 128, 0, 512},  {32, 8, 128, 128, 8192, 32}, {32, 8, 128, 128, 32768, 32}, {8, 8, 64, 64, 0, 512},
                          {32, 8, 128, 128, 8191, 1}, {32, 8, 64, 64, 8191, 1},    {8, 8, 128, 128, 8191, 1},
                          // multi-head latent attention of DeepSeek-V2-Lite
                          {16, 1, 576, 512, 0, 256, true}, {16, 1, 576, 512, 8191, 1, true}};
  for (const KernelTable* kernels : {avx512_kernels(), avx2_kernels(), neon_kernels(), &scalar_kernels()}) {
    if (kernels == nullptr || (argument_count > 1 && std::string(arguments[1]) != kernels->name)) continue;
    for (const KvFormat format : {KvFormat::kF32, KvFormat::kBF16, KvFormat::kQ8}) {
      for (const Shape& shape : shapes) print_rate(*kernels, shape, format);
    }
  }
  return 0;
}
