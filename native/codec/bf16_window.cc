#include "bf16_window.h"

#include <algorithm>
#include <bit>
#include <cstring>

#include "../backend/format.h"

namespace layerstream {

namespace {

constexpr uint32_t kStep = 64;
constexpr uint32_t kExponents = 256;
constexpr uint8_t kEscape = 7;  // and how many exponents have a code of their own
// The last whose codes are all exponents.
constexpr uint8_t kLastLeast = kExponents - kEscape;

struct Window {
  uint8_t least;
  uint32_t escapes;
};

// The least exponent with the fewest escapes. Four counters an exponent: neighbours are often equal, and a counter that
// was just stored is slow to load.
Window choose_window(const uint16_t* weights, uint32_t count) {
  uint8_t exponents[kWindowColumns];
  uint8_t first = kExponents - 1, last = 0;
  for (uint32_t i = 0; i < count; ++i) exponents[i] = static_cast<uint8_t>(weights[i] >> 7);
  for (uint32_t i = 0; i < count; ++i) first = std::min(first, exponents[i]);
  for (uint32_t i = 0; i < count; ++i) last = std::max(last, exponents[i]);
  if (last - first < kEscape) return {std::min(first, kLastLeast), 0};

  uint16_t counts[4][kExponents];
  for (auto& counters : counts) std::memset(counters + first, 0, (last - first + 1u) * sizeof(uint16_t));
  uint32_t i = 0;
  for (; i + 4 <= count; i += 4) {
    for (uint32_t k = 0; k < 4; ++k) ++counts[k][exponents[i + k]];
  }
  for (; i < count; ++i) ++counts[0][exponents[i]];
  const auto count_of = [&](uint32_t e) { return uint32_t{counts[0][e]} + counts[1][e] + counts[2][e] + counts[3][e]; };
  uint32_t inside = 0;
  for (uint32_t e = first; e < first + uint32_t{kEscape}; ++e) inside += count_of(e);
  uint32_t most = inside;
  uint8_t best = first;
  for (uint32_t least = first + 1u; least + kEscape <= last + 1u; ++least) {
    inside += count_of(least + kEscape - 1);
    inside -= count_of(least - 1);
    if (inside <= most) continue;
    most = inside;
    best = static_cast<uint8_t>(least);
  }
  return {best, count - most};
}

// The weights of a step in order of places, zeros for those past the end.
void order_places(const uint16_t* weights, uint32_t count, uint16_t* places) {
  uint16_t padded[kStep] = {};
  if (count < kStep) {
    std::memcpy(padded, weights, count * sizeof(uint16_t));
    weights = padded;
  }
  for (uint32_t run = 0; run < 4; ++run) {
    std::memcpy(places + 16 * run, weights + 8 * run, 8 * sizeof(uint16_t));
    std::memcpy(places + 16 * run + 8, weights + 32 + 8 * run, 8 * sizeof(uint16_t));
  }
}

// Eight codes of a byte each to three bits.
uint32_t gather_codes(uint64_t codes) {
  codes = (codes & 0x0007000700070007) | (codes >> 5 & 0x0038003800380038);
  codes = (codes & 0x0000003f0000003f) | (codes >> 10 & 0x00000fc000000fc0);
  return static_cast<uint32_t>(codes & 0xfff) | static_cast<uint32_t>(codes >> 20 & 0xfff000);
}

// One step of a window of which `count` places' columns exist; `escapes` has room for 65. Returns how many there are.
uint32_t encode_step(const uint16_t* places, uint32_t count, uint8_t least, uint8_t* plane, uint8_t* codes,
                     uint8_t* escapes) {
  static_assert(std::endian::native == std::endian::little);
  uint8_t exponents[kStep], code[kStep];
  for (uint32_t p = 0; p < kStep; ++p) plane[p] = static_cast<uint8_t>(places[p] << 1 | places[p] >> 15);
  for (uint32_t p = 0; p < kStep; ++p) exponents[p] = static_cast<uint8_t>(places[p] >> 7);
  // Exponents below the least become large.
  for (uint32_t p = 0; p < kStep; ++p) code[p] = std::min(static_cast<uint8_t>(exponents[p] - least), kEscape);
  for (uint32_t c = count; c < kStep; ++c) code[c < 32 ? c / 8 * 16 + c % 8 : (c - 32) / 8 * 16 + 8 + c % 8] = 0;
  uint32_t found = 0;
  for (uint32_t group = 0; group < 8; ++group) {
    uint64_t eight;
    std::memcpy(&eight, code + 8 * group, sizeof eight);
    const uint32_t bits = gather_codes(eight);
    std::memcpy(codes + 3 * group, &bits, 3);
    // Three ones in a code.
    if ((bits & bits >> 1 & bits >> 2 & 0x249249) == 0) continue;
    for (uint32_t p = 8 * group; p < 8 * group + 8; ++p) {
      escapes[found] = exponents[p];
      found += code[p] == kEscape ? 1 : 0;
    }
  }
  return found;
}

// Weights of a window at a time, aligned.
template <class Function>
bool for_each_window(const WindowSource& source, uint32_t row, const Function& function) {
  const uint8_t* const weights = source.weights + size_t{row} * source.columns * sizeof(uint16_t);
  for (uint32_t column = 0; column < source.columns; column += kWindowColumns) {
    const uint32_t count = std::min(kWindowColumns, source.columns - column);
    uint16_t window[kWindowColumns];
    std::memcpy(window, weights + column * sizeof(uint16_t), count * sizeof(uint16_t));
    if (!function(window, count)) return false;
  }
  return true;
}

bool encode_row(const WindowSource& source, uint32_t row, uint32_t block, uint8_t* output) {
  uint8_t* header = output + block;
  uint8_t* data = header + (source.columns + kWindowColumns - 1) / kWindowColumns * size_t{kWindowHeaderBytes};
  uint32_t used = 0;
  std::memset(output, 0, block);
  return for_each_window(source, row, [&](const uint16_t* weights, uint32_t count) {
    const Window window = choose_window(weights, count);
    if (window.escapes > block - used) return false;
    const uint32_t steps = (count + kStep - 1) / kStep;
    const uint16_t begin = static_cast<uint16_t>(used);
    header[0] = window.least;
    std::memcpy(header + 1, &begin, sizeof begin);
    for (uint32_t step = 0; step < steps; ++step) {
      uint16_t places[kStep];
      uint8_t escapes[kStep + 1];
      order_places(weights + step * kStep, std::min(kStep, count - step * kStep), places);
      const uint32_t found = encode_step(places, count - step * kStep, window.least, data + size_t{step} * kStep,
                                         data + size_t{steps} * kStep + size_t{step} * 24, escapes);
      std::memcpy(output + used, escapes, found);
      used += found;
    }
    header += kWindowHeaderBytes;
    data += size_t{steps} * (kStep + 24);
    return true;
  });
}

}  // namespace

size_t most_escapes(const WindowSource& source) {
  size_t most = 0;
  for (uint32_t row = 0; row < source.rows; ++row) {
    size_t escapes = 0;
    for_each_window(source, row, [&](const uint16_t* weights, uint32_t count) {
      escapes += choose_window(weights, count).escapes;
      return true;
    });
    most = std::max(most, escapes);
  }
  return most;
}

bool encode_windows(const WindowSource& source, uint32_t block, uint8_t* output) {
  const size_t bytes = row_bytes(Format::kBF16Window, source.columns, block);
  for (uint32_t row = 0; row < source.rows; ++row) {
    if (!encode_row(source, row, block, output + row * bytes)) return false;
  }
  return true;
}

bool narrow_to_bfloat16(const uint8_t* floats, size_t count, uint8_t* output) {
  constexpr size_t kPiece = 1024;
  for (size_t done = 0; done < count;) {
    const size_t piece = std::min(kPiece, count - done);
    uint32_t bits[kPiece];
    uint16_t upper[kPiece];
    std::memcpy(bits, floats + done * sizeof(uint32_t), piece * sizeof(uint32_t));
    uint32_t lost = 0;
    for (size_t i = 0; i < piece; ++i) {
      lost |= bits[i] & 0xffff;
      upper[i] = static_cast<uint16_t>(bits[i] >> 16);
    }
    if (lost != 0) return false;
    std::memcpy(output + done * sizeof(uint16_t), upper, piece * sizeof(uint16_t));
    done += piece;
  }
  return true;
}

}  // namespace layerstream
