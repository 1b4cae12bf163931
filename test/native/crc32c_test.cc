// CRC-32C: published vectors, and the instruction against the tables for every length around its inner blocks.
#include <cstdio>
#include <cstdlib>
#include <random>
#include <vector>

#include "../../native/codec/crc32c.h"

using namespace layerstream;

namespace {

int checks = 0;

void check(bool condition, const char* what, size_t where) {
  checks++;
  if (condition) return;
  fprintf(stderr, "crc32c_test: %s (at %zu)\n", what, where);
  exit(1);
}

}  // namespace

int main() {
  // RFC 3720, appendix B.4, and the catalogue's check value.
  std::vector<uint8_t> zeros(32, 0), ones(32, 255), ascending(32), descending(32);
  for (uint8_t i = 0; i < 32; i++) {
    ascending[i] = i;
    descending[i] = static_cast<uint8_t>(31 - i);
  }
  for (auto* checksum : {crc32c, crc32c_portable}) {
    check(checksum(zeros.data(), 32, 0) == 0x8a9136aa, "zeros", 0);
    check(checksum(ones.data(), 32, 0) == 0x62a8ab43, "ones", 0);
    check(checksum(ascending.data(), 32, 0) == 0x46dd794e, "ascending", 0);
    check(checksum(descending.data(), 32, 0) == 0x113fdb5c, "descending", 0);
    check(checksum(reinterpret_cast<const uint8_t*>("123456789"), 9, 0) == 0xe3069283, "123456789", 0);
    check(checksum(nullptr, 0, 0) == 0, "nothing", 0);
  }
  std::mt19937 random(9);
  std::vector<uint8_t> data(20000);
  for (uint8_t& byte : data) byte = static_cast<uint8_t>(random());
  for (size_t size = 0; size < 10000; size += size < 40 || size % 3072 > 3060 ? 1 : 7) {
    const size_t offset = size % 13;
    const uint32_t whole = crc32c(&data[offset], size);
    check(whole == crc32c_portable(&data[offset], size), "instruction and tables differ", size);
    const size_t part = size / 3;
    check(whole == crc32c(&data[offset + part], size - part, crc32c(&data[offset], part)), "continuation", size);
  }
  printf("crc32c_test: %d checks passed\n", checks);
  return 0;
}
