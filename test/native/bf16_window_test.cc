// bf16_window: the encoder's rows are those of the definition, every instruction set decodes them to the same bits, and
// no bytes lead a decoder out of a row.
#include <bit>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <vector>

#include "../../native/codec/bf16_window.h"
#include "../../native/cpu/kernels.h"
#include "reference_weights.h"

using namespace layerstream;
using namespace layerstream::cpu;

namespace {

RandomRows random_numbers(11);

uint32_t uniform(uint32_t low, uint32_t high) { return random_numbers.uniform(low, high); }

[[noreturn]] void fail(const char* what, const char* where, uint32_t columns, uint32_t column, uint32_t got, uint32_t expected) {
  fprintf(stderr, "bf16_window_test: %s (%s): column %u of %u is %x, expected %x\n", what, where, column, columns, got, expected);
  exit(1);
}

std::vector<const KernelTable*> tables() {
  std::vector<const KernelTable*> present;
  for (const KernelTable* table : {&scalar_kernels(), avx2_kernels(), avx512_kernels(), neon_kernels()}) {
    if (table != nullptr) present.push_back(table);
  }
  return present;
}

// One row in memory of its own, so that a sanitizer sees any step outside.
void check_decoders(const std::vector<uint8_t>& row, uint32_t columns, uint32_t block, const char* what) {
  for (const KernelTable* table : tables()) {
    std::vector<float> output(columns);
    table->dequantize_row[static_cast<size_t>(Format::kBF16Window)](row.data(), columns, block, output.data());
    for (uint32_t c = 0; c < columns; ++c) {
      uint32_t bits;
      std::memcpy(&bits, &output[c], sizeof bits);
      const uint32_t expected = uint32_t{reference::window_weight(row.data(), columns, block, c)} << 16;
      if (bits != expected) fail(what, table->name, columns, c, bits, expected);
    }
  }
}

// Returns bytes a row.
size_t check_round_trip(const std::vector<uint16_t>& weights, uint32_t columns, const char* what) {
  const uint32_t rows = static_cast<uint32_t>(weights.size() / columns);
  std::vector<uint8_t> source(1 + weights.size() * 2);
  std::memcpy(source.data() + 1, weights.data(), weights.size() * 2);
  const WindowSource matrix{source.data() + 1, rows, columns};
  const uint32_t most = static_cast<uint32_t>(most_escapes(matrix));
  const uint32_t block = std::max(most, 1u);
  const size_t bytes = row_bytes(Format::kBF16Window, columns, block);
  std::vector<uint8_t> encoded(rows * bytes);
  if (!encode_windows(matrix, block, encoded.data())) fail(what, "encoder", columns, 0, 0, 1);
  if (most > 1 && encode_windows(matrix, most - 1, std::vector<uint8_t>(rows * bytes).data())) fail(what, "too small a capacity", columns, 0, 1, 0);
  for (uint32_t r = 0; r < rows; ++r) {
    const std::vector<uint8_t> row(encoded.begin() + static_cast<ptrdiff_t>(r * bytes), encoded.begin() + static_cast<ptrdiff_t>((r + 1) * bytes));
    for (uint32_t c = 0; c < columns; ++c) {
      const uint16_t got = reference::window_weight(row.data(), columns, block, c);
      if (got != weights[size_t{r} * columns + c]) fail(what, "definition", columns, c, got, weights[size_t{r} * columns + c]);
    }
    check_decoders(row, columns, block, what);
  }
  return bytes;
}

uint16_t normal_weight(float deviation) {
  const float value = random_numbers.normal() * deviation;
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof bits);
  return static_cast<uint16_t>(bits >> 16);
}

void check_shapes() {
  const uint32_t widths[] = {1, 2, 7, 8, 31, 33, 63, 64, 65, 100, 127, 128, 448, 500, 511, 512, 513, 576, 577, 1000, 1024, 1600};
  for (const uint32_t columns : widths) {
    std::vector<uint16_t> weights(size_t{5} * columns);
    for (uint16_t& weight : weights) weight = normal_weight(0.02f);
    check_round_trip(weights, columns, "normal weights");
    for (uint16_t& weight : weights) weight = static_cast<uint16_t>(uniform(0, 65535));
    check_round_trip(weights, columns, "any bits");
  }
}

