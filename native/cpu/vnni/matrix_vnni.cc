// Products of many tokens in 16-bit integers: vpdpwssd does 32 multiply-adds, twice as many as float32 has.
//
// Groups of 128 columns are block floating point: the weights of a row and the activations of a token become integers,
// with one scale a group. Products are summed exactly over a part of 16 columns; the eight parts of a group are added as
// float32 in order, and groups in ascending order by one multiply-add each: a value depends on its row and token only.
// By the Cauchy-Schwarz inequality no sum of a part exceeds the product of the two parts' Euclidean norms, so it fits in
// 31 bits if no part of a group of weights has a norm above 2^15, and none of activations one above 2^16, less what
// rounding may add. A typical integer then has 13 significant bits; results err by about 3e-5 of their root mean square
// with bf16 weights, 5e-5 with others.
//
//   prepared   [32 tokens][group]: TokenGroup<32>; TokenGroup<16> where no more than 16 tokens are left
//   panel      [6 rows][group]: RowGroup
//
// Lanes are tokens, weights are broadcast: rows are packed in the order in which they lie in memory.
#if defined(__x86_64__) || defined(_M_X64)

#include <cmath>

#include "../avx512/simd.h"
#include "../functions.h"
#include "products.h"

namespace layerstream::cpu::vnni {

namespace {

using avx512::Floats;

constexpr uint32_t kLanes = 16;
constexpr uint32_t kGroup = 128;
constexpr uint32_t kPairs = kGroup / 2;
constexpr uint32_t kVectors = kGroup / kLanes;
constexpr uint32_t kTileTokens = 2 * kLanes;
constexpr uint32_t kTileRows = 6;

// Of the integers of a part. Rounding adds at most sqrt(16) / 2 to a norm.
constexpr float kWeightNorm = 32764.0f;
constexpr float kActivationNorm = 65532.0f;
constexpr float kLargestInteger = 32767.0f;
constexpr uint32_t kPartPairs = 8;
static_assert((32764.0 + 2.1) * (65532.0 + 2.1) < 2147483648.0 * (1 - 1e-5));

constexpr uint32_t kPanelTiles = 8;
constexpr uint32_t kPanelRows = kPanelTiles * kTileRows;
// Groups of a panel that stay in the second-level cache while all tokens pass.
constexpr uint32_t kBlockGroups = 16;
// Groups of a tile of tokens that stay in the first-level cache while the rows of the panel pass.
constexpr uint32_t kSpanGroups = 2;
static_assert(kPanelRows % kLanes == 0 && kBlockGroups % kSpanGroups == 0);

struct alignas(64) RowGroup {
  int16_t codes[kTileRows][kGroup];
  float scales[kLanes];
};

template <uint32_t kTokens>
struct alignas(64) TokenGroup {
  int16_t codes[kPairs][kTokens][2];
  float scales[kTokens];
};

constexpr uint32_t smaller(uint32_t a, uint32_t b) { return a < b ? a : b; }
constexpr uint32_t quotient_up(uint32_t a, uint32_t b) { return a / b + (a % b != 0); }
constexpr uint32_t groups_of(uint32_t columns) { return quotient_up(columns, kGroup); }

// --- groups of floats to integers --------------------------------------------------------------------------------

// The largest sum of squares of a part, or NaN. Parts are halves of two neighbouring vectors, as round_to_integers orders
// columns.
inline float largest_squares(const Floats values[kVectors]) {
  static_assert(kVectors == 8);
  __m512 sums[4];
  for (uint32_t i = 0; i < 4; ++i) {
    const __m512 low = values[2 * i].v, high = values[2 * i + 1].v;
    sums[i] = _mm512_fmadd_ps(low, low, _mm512_mul_ps(high, high));
  }
  const auto add_halves = [](__m512 a, __m512 b) { return _mm512_add_ps(_mm512_unpacklo_ps(a, b), _mm512_unpackhi_ps(a, b)); };
  const __m512d first = _mm512_castps_pd(add_halves(sums[0], sums[1]));
  const __m512d second = _mm512_castps_pd(add_halves(sums[2], sums[3]));
  const __m512 quarters = _mm512_add_ps(_mm512_castpd_ps(_mm512_unpacklo_pd(first, second)),
                                        _mm512_castpd_ps(_mm512_unpackhi_pd(first, second)));
  const __m512 halves = _mm512_add_ps(quarters, _mm512_shuffle_f32x4(quarters, quarters, 0xb1));
  // As bits, NaN is larger than any number.
  return _mm_cvtss_f32(_mm_castsi128_ps(_mm_cvtsi32_si128(avx512::largest(avx512::absolute_bits({halves})))));
}

inline float largest_magnitude(const Floats values[kVectors]) {
  constexpr int kMagnitude = 0x0b;
  Floats largest = avx512::broadcast(0.0f);
  for (uint32_t v = 0; v < kVectors; ++v) largest.v = _mm512_range_ps(largest.v, values[v].v, kMagnitude);
  return avx512::largest(largest);
}

// For values whose squares leave the range of float32: divides them by 2^exponent. Returns their largest_squares, which
// is NaN if a value is not finite.
[[gnu::noinline]] float normalize(Floats values[kVectors], float& exponent) {
  const __m128 largest = _mm_set_ss(largest_magnitude(values));
  if (_mm_cvtss_f32(largest) > 0.0f) {
    exponent = _mm_cvtss_f32(_mm_getexp_ss(largest, largest));
    for (uint32_t v = 0; v < kVectors; ++v) values[v].v = _mm512_scalef_ps(values[v].v, _mm512_set1_ps(-exponent));
  }
  return largest_squares(values);
}

// The largest Euclidean norm of a part of a group, which is divided by 2^exponent where need be.
inline float norm_of(Floats values[kVectors], float& exponent) {
  exponent = 0.0f;
  float squares = largest_squares(values);
  if (!(squares > 1e-30f && squares < 1e30f)) [[unlikely]] {
    Floats copy[kVectors];
    for (uint32_t v = 0; v < kVectors; ++v) copy[v] = values[v];
    squares = normalize(copy, exponent);
    for (uint32_t v = 0; v < kVectors; ++v) values[v] = copy[v];
  }
  return std::sqrt(squares);
}

inline float times_power(float value, float exponent) {
  return exponent == 0.0f ? value : _mm_cvtss_f32(_mm_scalef_ss(_mm_set_ss(value), _mm_set_ss(exponent)));
}

// Integers of 32 columns: pairs of neighbours in an order that is the same for weights and activations.
inline __m512i round_to_integers(const Floats values[2], __m512 factor) {
  const __m512i low = _mm512_cvtps_epi32(_mm512_mul_ps(values[0].v, factor));
  const __m512i high = _mm512_cvtps_epi32(_mm512_mul_ps(values[1].v, factor));
  return _mm512_packs_epi32(low, high);
}

// Returns the group's scale. A factor that is a power of two keeps weights of few significant bits exact.
template <bool kPowerOfTwo>
inline float pack_row_group(const float* weights, int16_t codes[kGroup]) {
  Floats values[kVectors];
  for (uint32_t v = 0; v < kVectors; ++v) values[v] = avx512::load(weights + v * kLanes);
  float exponent;
  const float norm = norm_of(values, exponent);
  __m512 factor = _mm512_set1_ps(norm > 0.0f ? kWeightNorm / norm : 0.0f);
  if constexpr (kPowerOfTwo) factor = _mm512_and_ps(factor, _mm512_castsi512_ps(_mm512_set1_epi32(0x7f800000)));
  for (uint32_t i = 0; i < kVectors; i += 2) _mm512_storeu_si512(codes + i * kLanes, round_to_integers(values + i, factor));
  if (!(norm > 0.0f)) return norm;
  return times_power(kPowerOfTwo ? 1.0f / _mm512_cvtss_f32(factor) : norm * (1.0f / kWeightNorm), exponent);
}

// One token; its integers as 64 pairs of columns. Returns the group's scale.
inline float pack_token_group(const float* input, uint32_t columns, Floats pairs[kVectors / 2]) {
  Floats values[kVectors];
  for (uint32_t v = 0; v < kVectors; ++v) {
    const uint32_t first = v * kLanes;
    values[v] = columns >= first + kLanes ? avx512::load(input + first)
                : columns > first         ? avx512::load(input + first, columns - first)
                                          : avx512::broadcast(0.0f);
  }
  float exponent;
  const float norm = norm_of(values, exponent);
  const float by_norm = kActivationNorm / norm, by_largest = kLargestInteger / largest_magnitude(values);
  const float factor = norm > 0.0f ? (by_norm < by_largest ? by_norm : by_largest) : 0.0f;
  for (uint32_t i = 0; i < kVectors / 2; ++i) {
    pairs[i].v = _mm512_castsi512_ps(round_to_integers(values + 2 * i, _mm512_set1_ps(factor)));
  }
  return norm > 0.0f ? times_power(1.0f / factor, exponent) : norm;
}

template <uint32_t kTokens>
void pack_tokens(const float* input, size_t stride, uint32_t tokens, uint32_t columns, uint32_t lane,
                 TokenGroup<kTokens>* output) {
  for (uint32_t group = 0; group < groups_of(columns); ++group) {
    Floats pairs[kVectors / 2][kLanes];
    for (uint32_t t = 0; t < kLanes; ++t) {
      Floats packed[kVectors / 2] = {};
      const float* const source = input + t * stride + size_t{group} * kGroup;
      output[group].scales[lane + t] = t < tokens ? pack_token_group(source, columns - group * kGroup, packed) : 0.0f;
      for (uint32_t i = 0; i < kVectors / 2; ++i) pairs[i][t] = packed[i];
    }
    for (uint32_t i = 0; i < kVectors / 2; ++i) {
      avx512::transpose(pairs[i]);
      for (uint32_t p = 0; p < kLanes; ++p) {
        _mm512_storeu_ps(output[group].codes[i * kLanes + p][lane], pairs[i][p].v);
      }
    }
  }
}

// sums + the products of pairs. Of GCC's own pattern for it, loops become mostly moves between registers.
inline void add_products(__m512i& sums, __m512i weights, __m512i activations) {
#if defined(__GNUC__)
  __asm__("vpdpwssd %2, %1, %0" : "+v"(sums) : "v"(weights), "v"(activations));
#else
  sums = _mm512_dpwssd_epi32(sums, weights, activations);
#endif
}

// Left to itself, GCC converts all sums before it adds the first: the next products then wait.
inline void keep_order() {
#if defined(__GNUC__)
  __asm__ volatile("" ::: "memory");
#endif
}

// --- the product -------------------------------------------------------------------------------------------------

// sums[r * kTileTokens + t] += row r times token t, over consecutive groups.
template <uint32_t kTokens>
void multiply_tile(const RowGroup* rows, const TokenGroup<kTokens>* tokens, uint32_t groups, float* sums) {
  constexpr uint32_t kTokenVectors = kTokens / kLanes;
  for (uint32_t group = 0; group < groups; ++group) {
    __m512 totals[kTileRows][kTokenVectors];
#pragma GCC unroll 8
    for (uint32_t part = 0; part < kPairs; part += kPartPairs) {
      __m512i products[kTileRows][kTokenVectors];
      for (uint32_t r = 0; r < kTileRows; ++r) {
        for (uint32_t v = 0; v < kTokenVectors; ++v) products[r][v] = _mm512_setzero_si512();
      }
#pragma GCC unroll 1
      for (uint32_t pair = part; pair < part + kPartPairs; ++pair) {
        __m512i x[kTokenVectors];
        for (uint32_t v = 0; v < kTokenVectors; ++v) x[v] = _mm512_load_si512(tokens[group].codes[pair][v * kLanes]);
#pragma GCC unroll 6
        for (uint32_t r = 0; r < kTileRows; ++r) {
          int32_t both;
          std::memcpy(&both, &rows[group].codes[r][2 * pair], sizeof both);
          const __m512i weights = _mm512_set1_epi32(both);
          for (uint32_t v = 0; v < kTokenVectors; ++v) add_products(products[r][v], weights, x[v]);
        }
      }
#pragma GCC unroll 6
      for (uint32_t r = 0; r < kTileRows; ++r) {
        for (uint32_t v = 0; v < kTokenVectors; ++v) {
          const __m512 sum = _mm512_cvtepi32_ps(products[r][v]);
          totals[r][v] = part == 0 ? sum : _mm512_add_ps(totals[r][v], sum);
          keep_order();
        }
      }
    }
#pragma GCC unroll 6
    for (uint32_t r = 0; r < kTileRows; ++r) {
      const __m512 row_scale = _mm512_set1_ps(rows[group].scales[r]);
      for (uint32_t v = 0; v < kTokenVectors; ++v) {
        float* const sum = sums + r * kTileTokens + v * kLanes;
        const __m512 scale = _mm512_mul_ps(row_scale, _mm512_load_ps(tokens[group].scales + v * kLanes));
        _mm512_store_ps(sum, _mm512_fmadd_ps(totals[r][v], scale, _mm512_load_ps(sum)));
        keep_order();
      }
    }
  }
}

// All rows of a panel, of which `panel_groups` lie from row tile to row tile, with a tile of tokens.
template <uint32_t kTokens>
void multiply_panel(uint32_t count, const RowGroup* panel, uint32_t panel_groups, const TokenGroup<kTokens>* tokens,
                    uint32_t groups, float* sums) {
  for (uint32_t group = 0; group < groups; group += kSpanGroups) {
    for (uint32_t row = 0; row < count; row += kTileRows) {
      const RowGroup* const rows = panel + size_t{row} / kTileRows * panel_groups + group;
      multiply_tile(rows, tokens + group, smaller(kSpanGroups, groups - group), sums + size_t{row} * kTileTokens);
    }
  }
}

// sums: [kPanelRows][kTileTokens]
void write_output(const MatmulArgs& args, uint32_t first_row, uint32_t rows, uint32_t token, uint32_t tokens,
                  const float* sums) {
  for (uint32_t r = 0; r < rows; r += kLanes) {
    const __mmask16 lanes = avx512::first_lanes(smaller(kLanes, rows - r));
    const __m512 scale = _mm512_set1_ps(args.scale);
    for (uint32_t t = 0; t < tokens; t += kLanes) {
      Floats values[kLanes];
      for (uint32_t i = 0; i < kLanes; ++i) values[i] = avx512::load(sums + (r + i) * kTileTokens + t);
      avx512::transpose(values);
      for (uint32_t i = 0; i < smaller(kLanes, tokens - t); ++i) {
        const uint32_t row = first_row + r;
        float* const output = args.output + (token + t + i) * args.output_stride + row;
        __m512 value = values[i].v;
        if (args.row_scale != nullptr) value = _mm512_mul_ps(value, _mm512_maskz_loadu_ps(lanes, args.row_scale + row));
        if (args.bias != nullptr) value = _mm512_add_ps(value, _mm512_maskz_loadu_ps(lanes, args.bias + row));
        value = _mm512_mul_ps(value, scale);
        if (args.accumulate) value = _mm512_add_ps(_mm512_maskz_loadu_ps(lanes, output), value);
        _mm512_mask_storeu_ps(output, lanes, value);
      }
    }
  }
}

constexpr size_t kSumsFloats = size_t{kPanelRows} * kTileTokens;

// --- memory ------------------------------------------------------------------------------------------------------

constexpr uint32_t lanes_of(uint32_t tokens) { return tokens > kLanes ? kTileTokens : kLanes; }
constexpr size_t group_bytes(uint32_t lanes) {
  return lanes == kLanes ? sizeof(TokenGroup<kLanes>) : sizeof(TokenGroup<kTileTokens>);
}

struct Scratch {
  RowGroup* panel;  // [kPanelTiles][group]
  float* sums;      // [tile of tokens][kPanelRows][kTileTokens]
  float* row;       // of decoded weights, up to a whole number of groups

