// Products of many tokens in 16-bit integers: vpdpwssd does 32 multiply-adds, twice as many as float32 has.
//
// Weights of a row and activations of a token are integers with a scale for each block of a group of 128 columns. Products
// are summed exactly over a part of a block; parts are added as float32 in order, and blocks in ascending order by one
// multiply-add each: a value depends on its row and token only.
//
// Weights that are small integers or levels times a scale (8bit, 4bit, nf4, uint4) are multiplied as they are, with
// activations of 15 bits beside the sign (matrix_codes.h). Others are rounded, with one block a group (matrix_rounding.h):
// by the Cauchy-Schwarz inequality no sum of a part exceeds the product of the two parts' Euclidean norms, so it fits in
// 31 bits if no part of a group has a norm above 2^15.5, or of bfloat16 weights 2^15 and of activations 2^16, less what
// rounding may add. A typical integer then has 13 significant bits; results err by about 3e-5 of their root mean square.
//
//   prepared   [32 tokens][group]: TokenGroup<Layout, 32>; TokenGroup<Layout, 16> where no more than 16 tokens are left
//   panel      [6 rows][group]: RowGroup<Layout>
//
// Lanes are tokens, weights are broadcast: rows are packed in the order in which they lie in memory.
#if defined(__x86_64__) || defined(_M_X64)

#include "../functions.h"
#include "matrix_codes.h"
#include "matrix_rounding.h"
#include "products.h"