void check_contents() {
  std::vector<uint16_t> weights(65536);
  for (uint32_t i = 0; i < 65536; ++i) weights[i] = static_cast<uint16_t>(i);
  check_round_trip(weights, 65536, "every bfloat16 in a row");
  check_round_trip(weights, 1024, "every bfloat16 in rows");
  for (const uint16_t value : {0x0000, 0x8000, 0x0001, 0x7f80, 0xff80, 0x7fc1, 0xffff, 0x3f80}) {
    weights.assign(3 * 600, value);
    if (check_round_trip(weights, 600, "one value") != 1 + 2 * 3 + 10 * 88) fail("one value", "size", 600, 0, value, 0);
  }
  // As uneven as exponents can be: the window holds 7 of 256, in turn.
  weights.resize(2048);
  for (uint32_t i = 0; i < 2048; ++i) weights[i] = static_cast<uint16_t>(i % 256 << 7 | i % 128);
  check_round_trip(weights, 2048, "uniform exponents");
  // One row with many escapes, others with none.
  weights.assign(4 * 700, 0x3f80);
  for (uint32_t c = 0; c < 700; ++c) weights[700 + c] = static_cast<uint16_t>(c % 2 << 14 | c);
  check_round_trip(weights, 700, "an uneven matrix");
}

void check_size() {
  constexpr uint32_t kColumns = 4096, kRows = 64;
  std::vector<uint16_t> weights(size_t{kRows} * kColumns);
  for (uint16_t& weight : weights) weight = normal_weight(0.02f);
  const double ratio = static_cast<double>(check_round_trip(weights, kColumns, "a size")) / (2 * kColumns);
  if (ratio > 0.71) fail("normal weights", "size in thousandths", kColumns, 0, static_cast<uint32_t>(1000 * ratio), 710);
}

// How products are made: a table's exact ones, or fast ones.
struct Way {
  const char* name;
  const KernelTable* exact;
  const FastKernels* fast;
};

std::vector<Way> ways(uint32_t tokens) {
  std::vector<Way> present;
  for (const KernelTable* table : tables()) present.push_back({table->name, table, nullptr});
  const KernelTable* const vnni = vnni_kernels();
  const FastKernels* const fast = vnni == nullptr ? nullptr : tokens == 1 ? vnni->fast.vector : vnni->fast.matrix;
  if (fast != nullptr && fast->supports(Format::kBF16Window, 1, 1)) present.push_back({"fast", nullptr, fast});
  return present;
}

struct AlignedFree {
  void operator()(uint8_t* memory) const { std::free(memory); }
};

// Rows in `weights`, one after the other, times `tokens` rows of `input`: [token][row].
std::vector<float> multiply(const Way& way, Format format, const std::vector<uint8_t>& weights, uint32_t columns,
                            uint32_t block, const std::vector<float>& input, uint32_t tokens) {
  MatmulArgs args{};
  args.row_bytes = row_bytes(format, columns, block);
  args.rows = static_cast<uint32_t>(weights.size() / args.row_bytes);
  args.weight = weights.data();
  args.columns = columns;
  args.block = block;
  args.input = input.data();
  args.input_stride = columns;
  args.tokens = tokens;
  args.output_stride = args.rows;
  std::vector<float> output(size_t{tokens} * args.rows);
  args.output = output.data();
  const size_t exact = matmul_scratch_floats(columns, tokens);
  std::vector<float> scratch(way.exact != nullptr ? exact : way.fast->scratch_bytes(format, block, columns, tokens) / sizeof(float) + 1);
  args.scratch = scratch.data();
  if (way.exact != nullptr) {
    way.exact->matmul[static_cast<size_t>(format)](args);
    return output;
  }
  const size_t bytes = way.fast->prepared_bytes(format, block, columns, tokens);
  const std::unique_ptr<uint8_t, AlignedFree> prepared(static_cast<uint8_t*>(std::aligned_alloc(64, (bytes + 63) / 64 * 64)));
  way.fast->prepare(format, args, 0, tokens, prepared.get());
  way.fast->multiply(format, args, prepared.get());
  return output;
}