  static size_t bytes(uint32_t columns, uint32_t tokens) {
    const size_t groups = groups_of(columns);
    return 64 + kPanelTiles * groups * sizeof(RowGroup) +
           (quotient_up(tokens, kTileTokens) * kSumsFloats + groups * kGroup) * sizeof(float);
  }

  Scratch(float* memory, uint32_t columns, uint32_t tokens) {
    const size_t groups = groups_of(columns);
    const uintptr_t begin = (reinterpret_cast<uintptr_t>(memory) + 63) & ~uintptr_t{63};
    panel = reinterpret_cast<RowGroup*>(begin);
    sums = reinterpret_cast<float*>(panel + kPanelTiles * groups);
    row = sums + quotient_up(tokens, kTileTokens) * kSumsFloats;
  }
};

// Rows that are missing in the last tile become zero.
template <bool kPowerOfTwo>
void pack_panel(Format format, const MatmulArgs& args, uint32_t first, uint32_t count, const Scratch& scratch) {
  const uint32_t groups = groups_of(args.columns);
  const auto decode = avx512::kTable.dequantize_row[static_cast<size_t>(format)];
  for (uint32_t r = 0; r < quotient_up(count, kTileRows) * kTileRows; ++r) {
    RowGroup* const rows = scratch.panel + size_t{r} / kTileRows * groups;
    if (r < count) decode(args.weight + (first + r) * args.row_bytes, args.columns, args.block, scratch.row);
    for (uint32_t group = 0; group < groups; ++group) {
      int16_t* const codes = rows[group].codes[r % kTileRows];
      float& scale = rows[group].scales[r % kTileRows];
      if (r < count) {
        scale = pack_row_group<kPowerOfTwo>(scratch.row + size_t{group} * kGroup, codes);
      } else {
        std::memset(codes, 0, kGroup * sizeof(int16_t));
        scale = 0.0f;
      }
    }
  }
}

// --- FastKernels -------------------------------------------------------------------------------------------------

// Weights in float32 are worth exact products.
bool supports(Format format, uint32_t, uint32_t) { return format != Format::kF32; }

size_t prepared_bytes(Format, uint32_t, uint32_t columns, uint32_t tokens) {
  const size_t whole = tokens / kTileTokens * group_bytes(kTileTokens);
  const uint32_t left = tokens % kTileTokens;
  return groups_of(columns) * (whole + (left > 0 ? group_bytes(lanes_of(left)) : 0));
}

// The tile that begins with token `token`.
template <class Byte>
Byte* tile_at(Byte* prepared, uint32_t columns, uint32_t token) {
  return prepared + size_t{token} / kTileTokens * groups_of(columns) * group_bytes(kTileTokens);
}

void prepare(Format, const MatmulArgs& args, uint32_t token_begin, uint32_t token_end, uint8_t* prepared) {
  for (uint32_t token = token_begin; token < token_end; token += kLanes) {
    const float* const input = args.input + token * args.input_stride;
    const uint32_t count = smaller(kLanes, token_end - token);
    uint8_t* const tile = tile_at(prepared, args.columns, token);
    if (lanes_of(args.tokens - token / kTileTokens * kTileTokens) == kLanes) {
      pack_tokens(input, args.input_stride, count, args.columns, 0, reinterpret_cast<TokenGroup<kLanes>*>(tile));
    } else {
      pack_tokens(input, args.input_stride, count, args.columns, token % kTileTokens,
                  reinterpret_cast<TokenGroup<kTileTokens>*>(tile));
    }
  }
}

size_t scratch_bytes(Format, uint32_t, uint32_t columns, uint32_t tokens) { return Scratch::bytes(columns, tokens); }

void multiply(Format format, const MatmulArgs& args, const uint8_t* prepared) {
  const Scratch scratch(args.scratch, args.columns, args.tokens);
  const uint32_t groups = groups_of(args.columns);
  const bool is_bfloat = format == Format::kBF16 || format == Format::kBF16Window;
  const auto pack = is_bfloat ? pack_panel<true> : pack_panel<false>;
  std::memset(scratch.row, 0, size_t{groups} * kGroup * sizeof(float));  // columns past the end stay zero
  for (uint32_t row = 0; row < args.rows; row += kPanelRows) {
    const uint32_t rows = smaller(kPanelRows, args.rows - row);
    pack(format, args, row, rows, scratch);
    std::memset(scratch.sums, 0, quotient_up(args.tokens, kTileTokens) * kSumsFloats * sizeof(float));
    for (uint32_t group = 0; group < groups; group += kBlockGroups) {
      const uint32_t count = smaller(kBlockGroups, groups - group);
      for (uint32_t token = 0; token < args.tokens; token += kTileTokens) {
        const uint32_t tokens = smaller(kTileTokens, args.tokens - token);
        const uint8_t* const tile = tile_at(prepared, args.columns, token);
        float* const sums = scratch.sums + token / kTileTokens * kSumsFloats;
        const auto multiply_tokens = [&]<uint32_t kTokens>(const TokenGroup<kTokens>* first) {
          multiply_panel(rows, scratch.panel + group, groups, first + group, count, sums);
        };
        if (lanes_of(tokens) == kLanes) {
          multiply_tokens(reinterpret_cast<const TokenGroup<kLanes>*>(tile));
        } else {
          multiply_tokens(reinterpret_cast<const TokenGroup<kTileTokens>*>(tile));
        }
        if (group + count == groups) write_output(args, row, rows, token, tokens, sums);
      }
    }
  }
}

}  // namespace

extern const FastKernels kMatrixKernels = {supports, prepared_bytes, prepare, scratch_bytes, multiply};

}  // namespace layerstream::cpu::vnni

#endif
