// Blockwise attention, written once over sixteen lanes. Included by each instruction set's attention file.
//
// Rows (a query head of a token) are taken kRows at a time against blocks of kBlockKeys keys at absolute positions
// that are multiples of kBlockKeys, so that a row sees the same blocks, and sums in the same order, whatever rows
// share the tile. Scores have one lane a key: each is one chain of multiply-adds over the head's dimensions.
// Sums of values have one lane a dimension: each is one chain over the row's visible keys.
#include <cmath>

#include "../attention_layout.h"
#include "../functions.h"
#include "exponential.h"
#include "kv_cache.h"

namespace layerstream::cpu::LAYERSTREAM_ISA {
namespace {

using attention_layout::kBlockKeys;
using attention_layout::kRows;
constexpr uint32_t kBlockVectors = kBlockKeys / 16;

struct Scratch {
  float* keys;    // [head_dim][kBlockKeys], transposed
  float* scores;  // [kRows][kBlockKeys]; later the weights of the values
  float* sums;    // [kRows][stride], weighted sums of values
  uint32_t stride;
};

struct Row {
  const float* query;
  float* output;
  float* state;                 // largest, total and sums of parts before and after this; or null
  uint32_t first_key, end_key;  // absolute positions that the row sees; the last one is the row's own
  float scale;                  // of the scores
  float slope;                  // by which a score rises from one key to the next
  float largest;                // of the scores so far
  float total;                  // of the weights so far, relative to `largest`
};

// Keys of a block that some row of the tile sees, at block + begin ... block + end - 1.
struct Block {
  uint32_t begin, end;
  const uint8_t* keys[kBlockKeys];
  const uint8_t* values[kBlockKeys];
  float key_scales[kBlockKeys];  // where the cache's format has scales
  float value_scales[kBlockKeys];