void check_forged() {
  for (int i = 0; i < 400; ++i) {
    const uint32_t columns = uniform(1, 1300);
    const uint32_t block = uniform(0, 3) == 0 ? 1 : uniform(1, columns);
    std::vector<uint8_t> row(row_bytes(Format::kBF16Window, columns, block));
    const uint32_t kind = uniform(0, 2);
    for (uint8_t& byte : row) {
      byte = kind == 0 ? 255 : static_cast<uint8_t>(kind == 1 ? 255 - uniform(0, 3) : uniform(0, 255));
    }
    check_decoders(row, columns, block, "any bytes");
    for (const uint32_t tokens : {1u, 2u}) {
      const std::vector<float> input(size_t{tokens} * columns, 1.0f);
      for (const Way& way : ways(tokens)) multiply(way, Format::kBF16Window, row, columns, block, input, tokens);
    }
  }
}

// Sums are those of the same weights as plain bfloat16, bit for bit.
void check_products() {
  for (const uint32_t columns : {1u, 31u, 60u, 97u, 512u, 545u, 1500u, 2048u}) {
    constexpr uint32_t kRows = 21;
    std::vector<uint8_t> plain(size_t{2} * kRows * columns);
    for (size_t c = 0; c < plain.size(); c += 2) {
      const uint16_t weight = normal_weight(0.02f);
      std::memcpy(plain.data() + c, &weight, 2);
    }
    const WindowSource matrix{plain.data(), kRows, columns};
    const uint32_t block = std::max(static_cast<uint32_t>(most_escapes(matrix)), 1u);
    std::vector<uint8_t> encoded(kRows * row_bytes(Format::kBF16Window, columns, block));
    encode_windows(matrix, block, encoded.data());
    for (const uint32_t tokens : {1u, 3u, 40u}) {
      std::vector<float> input(size_t{tokens} * columns);
      for (float& value : input) value = random_numbers.normal();
      for (const Way& way : ways(tokens)) {
        const std::vector<float> expected = multiply(way, Format::kBF16, plain, columns, 0, input, tokens);
        const std::vector<float> got = multiply(way, Format::kBF16Window, encoded, columns, block, input, tokens);
        for (size_t i = 0; i < got.size(); ++i) {
          if (std::memcmp(&got[i], &expected[i], sizeof(float)) == 0) continue;
          fail("products", way.name, columns, static_cast<uint32_t>(i), std::bit_cast<uint32_t>(got[i]), std::bit_cast<uint32_t>(expected[i]));
        }
      }
    }
  }
}

void check_narrowing() {
  const float exact[] = {1.0f, -0.5f, 0.0f, -0.0f, HUGE_VALF, 3.0f};
  std::vector<uint8_t> floats(2000 * sizeof(float)), output(2000 * 2);
  for (size_t i = 0; i < 2000; ++i) std::memcpy(floats.data() + 4 * i, &exact[i % 6], 4);
  if (!narrow_to_bfloat16(floats.data(), 2000, output.data())) fail("narrowing", "exact floats", 2000, 0, 0, 1);
  for (size_t i = 0; i < 2000; ++i) {
    if (std::memcmp(output.data() + 2 * i, floats.data() + 4 * i + 2, 2) != 0) fail("narrowing", "bits", 2000, static_cast<uint32_t>(i), 0, 0);
  }
  floats[4 * 1999] = 1;
  if (narrow_to_bfloat16(floats.data(), 2000, output.data())) fail("narrowing", "a float of more bits", 2000, 1999, 1, 0);
}

}  // namespace

int main() {
  check_shapes();
  check_contents();
  check_size();
  check_products();
  check_forged();
  check_narrowing();
  printf("bf16_window_test: ok\n");
  return 0;
}
