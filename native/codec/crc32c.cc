#include "crc32c.h"

#include <array>
#include <cstring>

#if defined(__x86_64__) || defined(_M_X64)
#define LAYERSTREAM_CRC_X86 1
#include <nmmintrin.h>
#if defined(_MSC_VER)
#include <intrin.h>
#endif
#elif defined(__aarch64__)
#define LAYERSTREAM_CRC_ARM 1
#include <arm_acle.h>
#if defined(__linux__)
#include <asm/hwcap.h>
#include <sys/auxv.h>
#endif
#endif

namespace layerstream {
namespace {

constexpr uint32_t kPolynomial = 0x82f63b78;
// Bytes of each of the three independent checksums that hide the latency of the instruction.
constexpr size_t kStreamBytes = 1024;

using Tables = std::array<std::array<uint32_t, 256>, 8>;

// tables[k][b] is the checksum register after byte b and k zero bytes (slicing-by-8).
Tables make_tables() {
  Tables tables{};
  for (uint32_t byte = 0; byte < 256; byte++) {
    uint32_t value = byte;
    for (int bit = 0; bit < 8; bit++) value = (value & 1) ? (value >> 1) ^ kPolynomial : value >> 1;
    tables[0][byte] = value;
  }
  for (size_t k = 1; k < tables.size(); k++) {
    for (uint32_t byte = 0; byte < 256; byte++) {
      const uint32_t value = tables[k - 1][byte];
      tables[k][byte] = (value >> 8) ^ tables[0][value & 255];
    }
  }
  return tables;
}

#if defined(LAYERSTREAM_CRC_X86) || defined(LAYERSTREAM_CRC_ARM)

using ShiftTables = std::array<std::array<uint32_t, 256>, 4>;

// Product of two polynomials modulo the CRC's; bit 31 is the coefficient of x^0.
uint32_t multiply(uint32_t a, uint32_t b) {
  uint32_t product = 0;
  for (uint32_t bit = uint32_t{1} << 31; bit != 0; bit >>= 1) {
    if (a & bit) product ^= b;
    b = (b & 1) ? (b >> 1) ^ kPolynomial : b >> 1;
  }
  return product;
}

// Tables that append kStreamBytes zero bytes to a checksum register.
ShiftTables make_shift_tables() {
  uint32_t power = uint32_t{1} << 31;        // x^0
  uint32_t square = uint32_t{1} << (31 - 8);  // x^8, one byte
  for (size_t bytes = kStreamBytes; bytes != 0; bytes >>= 1) {
    if (bytes & 1) power = multiply(power, square);
    square = multiply(square, square);
  }
  ShiftTables tables{};
  for (uint32_t k = 0; k < 4; k++) {
    for (uint32_t byte = 0; byte < 256; byte++) tables[k][byte] = multiply(power, byte << (8 * k));
  }
  return tables;
}

uint32_t append_zeros(const ShiftTables& tables, uint32_t value) {
  return tables[0][value & 255] ^ tables[1][(value >> 8) & 255] ^ tables[2][(value >> 16) & 255] ^
         tables[3][value >> 24];
}

#endif

#if defined(LAYERSTREAM_CRC_X86)

#if defined(_MSC_VER)
#define LAYERSTREAM_CRC_TARGET
bool has_instruction() {
  int registers[4];
  __cpuid(registers, 1);
  return (registers[2] & (1 << 20)) != 0;
}
#else
#define LAYERSTREAM_CRC_TARGET __attribute__((target("sse4.2")))
bool has_instruction() { return __builtin_cpu_supports("sse4.2"); }
#endif

LAYERSTREAM_CRC_TARGET inline uint32_t step8(uint32_t value, uint64_t data) {
  return static_cast<uint32_t>(_mm_crc32_u64(value, data));
}
LAYERSTREAM_CRC_TARGET inline uint32_t step1(uint32_t value, uint8_t data) { return _mm_crc32_u8(value, data); }

#elif defined(LAYERSTREAM_CRC_ARM)

#define LAYERSTREAM_CRC_TARGET __attribute__((target("+crc")))
#if defined(__linux__)
bool has_instruction() { return (getauxval(AT_HWCAP) & HWCAP_CRC32) != 0; }
#else
bool has_instruction() { return true; }  // every Apple processor
#endif

LAYERSTREAM_CRC_TARGET inline uint32_t step8(uint32_t value, uint64_t data) { return __crc32cd(value, data); }
LAYERSTREAM_CRC_TARGET inline uint32_t step1(uint32_t value, uint8_t data) { return __crc32cb(value, data); }

#endif

#if defined(LAYERSTREAM_CRC_TARGET)

inline uint64_t load8(const uint8_t* data) {
  uint64_t value;
  std::memcpy(&value, data, sizeof value);
  return value;
}

LAYERSTREAM_CRC_TARGET uint32_t crc32c_instruction(const uint8_t* data, size_t size, uint32_t previous) {
  static const ShiftTables tables = make_shift_tables();
  uint32_t value = ~previous;
  for (; size >= 3 * kStreamBytes; size -= 3 * kStreamBytes, data += 3 * kStreamBytes) {
    uint32_t second = 0, third = 0;
    for (size_t i = 0; i < kStreamBytes; i += 8) {
      value = step8(value, load8(data + i));
      second = step8(second, load8(data + kStreamBytes + i));
      third = step8(third, load8(data + 2 * kStreamBytes + i));
    }
    value = append_zeros(tables, append_zeros(tables, value) ^ second) ^ third;
  }
  for (; size >= 8; size -= 8, data += 8) value = step8(value, load8(data));
  for (; size > 0; size--, data++) value = step1(value, *data);
  return ~value;
}

#endif

}  // namespace

uint32_t crc32c_portable(const uint8_t* data, size_t size, uint32_t previous) {
  static const Tables tables = make_tables();
  uint32_t value = ~previous;
  for (; size >= 8; size -= 8, data += 8) {
    value ^= data[0] | uint32_t{data[1]} << 8 | uint32_t{data[2]} << 16 | uint32_t{data[3]} << 24;
    value = tables[7][value & 255] ^ tables[6][(value >> 8) & 255] ^ tables[5][(value >> 16) & 255] ^
            tables[4][value >> 24] ^ tables[3][data[4]] ^ tables[2][data[5]] ^ tables[1][data[6]] ^ tables[0][data[7]];
  }
  for (; size > 0; size--, data++) value = (value >> 8) ^ tables[0][(value ^ *data) & 255];
  return ~value;
}

uint32_t crc32c(const uint8_t* data, size_t size, uint32_t previous) {
#if defined(LAYERSTREAM_CRC_TARGET)
  static const bool fast = has_instruction();
  if (fast) return crc32c_instruction(data, size, previous);
#endif
  return crc32c_portable(data, size, previous);
}

}  // namespace layerstream