namespace layerstream::cpu::vnni {

namespace {

constexpr uint32_t kPanelTiles = 11;
constexpr uint32_t kLeastRows = 48;  // that repay packing and the fetching of tokens
constexpr uint32_t kPanelRows = kPanelTiles * kTileRows;
// Groups of a panel that stay in the second-level cache while all tokens pass.
constexpr uint32_t kBlockGroups = 16;
// Groups of a tile of tokens that stay in the first-level cache while the rows of the panel pass.
constexpr uint32_t kSpanGroups = 2;
static_assert(kBlockGroups % kSpanGroups == 0);
// With every 8 pairs of columns, lines are fetched: of the rows of the next tile; of the tokens of the next span.
constexpr uint32_t kFetchPairs = 8;
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
template <class Layout, uint32_t kTokens>
[[gnu::noinline]] void multiply_tile(const RowGroup<Layout>* rows, const TokenGroup<Layout, kTokens>* tokens,
                                     uint32_t groups, float* sums, const char* next_rows, const char* next_tokens) {
  constexpr uint32_t kTokenVectors = kTokens / kLanes;
  constexpr uint32_t kPartPairs = Layout::kPart / 2;
  constexpr uint32_t kBlockPairs = Layout::kBlock / 2;
  for (uint32_t group = 0; group < groups; ++group) {
#pragma GCC unroll 1
    for (uint32_t block = 0; block < Layout::kBlocks; ++block) {
      __m512 totals[kTileRows][kTokenVectors];
#pragma GCC unroll 8
      for (uint32_t part = 0; part < kBlockPairs; part += kPartPairs) {
        __m512i products[kTileRows][kTokenVectors];
        for (uint32_t r = 0; r < kTileRows; ++r) {
          for (uint32_t v = 0; v < kTokenVectors; ++v) products[r][v] = _mm512_setzero_si512();
        }
        const uint32_t fetches = quotient_up(part + kPartPairs, kFetchPairs) - quotient_up(part, kFetchPairs);
        for (uint32_t i = 0; i < fetches * kRowLines; ++i) _mm_prefetch(next_rows + i * kLine, _MM_HINT_T0);
        for (uint32_t i = 0; i < fetches * kTokenLines; ++i) _mm_prefetch(next_tokens + i * kLine, _MM_HINT_T0);
        next_rows += fetches * kRowLines * kLine;
        next_tokens += fetches * kTokenLines * kLine;
        const uint32_t first = block * kBlockPairs + part;
#pragma GCC unroll 1
        for (uint32_t pair = first; pair < first + kPartPairs; ++pair) {
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
        const __m512 row_scale = _mm512_set1_ps(rows[group].scales[block][r]);
        for (uint32_t v = 0; v < kTokenVectors; ++v) {
          float* const sum = sums + r * kTileTokens + v * kLanes;
          const __m512 scale = _mm512_mul_ps(row_scale, _mm512_load_ps(tokens[group].scales[block] + v * kLanes));
          _mm512_store_ps(sum, _mm512_fmadd_ps(totals[r][v], scale, _mm512_load_ps(sum)));
          keep_order();
        }
      }
    }
  }
}

// All rows of a panel, of which `panel_groups` lie from row tile to row tile, with a tile of tokens.
template <class Layout, uint32_t kTokens>
void multiply_panel(uint32_t count, const RowGroup<Layout>* panel, uint32_t panel_groups,
                    const TokenGroup<Layout, kTokens>* tokens, uint32_t groups, float* sums, Fetch& next_weights) {
  for (uint32_t group = 0; group < groups; group += kSpanGroups) {
    const auto* next_tokens = reinterpret_cast<const char*>(tokens + group + kSpanGroups);
    for (uint32_t row = 0; row < count; row += kTileRows) {
      const RowGroup<Layout>* const rows = panel + size_t{row} / kTileRows * panel_groups + group;
      const RowGroup<Layout>* const next_rows = row + kTileRows < count ? rows + panel_groups : panel + group + kSpanGroups;
      multiply_tile(rows, tokens + group, smaller(kSpanGroups, groups - group), sums + size_t{row} * kTileTokens,
                    reinterpret_cast<const char*>(next_rows), next_tokens);
      next_tokens += kSpanGroups * kPairs / kFetchPairs * kTokenLines * kLine;
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

constexpr size_t kSumsFloats = size_t{quotient_up(kPanelRows, kLanes) * kLanes} * kTileTokens;

// --- memory ------------------------------------------------------------------------------------------------------

constexpr uint32_t lanes_of(uint32_t tokens) { return tokens > kLanes ? kTileTokens : kLanes; }

template <class Layout>
constexpr size_t group_bytes(uint32_t lanes) {
  return lanes == kLanes ? sizeof(TokenGroup<Layout, kLanes>) : sizeof(TokenGroup<Layout, kTileTokens>);
}

// The tile that begins with token `token`.
template <class Layout, class Byte>
Byte* tile_at(Byte* prepared, uint32_t columns, uint32_t token) {
  return prepared + size_t{token} / kTileTokens * groups_of(columns) * group_bytes<Layout>(kTileTokens);
}

struct Scratch {
  uint8_t* panel;  // [kPanelTiles][group]: RowGroup
  float* sums;     // [tile of tokens][kPanelRows][kTileTokens]
  float* row;      // of decoded weights, up to a whole number of groups

  static size_t bytes(size_t row_group_bytes, uint32_t columns, uint32_t tokens) {
    const size_t groups = groups_of(columns);
    return 64 + kPanelTiles * groups * row_group_bytes +
           (quotient_up(tokens, kTileTokens) * kSumsFloats + groups * kGroup) * sizeof(float);
  }

  Scratch(float* memory, size_t row_group_bytes, uint32_t columns, uint32_t tokens) {
    const size_t groups = groups_of(columns);
    const uintptr_t begin = (reinterpret_cast<uintptr_t>(memory) + 63) & ~uintptr_t{63};
    panel = reinterpret_cast<uint8_t*>(begin);
    sums = reinterpret_cast<float*>(panel + kPanelTiles * groups * row_group_bytes);
    row = sums + quotient_up(tokens, kTileTokens) * kSumsFloats;
  }
};

// --- rows and tokens on their way to integers ----------------------------------------------------------------------

// Weights of most formats are decoded row by row.
template <class RowLayout>
class DecodedRow {
 public:
  using Layout = RowLayout;

  DecodedRow(Format format, const MatmulArgs& args, uint32_t index, const Scratch& scratch) : weights_(scratch.row) {
    const auto decode = avx512::kTable.dequantize_row[static_cast<size_t>(format)];
    decode(args.weight + index * args.row_bytes, args.columns, args.block, scratch.row);
  }

  void pack(uint32_t group, int16_t codes[kGroup], float* scale) const {
    *scale = round_row_group<Layout>(weights_ + size_t{group} * kGroup, codes);
  }

 private:
  const float* weights_;
};

// bfloat16 is packed from where it lies.
class PlainRow {
 public:
  using Layout = PowerRounded;

  PlainRow(Format, const MatmulArgs& args, uint32_t index, const Scratch&)
      : weights_(args.weight + index * args.row_bytes), columns_(args.columns) {}

  void pack(uint32_t group, int16_t codes[kGroup], float* scale) const {
    const uint8_t* const weights = weights_ + size_t{group} * kGroup * sizeof(uint16_t);
    const uint32_t count = smaller(kGroup, columns_ - group * kGroup);
    if (count == kGroup) {
      *scale = round_bfloat_group(weights, codes);
      if (*scale > 0.0f) [[likely]] return;
    }
    uint8_t padded[kGroup * sizeof(uint16_t)] = {};
    std::memcpy(padded, weights, count * sizeof(uint16_t));
    float wide[kGroup];
    for (uint32_t v = 0; v < kGroup; v += kLanes) avx512::store(wide + v, avx512::load_bf16(padded + v * sizeof(uint16_t)));
    *scale = round_row_group<Layout>(wide, codes);
  }

 private:
  const uint8_t* weights_;
  uint32_t columns_;
};

// Weights that are integers already.
template <class Codes>
class CodeRow {
 public:
  using Layout = typename Codes::Layout;

  CodeRow(Format, const MatmulArgs& args, uint32_t index, const Scratch&)
      : codes_(args.columns, args.block), row_(args.weight + index * args.row_bytes), columns_(args.columns) {}

  void pack(uint32_t group, int16_t codes[kGroup], float* scales) const {
    uint32_t column = group * kGroup;
    for (uint32_t block = 0; block < Layout::kBlocks; ++block, column += Layout::kBlock, codes += Layout::kBlock) {
      if (column < columns_) {
        codes_.load(row_, column, codes);
        scales[block * kLanes] = codes_.scale(row_, column);
      } else {
        std::memset(codes, 0, Layout::kBlock * sizeof *codes);
        scales[block * kLanes] = 0.0f;
      }
    }
  }

 private:
  Codes codes_;
  const uint8_t* row_;
  uint32_t columns_;
};

// Rows that are missing in the last tile become zero.
template <class Row>
void pack_panel(Format format, const MatmulArgs& args, uint32_t first, uint32_t count, const Scratch& scratch) {
  using Group = RowGroup<typename Row::Layout>;
  const uint32_t groups = groups_of(args.columns);
  const auto place = [&](uint32_t r) { return reinterpret_cast<Group*>(scratch.panel) + size_t{r} / kTileRows * groups; };
  for (uint32_t r = 0; r < count; ++r) {
    const Row row(format, args, first + r, scratch);
    Group* const rows = place(r);
    for (uint32_t group = 0; group < groups; ++group) {
      row.pack(group, rows[group].codes[r % kTileRows], rows[group].scales[0] + r % kTileRows);
    }
  }
  for (uint32_t r = count; r % kTileRows != 0; ++r) {
    Group* const rows = place(r);
    for (uint32_t group = 0; group < groups; ++group) {
      std::memset(rows[group].codes[r % kTileRows], 0, sizeof rows[group].codes[0]);
      for (auto& scales : rows[group].scales) scales[r % kTileRows] = 0.0f;
    }
  }
}

template <class Layout, uint32_t kTokens>
void pack_tokens(const float* input, size_t stride, uint32_t tokens, uint32_t columns, uint32_t lane,
                 TokenGroup<Layout, kTokens>* output) {
  for (uint32_t group = 0; group < groups_of(columns); ++group) {
    Floats pairs[kVectors / 2][kLanes];
    for (uint32_t t = 0; t < kLanes; ++t) {
      Floats values[kVectors], packed[kVectors / 2];
      load_group(input + t * stride + size_t{group} * kGroup, t < tokens ? columns - group * kGroup : 0, values);
      float* const scale = output[group].scales[0] + lane + t;
      if constexpr (Layout::kBlocks == 1) {
        *scale = round_token_group<Layout>(values, packed);
      } else {
        round_token_blocks<Layout>(values, packed, scale, kTokens);
      }
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

// --- FastKernels -------------------------------------------------------------------------------------------------

// function.operator()<Row>(), of how rows of this format become integers.
template <class Function>
auto with_row(Format format, uint32_t block, uint32_t columns, const Function& function) {
  switch (format) {
    case Format::kBF16: return function.template operator()<PlainRow>();
    case Format::kBF16Window: return function.template operator()<DecodedRow<PowerRounded>>();
    case Format::kQ8:
      if (block == 32) return function.template operator()<CodeRow<ByteCodes<32>>>();
      return function.template operator()<CodeRow<ByteCodes<64>>>();
    case Format::kQ4: return function.template operator()<CodeRow<LaneCodes>>();
    case Format::kNf4: return function.template operator()<CodeRow<NormalFloatCodes>>();
    case Format::kU4:
      if (OffsetCodes::supports(block, columns)) return function.template operator()<CodeRow<OffsetCodes>>();
      [[fallthrough]];
    default: return function.template operator()<DecodedRow<Rounded>>();
  }
}

// Weights in float32 are worth exact products.
bool supports(Format format, uint32_t, uint32_t) { return format != Format::kF32; }

size_t prepared_bytes(Format format, uint32_t block, uint32_t columns, uint32_t tokens) {
  return with_row(format, block, columns, [&]<class Row>() {
    using Layout = typename Row::Layout;
    const size_t whole = tokens / kTileTokens * group_bytes<Layout>(kTileTokens);
    const uint32_t left = tokens % kTileTokens;
    return groups_of(columns) * (whole + (left > 0 ? group_bytes<Layout>(lanes_of(left)) : 0));
  });
}

template <class Layout>
void prepare_run(const MatmulArgs& args, uint32_t token, uint32_t count, uint8_t* prepared) {
  const float* const input = args.input + token * args.input_stride;
  uint8_t* const tile = tile_at<Layout>(prepared, args.columns, token);
  if (lanes_of(args.tokens - token / kTileTokens * kTileTokens) == kLanes) {
    pack_tokens(input, args.input_stride, count, args.columns, 0, reinterpret_cast<TokenGroup<Layout, kLanes>*>(tile));
  } else {
    pack_tokens(input, args.input_stride, count, args.columns, token % kTileTokens,
                reinterpret_cast<TokenGroup<Layout, kTileTokens>*>(tile));
  }
}

void prepare(Format format, const MatmulArgs& args, uint32_t token_begin, uint32_t token_end, uint8_t* prepared) {
  with_row(format, args.block, args.columns, [&]<class Row>() {
    for (uint32_t token = token_begin; token < token_end; token += kLanes) {
      prepare_run<typename Row::Layout>(args, token, smaller(kLanes, token_end - token), prepared);
    }
  });
}

size_t scratch_bytes(Format format, uint32_t block, uint32_t columns, uint32_t tokens) {
  return with_row(format, block, columns, [&]<class Row>() {
    return Scratch::bytes(sizeof(RowGroup<typename Row::Layout>), columns, tokens);
  });
}

// As few panels as the rows need, of about the same height: a low one would leave no time to fetch tokens.
uint32_t panel_rows(uint32_t rows) {
  const uint32_t panels = quotient_up(rows, kPanelRows);
  return quotient_up(quotient_up(rows, panels), kTileRows) * kTileRows;
}

// The `count` rows from `first` on, in as many steps as a panel of so many rows has tiles.
Fetch fetch_rows(const MatmulArgs& args, uint32_t first, uint32_t count) {
  const auto* const begin = reinterpret_cast<const char*>(args.weight) + first * args.row_bytes;
  const size_t bytes = smaller(count, args.rows - first) * args.row_bytes;
  const uint32_t spans = quotient_up(groups_of(args.columns), kSpanGroups);
  const size_t steps = size_t{count / kTileRows} * spans * quotient_up(args.tokens, kTileTokens);
  return {begin, begin + bytes, bytes / steps + 1};
}

template <class Row>
void multiply_rows(Format format, const MatmulArgs& args, const uint8_t* prepared) {
  using Layout = typename Row::Layout;
  const Scratch scratch(args.scratch, sizeof(RowGroup<Layout>), args.columns, args.tokens);
  const auto* const panel = reinterpret_cast<const RowGroup<Layout>*>(scratch.panel);
  const uint32_t groups = groups_of(args.columns);
  std::memset(scratch.row, 0, size_t{groups} * kGroup * sizeof(float));  // columns past the end stay zero
  const uint32_t height = panel_rows(args.rows);
  for (uint32_t row = 0; row < args.rows; row += height) {
    const uint32_t rows = smaller(height, args.rows - row);
    pack_panel<Row>(format, args, row, rows, scratch);
    Fetch next_weights = fetch_rows(args, row + rows, height);
    std::memset(scratch.sums, 0, quotient_up(args.tokens, kTileTokens) * kSumsFloats * sizeof(float));
    for (uint32_t group = 0; group < groups; group += kBlockGroups) {
      const uint32_t count = smaller(kBlockGroups, groups - group);
      for (uint32_t token = 0; token < args.tokens; token += kTileTokens) {
        const uint32_t tokens = smaller(kTileTokens, args.tokens - token);
        const uint8_t* const tile = tile_at<Layout>(prepared, args.columns, token);
        float* const sums = scratch.sums + token / kTileTokens * kSumsFloats;
        const auto multiply_tokens = [&]<uint32_t kTokens>(const TokenGroup<Layout, kTokens>* first) {
          multiply_panel(rows, panel + group, groups, first + group, count, sums, next_weights);
        };
        if (lanes_of(tokens) == kLanes) {
          multiply_tokens(reinterpret_cast<const TokenGroup<Layout, kLanes>*>(tile));
        } else {
          multiply_tokens(reinterpret_cast<const TokenGroup<Layout, kTileTokens>*>(tile));
        }
        if (group + count == groups) write_output(args, row, rows, token, tokens, sums);
      }
    }
  }
}

void multiply(Format format, const MatmulArgs& args, const uint8_t* prepared) {
  with_row(format, args.block, args.columns, [&]<class Row>() { multiply_rows<Row>(format, args, prepared); });
}

}  // namespace

extern const FastKernels kMatrixKernels = {supports, prepared_bytes, prepare, scratch_bytes, multiply, kLeastRows, kTileRows};

}  // namespace layerstream::cpu::vnni

#endif