  bool has(uint32_t key) const { return key >= begin && key < end; }
};

// The block at `position`, of which keys [begin, end) (absolute) are seen.
template <KvFormat kFormat>
inline void find_block(const AttentionArgs& args, uint32_t position, uint32_t begin, uint32_t end, Block& block) {
  block.begin = begin > position ? begin - position : 0;
  block.end = end < position + kBlockKeys ? end - position : kBlockKeys;
  const bool values_in_keys = args.values == nullptr;
  const size_t kv_head = args.head_begin / (args.heads / args.kv_heads);
  const size_t key_offset = kv_head * kv_block_bytes(kFormat, args.page_positions, args.head_dim);
  const size_t value_offset = kv_head * kv_block_bytes(kFormat, args.page_positions, args.value_dim);
  const size_t key_scales = kv_scales_offset(args.page_positions, args.head_dim);
  const size_t value_scales = kv_scales_offset(args.page_positions, args.value_dim);
  uint32_t page_index = (position + block.begin) / args.page_positions;
  uint32_t within = (position + block.begin) % args.page_positions;
  for (uint32_t i = block.begin; i < block.end; i++) {
    const size_t page = args.pages[page_index] * args.page_bytes;
    const uint8_t* keys = args.keys + page + key_offset;
    const uint8_t* values = values_in_keys ? keys : args.values + page + value_offset;
    block.keys[i] = keys + size_t{within} * args.head_dim * kv_element_bytes(kFormat);
    block.values[i] = values_in_keys ? block.keys[i] : values + size_t{within} * args.value_dim * kv_element_bytes(kFormat);
    if constexpr (kFormat == KvFormat::kQ8) {
      std::memcpy(&block.key_scales[i], keys + key_scales + within * sizeof(float), sizeof(float));
      const uint8_t* scale = values_in_keys ? keys + key_scales : values + value_scales;
      std::memcpy(&block.value_scales[i], scale + within * sizeof(float), sizeof(float));
    }
    if (++within == args.page_positions) {
      within = 0;
      page_index++;
    }
  }
}

// Keys outside the block's range become zeros; their scores are never used. `next` is null after the last block.
//
// With each tile of 16 keys and 16 dimensions, its share of the block's values and of the next block's keys is asked
// for, row after row, so that single tokens read the cache at nearly the memory's rate. (Not in a function of its own:
// GCC takes one that only prefetches for one without effect and drops its calls.)
template <KvFormat kFormat>
inline void transpose_keys(const AttentionArgs& args, const Block& block, const Block* next, float* target) {
  constexpr uint32_t kLine = 64;
  const uint32_t head_dim = args.head_dim;
  const uint32_t key_bytes = head_dim * kv_element_bytes(kFormat);
  const uint32_t value_bytes = args.values == nullptr ? 0 : args.value_dim * kv_element_bytes(kFormat);
  for (uint32_t first = 0; first < kBlockKeys; first += 16) {
    if (first + 16 <= block.begin || first >= block.end) continue;
    const bool whole = block.has(first) && block.has(first + 15);
    for (uint32_t d = 0; d < head_dim; d += 16) {
      const uint32_t share_end = first + (d + 16 < head_dim ? 16 * (d + 16) / head_dim : 16);
      for (uint32_t key = first + 16 * d / head_dim; key < share_end; key++) {
        for (uint32_t byte = 0; block.has(key) && byte < value_bytes; byte += kLine) {
          prefetch(reinterpret_cast<const float*>(block.values[key] + byte));
        }
        for (uint32_t byte = 0; next != nullptr && next->has(key) && byte < key_bytes; byte += kLine) {
          prefetch(reinterpret_cast<const float*>(next->keys[key] + byte));
        }
      }
      const uint32_t left = head_dim - d < 16 ? head_dim - d : 16;
      Floats vectors[16];
      if (whole && left == 16) {
        for (uint32_t i = 0; i < 16; i++) {
          vectors[i] = load_cached<kFormat>(block.keys[first + i], d, block.key_scales[first + i]);
        }
        transpose(vectors);
        for (uint32_t i = 0; i < 16; i++) store(target + (d + i) * kBlockKeys + first, vectors[i]);
        continue;
      }
      for (uint32_t i = 0; i < 16; i++) {
        const uint32_t key = first + i;
        vectors[i] = block.has(key) ? load_cached<kFormat>(block.keys[key], d, block.key_scales[key], left) : broadcast(0.0f);
      }
      transpose(vectors);
      for (uint32_t i = 0; i < left; i++) store(target + (d + i) * kBlockKeys + first, vectors[i]);
    }
  }
}

template <int kCount, int kVectors>
inline void score_rows(const Row* rows, const float* keys, uint32_t head_dim, float* scores) {
  for (uint32_t v = 0; v < kBlockVectors; v += kVectors) {
    Floats sums[kCount][kVectors];
    for (int r = 0; r < kCount; r++) {
      for (int k = 0; k < kVectors; k++) sums[r][k] = broadcast(0.0f);
    }
    const float* column = keys + 16 * v;
    for (uint32_t d = 0; d < head_dim; d++, column += kBlockKeys) {
      Floats vectors[kVectors];
      for (int k = 0; k < kVectors; k++) vectors[k] = load(column + 16 * k);
      for (int r = 0; r < kCount; r++) {
        const Floats query = broadcast(rows[r].query[d]);
        for (int k = 0; k < kVectors; k++) sums[r][k] = multiply_add(query, vectors[k], sums[r][k]);
      }
    }
    for (int r = 0; r < kCount; r++) {
      const Floats scale = broadcast(rows[r].scale);
      for (int k = 0; k < kVectors; k++) store(scores + r * kBlockKeys + 16 * (v + k), sums[r][k] * scale);
    }
  }
}

// A row's visible part of a block, relative to the block.
struct Range {
  uint32_t begin, end;
};

inline Range visible(const Row& row, uint32_t position) {
  const uint32_t begin = row.first_key > position ? row.first_key - position : 0;
  const uint32_t end = row.end_key > position ? row.end_key - position : 0;
  return {begin < kBlockKeys ? begin : kBlockKeys, end < kBlockKeys ? end : kBlockKeys};
}

// first, first + 1, ... first + 15
inline Floats count_from(float first) {
  static constexpr float kLanes[16] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
  return load(kLanes) + broadcast(first);
}

// Lanes outside the range become `outside`; `first` is the block index of lane 0.
inline Floats keep_range(Floats value, uint32_t first, Range range, Floats outside) {
  if (first >= range.begin && first + 16 <= range.end) return value;
  const Floats index = count_from(static_cast<float>(first));
  const Floats before_end = select_less(index, broadcast(static_cast<float>(range.end)), value, outside);
  return select_less(index, broadcast(static_cast<float>(range.begin)), outside, before_end);
}

// What the options do to the scores of a row for the block at `position`. Inlined, it would slow the tile without options.
[[gnu::noinline]] void adjust_scores(const AttentionArgs& args, const Row& row, uint32_t position, float* scores) {
  const Floats cap = broadcast(args.soft_cap);
  const Floats slope = broadcast(row.slope);
  const float distance = static_cast<float>(int64_t{position} - (int64_t{row.end_key} - 1));
  for (uint32_t i = 0; i < kBlockKeys; i += 16) {
    Floats score = load(scores + i);
    if (args.soft_cap != 0.0f) score = cap * hyperbolic_tangent(score / cap);
    if (args.slopes != nullptr) score = multiply_add(slope, count_from(distance + static_cast<float>(i)), score);
    store(scores + i, score);
  }
}

// Turns the scores of a row into weights relative to the largest score so far, and brings the row's sums to it.
inline void weigh_row(Row& row, Range range, float* scores, float* sums, uint32_t stride) {
  const Floats lowest = broadcast(-INFINITY);
  Floats vectors[kBlockVectors];
  Floats top = lowest;
  for (uint32_t v = 0; v < kBlockVectors; v++) {
    vectors[v] = keep_range(load(scores + 16 * v), 16 * v, range, lowest);
    top = maximum(top, vectors[v]);
  }
  const float block_largest = largest(top);
  if (block_largest > row.largest) {
    float correction[16];
    store(correction, exponential(broadcast(row.largest - block_largest)));
    row.largest = block_largest;
    row.total *= correction[0];
    for (uint32_t d = 0; d < stride; d += 16) store(sums + d, load(sums + d) * broadcast(correction[0]));
  }
  const Floats base = broadcast(row.largest);
  Floats total = broadcast(0.0f);
  for (uint32_t v = 0; v < kBlockVectors; v++) {
    const Floats weight = exponential(vectors[v] - base);
    store(scores + 16 * v, weight);
    total = total + weight;
  }
  row.total += sum(total);
}

// sums[r] += weights[r][key] * values[key] for the keys of a range, in ascending order.
template <KvFormat kFormat, int kCount, int kVectors>
inline void add_values(const Block& block, Range range, const float* weights, float* sums, uint32_t stride,
                       uint32_t value_dim) {
  for (uint32_t d = 0; d < value_dim; d += 16 * kVectors) {
    const uint32_t vectors_left = (value_dim - d + 15) / 16;
    const int count = vectors_left < kVectors ? static_cast<int>(vectors_left) : kVectors;
    const bool whole = d + 16 * kVectors <= value_dim;
    if (whole) {
      Floats totals[kCount][kVectors];
      for (int r = 0; r < kCount; r++) {
        for (int k = 0; k < kVectors; k++) totals[r][k] = load(sums + r * stride + d + 16 * k);
      }
      for (uint32_t key = range.begin; key < range.end; key++) {
        Floats vectors[kVectors];
        for (int k = 0; k < kVectors; k++) {
          vectors[k] = load_cached<kFormat>(block.values[key], d + 16 * k, block.value_scales[key]);
        }
        for (int r = 0; r < kCount; r++) {
          const Floats weight = broadcast(weights[r * kBlockKeys + key]);
          for (int k = 0; k < kVectors; k++) totals[r][k] = multiply_add(weight, vectors[k], totals[r][k]);
        }
      }
      for (int r = 0; r < kCount; r++) {
        for (int k = 0; k < kVectors; k++) store(sums + r * stride + d + 16 * k, totals[r][k]);
      }
      continue;
    }
    for (int k = 0; k < count; k++) {
      const uint32_t column = d + 16 * k;
      const uint32_t left = value_dim - column < 16 ? value_dim - column : 16;
      Floats totals[kCount];
      for (int r = 0; r < kCount; r++) totals[r] = load(sums + r * stride + column);
      for (uint32_t key = range.begin; key < range.end; key++) {
        const uint8_t* values = block.values[key];
        const float scale = block.value_scales[key];
        const Floats vector = left == 16 ? load_cached<kFormat>(values, column, scale)
                                         : load_cached<kFormat>(values, column, scale, left);
        for (int r = 0; r < kCount; r++) {
          totals[r] = multiply_add(broadcast(weights[r * kBlockKeys + key]), vector, totals[r]);
        }
      }
      for (int r = 0; r < kCount; r++) store(sums + r * stride + column, totals[r]);
    }
  }
}

// The keys that all kCount rows see are shared; those that only some see are added row by row, before and after.
template <KvFormat kFormat, int kCount, int kVectors>
inline void process_rows(const AttentionArgs& args, Row* rows, const Block& block, uint32_t position,
                         const Scratch& scratch) {
  Range ranges[kCount];
  Range common = {0, kBlockKeys};
  bool some = false;
  for (int r = 0; r < kCount; r++) {
    ranges[r] = visible(rows[r], position);
    some = some || ranges[r].begin < ranges[r].end;
    common.begin = ranges[r].begin > common.begin ? ranges[r].begin : common.begin;
    common.end = ranges[r].end < common.end ? ranges[r].end : common.end;
  }
  if (!some) return;
  score_rows<kCount, kVectors>(rows, scratch.keys, args.head_dim, scratch.scores);
  for (int r = 0; r < kCount; r++) {
    if (ranges[r].begin >= ranges[r].end) continue;
    float* const scores = scratch.scores + r * kBlockKeys;
    if (args.soft_cap != 0.0f || args.slopes != nullptr) adjust_scores(args, rows[r], position, scores);
    weigh_row(rows[r], ranges[r], scores, scratch.sums + r * scratch.stride, scratch.stride);
  }
  const bool shared = common.begin < common.end;
  const auto add_alone = [&](int r, Range range) {
    add_values<kFormat, 1, 4>(block, range, scratch.scores + r * kBlockKeys, scratch.sums + r * scratch.stride, scratch.stride,
                     args.value_dim);
  };
  for (int r = 0; r < kCount; r++) add_alone(r, {ranges[r].begin, shared ? common.begin : ranges[r].end});
  if (!shared) return;
  add_values<kFormat, kCount, kVectors>(block, common, scratch.scores, scratch.sums, scratch.stride, args.value_dim);
  for (int r = 0; r < kCount; r++) add_alone(r, {common.end, ranges[r].end});
}

// One tile: all keys that any of its rows sees, block by block.
template <KvFormat kFormat>
inline void attend(const AttentionArgs& args, Row* rows, uint32_t count, const Scratch& scratch) {
  uint32_t begin = rows[0].first_key, end = rows[0].end_key;
  for (uint32_t r = 1; r < count; r++) {
    begin = rows[r].first_key < begin ? rows[r].first_key : begin;
    end = rows[r].end_key > end ? rows[r].end_key : end;
  }
  for (uint32_t r = 0; r < count; r++) {
    float* const sums = scratch.sums + r * scratch.stride;
    const uint32_t kept = args.begins ? 0 : args.value_dim;
    for (uint32_t d = 0; d < kept; d++) sums[d] = rows[r].state[2 + d];
    for (uint32_t d = kept; d < scratch.stride; d++) sums[d] = 0.0f;
  }
  begin = begin > args.part_begin ? begin : args.part_begin;
  end = end < args.part_end ? end : args.part_end;
  if (begin >= end) return;
  uint32_t position = begin / kBlockKeys * kBlockKeys;
  Block blocks[2];
  Block* block = &blocks[0];
  Block* next = &blocks[1];
  find_block<kFormat>(args, position, begin, end, *block);
  for (; position < end; position += kBlockKeys) {
    const bool last = end - position <= kBlockKeys;
    if (!last) find_block<kFormat>(args, position + kBlockKeys, begin, end, *next);
    transpose_keys<kFormat>(args, *block, last ? nullptr : next, scratch.keys);
    const auto process = [&]<int kCount, int kVectors>(uint32_t first) {
      const Scratch part = {scratch.keys, scratch.scores + first * kBlockKeys, scratch.sums + first * scratch.stride,
                            scratch.stride};
      process_rows<kFormat, kCount, kVectors>(args, rows + first, *block, position, part);
    };
    uint32_t r = 0;
    for (; r + kTileRows <= count; r += kTileRows) process.template operator()<kTileRows, kTileVectors>(r);
    for (; r + kTileRows / 2 <= count; r += kTileRows / 2) {
      process.template operator()<kTileRows / 2, 2 * kTileVectors>(r);
    }
    for (; r < count; r++) process.template operator()<1, 4>(r);
    Block* const done = block;
    block = next;
    next = done;
  }
}

inline void write_row(const AttentionArgs& args, const Row& row, const float* sums) {
  const uint32_t value_dim = args.value_dim;
  if (!args.ends) {
    row.state[0] = row.largest;
    row.state[1] = row.total;
    for (uint32_t d = 0; d < value_dim; d++) row.state[2 + d] = sums[d];
    return;
  }
  const Floats inverse = broadcast(1.0f / row.total);
  for (uint32_t d = 0; d < value_dim; d += 16) {
    const uint32_t left = value_dim - d < 16 ? value_dim - d : 16;
    store(row.output + d, load(sums + d) * inverse, left);
  }
}

inline Row make_row(const AttentionArgs& args, size_t token, size_t head) {
  const uint32_t end = args.first_position + static_cast<uint32_t>(token) + 1;
  Row row;
  row.query = args.query + token * args.query_stride + head * args.head_dim;
  row.output = args.output + token * args.output_stride + head * args.value_dim;
  row.state = args.state == nullptr ? nullptr : args.state + (token * args.heads + head) * (size_t{args.value_dim} + 2);
  row.first_key = args.window != 0 && end > args.window ? end - args.window : 0;
  row.end_key = end;
  row.scale = args.scale;
  if (args.logn_length != 0 && end > args.logn_length) {
    row.scale *= static_cast<float>(std::log(static_cast<double>(end)) / std::log(static_cast<double>(args.logn_length)));
  }
  row.slope = args.slopes == nullptr ? 0.0f : args.slopes[head];
  if (!args.begins) {
    row.largest = row.state[0];
    row.total = row.state[1];
    return row;
  }
  // A sink is as a key that comes first and whose value is 0.
  row.largest = args.sinks == nullptr ? -INFINITY : args.sinks[head];
  row.total = args.sinks == nullptr ? 0.0f : 1.0f;
  return row;
}

template <KvFormat kFormat>
void attend_all(const AttentionArgs& args) {
  Scratch scratch;
  scratch.stride = attention_layout::padded(args.value_dim);
  // Vectors that cross cache lines cost twice; the scratch has room for this.
  const uintptr_t aligned = (reinterpret_cast<uintptr_t>(args.scratch) + 63) & ~uintptr_t{63};
  scratch.keys = reinterpret_cast<float*>(aligned);
  scratch.scores = scratch.keys + size_t{attention_layout::padded(args.head_dim)} * kBlockKeys;
  scratch.sums = scratch.scores + kRows * kBlockKeys;

  const uint32_t heads = args.head_end - args.head_begin;
  const size_t rows_left = size_t{args.token_end - args.token_begin} * heads;
  Row rows[kRows];
  for (size_t first = 0; first < rows_left; first += kRows) {
    const uint32_t count = rows_left - first < kRows ? static_cast<uint32_t>(rows_left - first) : kRows;
    for (uint32_t r = 0; r < count; r++) {
      rows[r] = make_row(args, args.token_begin + (first + r) / heads, args.head_begin + (first + r) % heads);
    }
    attend<kFormat>(args, rows, count, scratch);
    for (uint32_t r = 0; r < count; r++) write_row(args, rows[r], scratch.sums + r * scratch.stride);
  }
}

}  // namespace

void attention(const AttentionArgs& args) {
  switch (args.kv_format) {
    case KvFormat::kBF16:
      return attend_all<KvFormat::kBF16>(args);
    case KvFormat::kQ8:
      return attend_all<KvFormat::kQ8>(args);
    default:
      return attend_all<KvFormat::kF32>(args);
  }
}

}  // namespace layerstream::cpu::LAYERSTREAM_ISA
