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

#include "../functions.h"
#include "matrix_groups.h"
#include "products.h"

namespace layerstream::cpu::vnni {

namespace {

constexpr uint32_t kPanelTiles = 8;
constexpr uint32_t kPanelRows = kPanelTiles * kTileRows;
// Groups of a panel that stay in the second-level cache while all tokens pass.
constexpr uint32_t kBlockGroups = 16;
// Groups of a tile of tokens that stay in the first-level cache while the rows of the panel pass.
constexpr uint32_t kSpanGroups = 2;
static_assert(kPanelRows % kLanes == 0 && kBlockGroups % kSpanGroups == 0);
// Lines that are fetched with each part: of the rows of the next tile; of the tokens of the next span.
constexpr uint32_t kLine = 64;
constexpr uint32_t kRowLines = 3;
constexpr uint32_t kTokenLines = 2;

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

// Memory that is fetched bit by bit while something else is computed.
struct Fetch {
  const char* next;
  const char* end;
  size_t step;

  void advance() {
    for (size_t line = 0; line < step && next < end; line += kLine, next += kLine) _mm_prefetch(next, _MM_HINT_T1);
  }
};

// sums[r * kTileTokens + t] += row r times token t, over consecutive groups. What is at `next_rows` and `next_tokens` is
// fetched meanwhile. Inlined, it would share its registers.
template <uint32_t kTokens>
[[gnu::noinline]] void multiply_tile(const RowGroup* rows, const TokenGroup<kTokens>* tokens, uint32_t groups, float* sums,
                   const char* next_rows, const char* next_tokens) {
  constexpr uint32_t kTokenVectors = kTokens / kLanes;
  for (uint32_t group = 0; group < groups; ++group) {
    __m512 totals[kTileRows][kTokenVectors];
#pragma GCC unroll 8
    for (uint32_t part = 0; part < kPairs; part += kPartPairs) {
      __m512i products[kTileRows][kTokenVectors];
      for (uint32_t r = 0; r < kTileRows; ++r) {
        for (uint32_t v = 0; v < kTokenVectors; ++v) products[r][v] = _mm512_setzero_si512();
      }
      for (uint32_t line = 0; line < kRowLines; ++line) _mm_prefetch(next_rows + line * kLine, _MM_HINT_T0);
      for (uint32_t line = 0; line < kTokenLines; ++line) _mm_prefetch(next_tokens + line * kLine, _MM_HINT_T0);
      next_rows += kRowLines * kLine;
      next_tokens += kTokenLines * kLine;
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
                    uint32_t groups, float* sums, Fetch& next_weights) {
  for (uint32_t group = 0; group < groups; group += kSpanGroups) {
    const auto* next_tokens = reinterpret_cast<const char*>(tokens + group + kSpanGroups);
    for (uint32_t row = 0; row < count; row += kTileRows) {
      const RowGroup* const rows = panel + size_t{row} / kTileRows * panel_groups + group;
      const RowGroup* const next_rows = row + kTileRows < count ? rows + panel_groups : panel + group + kSpanGroups;
      multiply_tile(rows, tokens + group, smaller(kSpanGroups, groups - group), sums + size_t{row} * kTileTokens,
                    reinterpret_cast<const char*>(next_rows), next_tokens);
      next_tokens += kSpanGroups * kPairs / kPartPairs * kTokenLines * kLine;
      next_weights.advance();
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

// A row on its way into a panel. Weights of most formats are decoded row by row.
template <bool kPowerOfTwo>
class DecodedRow {
 public:
  DecodedRow(Format format, const MatmulArgs& args, uint32_t index, const Scratch& scratch) : weights_(scratch.row) {
    const auto decode = avx512::kTable.dequantize_row[static_cast<size_t>(format)];
    decode(args.weight + index * args.row_bytes, args.columns, args.block, scratch.row);
  }

  float pack(uint32_t group, int16_t codes[kGroup]) const {
    return pack_row_group<kPowerOfTwo>(weights_ + size_t{group} * kGroup, codes);
  }

 private:
  const float* weights_;
};

// bfloat16 is packed from where it lies.
class PlainRow {
 public:
  PlainRow(Format, const MatmulArgs& args, uint32_t index, const Scratch&)
      : weights_(args.weight + index * args.row_bytes), columns_(args.columns) {}

  float pack(uint32_t group, int16_t codes[kGroup]) const {
    const uint8_t* const weights = weights_ + size_t{group} * kGroup * sizeof(uint16_t);
    const uint32_t count = smaller(kGroup, columns_ - group * kGroup);
    if (count == kGroup) {
      const float scale = pack_bfloat_group(weights, codes);
      if (scale > 0.0f) [[likely]] return scale;
    }
    uint8_t padded[kGroup * sizeof(uint16_t)] = {};
    std::memcpy(padded, weights, count * sizeof(uint16_t));
    float wide[kGroup];
    for (uint32_t v = 0; v < kGroup; v += kLanes) avx512::store(wide + v, avx512::load_bf16(padded + v * sizeof(uint16_t)));
    return pack_row_group<true>(wide, codes);
  }

 private:
  const uint8_t* weights_;
  uint32_t columns_;
};

// Rows that are missing in the last tile become zero.
template <class Row>
void pack_panel(Format format, const MatmulArgs& args, uint32_t first, uint32_t count, const Scratch& scratch) {
  const uint32_t groups = groups_of(args.columns);
  const auto place = [&](uint32_t r) { return scratch.panel + size_t{r} / kTileRows * groups; };
  for (uint32_t r = 0; r < count; ++r) {
    const Row row(format, args, first + r, scratch);
    RowGroup* const rows = place(r);
    for (uint32_t group = 0; group < groups; ++group) {
      rows[group].scales[r % kTileRows] = row.pack(group, rows[group].codes[r % kTileRows]);
    }
  }
  for (uint32_t r = count; r % kTileRows != 0; ++r) {
    RowGroup* const rows = place(r);
    for (uint32_t group = 0; group < groups; ++group) {
      std::memset(rows[group].codes[r % kTileRows], 0, sizeof rows[group].codes[0]);
      rows[group].scales[r % kTileRows] = 0.0f;
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

// The rows of the panel that begins with row `first`, in as many steps as the one before has tiles.
Fetch rows_after(const MatmulArgs& args, uint32_t first) {
  const auto* const begin = reinterpret_cast<const char*>(args.weight) + first * args.row_bytes;
  const size_t bytes = smaller(kPanelRows, args.rows - first) * args.row_bytes;
  const uint32_t spans = quotient_up(groups_of(args.columns), kSpanGroups);
  const size_t steps = size_t{kPanelTiles} * spans * quotient_up(args.tokens, kTileTokens);
  return {begin, begin + bytes, bytes / steps + 1};
}

void multiply(Format format, const MatmulArgs& args, const uint8_t* prepared) {
  const Scratch scratch(args.scratch, args.columns, args.tokens);
  const uint32_t groups = groups_of(args.columns);
  const auto pack = format == Format::kBF16         ? pack_panel<PlainRow>
                    : format == Format::kBF16Window ? pack_panel<DecodedRow<true>>
                                                    : pack_panel<DecodedRow<false>>;
  std::memset(scratch.row, 0, size_t{groups} * kGroup * sizeof(float));  // columns past the end stay zero
  for (uint32_t row = 0; row < args.rows; row += kPanelRows) {
    const uint32_t rows = smaller(kPanelRows, args.rows - row);
    pack(format, args, row, rows, scratch);
    Fetch next_weights = rows_after(args, row + rows);
    std::memset(scratch.sums, 0, quotient_up(args.tokens, kTileTokens) * kSumsFloats * sizeof(float));
    for (uint32_t group = 0; group < groups; group += kBlockGroups) {
      const uint32_t count = smaller(kBlockGroups, groups - group);
      for (uint32_t token = 0; token < args.tokens; token += kTileTokens) {
        const uint32_t tokens = smaller(kTileTokens, args.tokens - token);
        const uint8_t* const tile = tile_at(prepared, args.columns, token);
        float* const sums = scratch.sums + token / kTileTokens * kSumsFloats;
        const auto multiply_tokens = [&]<uint32_t kTokens>(const TokenGroup<kTokens>* first) {
          multiply_panel(rows, scratch.panel + group, groups, first + group, count, sums, next_weights);
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
