// LZ4 blocks: round trips through a small encoder, blocks made by hand, and damaged ones, which must stay within their
// buffers (the address sanitizer sees the ends of both).
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <random>
#include <string>
#include <unordered_map>
#include <vector>

#include "../../native/codec/lz4.h"
#include "check.h"

using namespace layerstream;

namespace {

using Bytes = std::vector<uint8_t>;

void append_length(Bytes& block, size_t length) {
  for (length -= 15; length >= 255; length -= 255) block.push_back(255);
  block.push_back(static_cast<uint8_t>(length));
}

// A match of length 0: the last sequence.
void append_sequence(Bytes& block, const uint8_t* literals, size_t count, size_t distance, size_t match) {
  const size_t low = match == 0 ? 0 : std::min<size_t>(match - 4, 15);
  block.push_back(static_cast<uint8_t>(std::min<size_t>(count, 15) << 4 | low));
  if (count >= 15) append_length(block, count);
  block.insert(block.end(), literals, literals + count);
  if (match == 0) return;
  block.push_back(static_cast<uint8_t>(distance));
  block.push_back(static_cast<uint8_t>(distance >> 8));
  if (match - 4 >= 15) append_length(block, match - 4);
}

// Greedy, with the last place of each four bytes.
Bytes encode(const Bytes& data) {
  Bytes block;
  std::unordered_map<uint32_t, size_t> places;
  size_t begin = 0;
  for (size_t at = 0; at + 12 < data.size();) {
    uint32_t word = 0;
    std::memcpy(&word, &data[at], 4);
    const auto found = places.find(word);
    const size_t distance = found == places.end() ? 0 : at - found->second;
    places[word] = at;
    if (distance == 0 || distance > 65535) {
      ++at;
      continue;
    }
    size_t match = 4;
    while (at + match + 5 < data.size() && data[at + match] == data[at + match - distance]) ++match;
    append_sequence(block, &data[begin], at - begin, distance, match);
    begin = at += match;
  }
  append_sequence(block, data.data() + begin, data.size() - begin, 0, 0);
  return block;
}

// Both buffers are exactly as large as they are said to be.
bool decode(const Bytes& block, size_t bytes, Bytes* output = nullptr) {
  const auto in = std::make_unique<uint8_t[]>(block.size());
  const auto out = std::make_unique<uint8_t[]>(bytes);
  std::copy(block.begin(), block.end(), in.get());
  const bool valid = lz4_decode(in.get(), block.size(), out.get(), bytes);
  if (output != nullptr) output->assign(out.get(), out.get() + bytes);
  return valid;
}

void round_trip(const Bytes& data, const std::string& what) {
  const Bytes block = encode(data);
  Bytes output;
  check(decode(block, data.size(), &output) && output == data, what);
  check(!decode(block, data.size() + 1), what + ": one byte too few");
  check(data.empty() || !decode(block, data.size() - 1), what + ": one byte too many");
}

Bytes random_bytes(std::mt19937& random, size_t size, uint32_t values) {
  Bytes data(size);
  for (uint8_t& byte : data) byte = static_cast<uint8_t>(random() % values);
  return data;
}

// Runs of each period, so that matches of every distance overlap what they write.
Bytes periodic(std::mt19937& random, size_t size) {
  Bytes data;
  while (data.size() < size) {
    const Bytes unit = random_bytes(random, 1 + random() % 40, 256);
    for (size_t length = random() % 300; length > 0 && data.size() < size; --length) data.push_back(unit[length % unit.size()]);
  }
  return data;
}

void refuse_forged() {
  check(!decode({}, 0), "nothing is no block");
  check(decode({0x00}, 0), "an empty block");
  check(!decode({0x00}, 1), "an empty block for one byte");
  check(decode({0x10, 'a'}, 1), "a literal");
  check(!decode({0x10}, 1), "a literal that is not there");
  check(!decode({0xf0}, 15), "a length that does not go on");
  check(!decode({0xf0, 255, 255}, 600), "a length that does not end");
  check(!decode({0x10, 'a', 1}, 5), "half a distance");
  check(!decode({0x10, 'a', 0, 0}, 5), "a distance of nothing");
  check(!decode({0x10, 'a', 2, 0}, 5), "a distance to before the block");
  check(!decode({0x10, 'a', 1, 0}, 5), "a match at the end");
  check(decode({0x10, 'a', 1, 0, 0x00}, 5), "a match and an empty end");
  check(!decode({0x1f, 'a', 1, 0, 255, 255, 255, 255, 0, 0x00}, 64), "a match beyond the end");
  Bytes huge(100'000, 255);
  huge[0] = 0xff;
  check(!decode(huge, 1 << 20), "a length of 25 million");
}

void survive_damage(std::mt19937& random) {
  for (int round = 0; round < 4000; ++round) {
    const Bytes data = round % 2 == 0 ? periodic(random, 1 + random() % 700) : random_bytes(random, 1 + random() % 700, 3);
    Bytes block = encode(data);
    for (uint32_t change = 1 + random() % 4; change > 0; --change) {
      switch (random() % 3) {
        case 0:
          block[random() % block.size()] = static_cast<uint8_t>(random());
          break;
        case 1:
          block[random() % block.size()] = 255;
          break;
        default:
          block.resize(1 + random() % block.size());
      }
    }
    decode(block, data.size());
    ++checks;
  }
}

}  // namespace

int main() {
  std::mt19937 random(3);
  for (size_t size : {0, 1, 4, 12, 13, 15, 16, 17, 31, 32, 33, 64, 270, 271, 4096, 70'000, 200'000}) {
    const std::string suffix = " of " + std::to_string(size);
    round_trip(Bytes(size, 0), "zeros" + suffix);
    round_trip(random_bytes(random, size, 256), "random bytes" + suffix);
    round_trip(random_bytes(random, size, 2), "random bits" + suffix);
    round_trip(periodic(random, size), "runs" + suffix);
  }
  for (int round = 0; round < 500; ++round) round_trip(periodic(random, random() % 400), "short runs");
  refuse_forged();
  survive_damage(random);
  printf("lz4_test: %d checks passed\n", checks.load());
  return 0;
}
