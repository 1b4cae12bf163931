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
    const uint32_t window = index / kWindowUnits, within = index % kWindowUnits;
    const uint32_t windows = (layout.columns + kWindowColumns - 1) / kWindowColumns;
    const uint32_t steps = (min(layout.columns - kWindowColumns * window, kWindowColumns) + 63) / 64;
    const uint8_t* const header = row + layout.block + kWindowHeaderBytes * size_t{window};
    const uint8_t* const data = row + layout.block + kWindowHeaderBytes * size_t{windows} + 704 * size_t{window};
    const uint8_t* const codes = data + 64 * steps;
    Unit unit;
    load_any(data + 16 * within, unit.words);
    load_codes(codes + 6 * within, unit.codes);
    unit.least = __ldg(header);
    // Codes are looked through from the window's first on: most units have no escape before them, and all lanes read the
    // same lines.
    uint32_t escapes = min(load_short(header + 1), layout.block);
    uint32_t before = 0;
    for (; before + 4 <= within; before += 4) {
      uint32_t words[6];
      load_any(codes + 6 * before, words);
      escapes += count_sevens(words);
    }
    for (; before < within; ++before) {
      uint32_t two[2];
      load_codes(codes + 6 * before, two);
      escapes += __popc(sevens_of(two[0])) + __popc(sevens_of(two[1]));
    }
    unit.escape = row + escapes;
    return unit;
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
  __device__ static __forceinline__ void load_codes(const uint8_t* source, uint32_t (&codes)[2]) {
    const uint32_t first = load_short(source), second = load_short(source + 2), third = load_short(source + 4);
    codes[0] = first | (second & 255) << 16;
    codes[1] = second >> 8 | third << 8;
  }
  // In 64 codes, of which eight are 24 bits.
  __device__ static __forceinline__ uint32_t count_sevens(const uint32_t (&words)[6]) {
    uint32_t count = 0;
#pragma unroll
    for (uint32_t i = 0; i < 6; i += 3) {
      count += __popc(sevens_of(words[i] & 0xffffffu));
      count += __popc(sevens_of(words[i] >> 24 | (words[i + 1] & 0xffffu) << 8));
      count += __popc(sevens_of(words[i + 1] >> 16 | (words[i + 2] & 255u) << 16));
      count += __popc(sevens_of(words[i + 2] >> 8));
    }
    return count;
  }
};

}  // namespace layerstream::cuda
