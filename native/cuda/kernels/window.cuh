// bf16_window (backend/format.h). A unit is sixteen places of a step: columns 8 * l + i and 32 + 8 * l + i for one l.
#pragma once

#include "weights.cuh"

namespace layerstream::cuda {

template <>
struct Codec<Format::kBF16Window> {
  static constexpr uint32_t kUnit = 16, kPadding = 64, kScaleQuads = 4, kItemQuads = 4;
  static constexpr uint32_t kWindowUnits = kWindowColumns / kUnit;
  struct Unit {
    uint32_t words[4];
    uint32_t codes[2];  // of eight places each
    const uint8_t* escape;  // the unit's first
    uint32_t least;
  };

  // Of the codes of eight places, those that are 7 have a bit set.
  __device__ static __forceinline__ uint32_t sevens_of(uint32_t codes) { return codes & codes >> 1 & codes >> 2 & 0x249249u; }

  __device__ static __forceinline__ Unit load(const RowLayout& layout, const uint8_t* row, uint32_t index) {
    Unit unit = begin(layout, row, index);
    // Codes are looked through from the window's first on: all lanes read the same lines.
    const uint32_t within = index % kWindowUnits;
    const uint8_t* const codes = codes_of(layout, row, index / kWindowUnits);
    for (uint32_t before = 0; before < within; ++before) {
      uint32_t two[2];
      load_codes(codes + 6 * before, two);
      unit.escape += count_sevens(two);
    }
    return unit;
  }
  // Without the escapes of the window's units before: settle counts them, where a warp has a window.
  __device__ static __forceinline__ Unit begin(const RowLayout& layout, const uint8_t* row, uint32_t index) {
    const uint32_t window = index / kWindowUnits, within = index % kWindowUnits;
    const uint8_t* const header = row + layout.block + kWindowHeaderBytes * size_t{window};
    Unit unit;
    load_any(data_of(layout, row, window) + 16 * within, unit.words);
    load_codes(codes_of(layout, row, window) + 6 * within, unit.codes);
    unit.least = __ldg(header);
    unit.escape = row + min(load_short(header + 1), layout.block);
    return unit;
  }
  // All lanes of a warp, which have the units of a window in their order; some do not exist.
  __device__ static __forceinline__ void settle(Unit& unit, bool exists) {
    const uint32_t own = exists ? count_sevens(unit.codes) : 0;
    uint32_t escapes = own;
#pragma unroll
    for (uint32_t distance = 1; distance < kWarpThreads; distance *= 2) {
      const uint32_t before = __shfl_up_sync(kAllLanes, escapes, distance);
      if (threadIdx.x % kWarpThreads >= distance) escapes += before;
    }
    if (exists) unit.escape += escapes - own;
  }
  __device__ static __forceinline__ uint32_t column(uint32_t index, uint32_t quad) {
    return index / 4 * 64 + quad / 2 * 32 + index % 4 * 8 + quad % 2 * 4;
  }
  __device__ static __forceinline__ void decode(const Unit& unit, uint32_t quad, float (&weights)[4]) {
    const uint32_t codes = unit.codes[quad / 2], first = quad % 2 * 12;
    uint32_t escapes = quad >= 2 ? __popc(sevens_of(unit.codes[0])) : 0;
    escapes += __popc(sevens_of(codes) & ((1u << first) - 1));
#pragma unroll
    for (uint32_t i = 0; i < 4; ++i) {
      const uint32_t code = codes >> (first + 3 * i) & 7, rest = byte_of(unit.words[quad], i);
      uint32_t exponent = unit.least + code;
      if (code == 7) exponent = __ldg(unit.escape + escapes++);
      weights[i] = __uint_as_float(rest << 31 | (exponent & 255) << 23 | (rest & 254) << 15);
    }
  }
  __device__ static __forceinline__ float scale(const Unit&, uint32_t) { return 1.0f; }
  __device__ static __forceinline__ Item item(uint32_t tile, uint32_t i) { return whole_item<Codec>(tile, i); }

 private:
  __device__ static __forceinline__ const uint8_t* data_of(const RowLayout& layout, const uint8_t* row, uint32_t window) {
    const uint32_t windows = (layout.columns + kWindowColumns - 1) / kWindowColumns;
    return row + layout.block + kWindowHeaderBytes * size_t{windows} + 704 * size_t{window};
  }
  __device__ static __forceinline__ const uint8_t* codes_of(const RowLayout& layout, const uint8_t* row, uint32_t window) {
    const uint32_t steps = (min(layout.columns - kWindowColumns * window, kWindowColumns) + 63) / 64;
    return data_of(layout, row, window) + 64 * steps;
  }
  // Six bytes: of the words, the third has some of them only behind three bytes of others.
  __device__ static __forceinline__ void load_codes(const uint8_t* source, uint32_t (&codes)[2]) {
    const uint32_t bytes = alignment_of(source) % 4;
    const uint8_t* const aligned = source - bytes;
    const uint32_t first = load_word(aligned), second = load_word(aligned + 4), third = bytes == 3 ? load_word(aligned + 8) : 0;
    const uint32_t low = __funnelshift_r(first, second, 8 * bytes), high = __funnelshift_r(second, third, 8 * bytes);
    codes[0] = low & 0xffffffu;
    codes[1] = low >> 24 | (high & 0xffffu) << 8;
  }
  __device__ static __forceinline__ uint32_t count_sevens(const uint32_t (&codes)[2]) {
    return __popc(sevens_of(codes[0])) + __popc(sevens_of(codes[1]));
  }
};

}  // namespace layerstream::cuda
