#include "lz4.h"

#include <cstring>

namespace layerstream {

namespace {

constexpr size_t kLeastMatch = 4;
constexpr size_t kLongLength = 15;  // further bytes follow
constexpr size_t kCopy = 16;

void copy16(uint8_t* to, const uint8_t* from) { std::memcpy(to, from, kCopy); }

// In steps of 16: up to 15 bytes more than `length` are read and written. The two do not overlap within a step.
void copy_in_steps(uint8_t* to, const uint8_t* from, size_t length) {
  for (size_t done = 0; done < length; done += kCopy) copy16(to + done, from + done);
}

// Adds the bytes that continue a length. False at the end of the data.
bool extend(const uint8_t*& in, const uint8_t* end, size_t& length) {
  for (;;) {
    if (in == end) return false;
    const uint8_t byte = *in++;
    length += byte;
    if (byte != 255) return true;
  }
}

// The `length` bytes from `distance` before `out` on, which repeat if there are fewer. `room`: bytes from `out` to the end.
void copy_match(uint8_t* out, size_t distance, size_t length, size_t room) {
  const uint8_t* match = out - distance;
  if (distance >= kCopy && room >= length + kCopy) {
    copy_in_steps(out, match, length);
    return;
  }
  // What lies between `match` and `out` repeats, and doubles with each copy.
  for (size_t known = distance; length > 0; known *= 2) {
    const size_t count = length < known ? length : known;
    std::memcpy(out, match, count);
    out += count;
    length -= count;
  }
}

// A match of at most 18 bytes; 32 are there to be written.
void copy_short_match(uint8_t* out, size_t distance) {
  const uint8_t* match = out - distance;
  if (distance >= kCopy) {
    copy16(out, match);
    std::memcpy(out + 16, match + 16, 2);
    return;
  }
  // The least multiple of the distance, which is a distance as well, that 8 bytes can be copied at once from.
  constexpr uint8_t kStep[kCopy] = {0, 8, 8, 9, 8, 10, 12, 14, 8, 9, 10, 11, 12, 13, 14, 15};
  uint64_t word = 0;
  std::memcpy(&word, match, 8);
  if (distance < 8) {
    const size_t bits = 8 * distance;
    word &= (uint64_t{1} << bits) - 1;
    word |= word << bits;
    if (2 * bits < 64) word |= word << 2 * bits;
    if (4 * bits < 64) word |= word << 4 * bits;
  }
  const size_t step = kStep[distance];
  std::memcpy(out, &word, 8);
  std::memcpy(out + 8, out + 8 - step, 8);
  std::memcpy(out + 16, out + 16 - step, 2);
}

// Sequences whose lengths need no further bytes, while both buffers have room for the largest of them: nothing is checked
// but the distance. Stops before the first other one. False if a distance leads out of the block.
bool decode_short(const uint8_t*& data, const uint8_t* data_end, uint8_t* begin, uint8_t*& output, uint8_t* output_end) {
  const uint8_t* in = data;
  uint8_t* out = output;
  bool valid = true;
  while (data_end - in >= 32 && output_end - out >= 64) {
    const uint8_t token = *in;
    const size_t literals = token >> 4;
    size_t length = token & 15;
    if (literals == kLongLength || length == kLongLength) break;
    copy16(out, in + 1);
    const uint8_t* const next = in + 1 + literals;
    const size_t distance = next[0] | size_t{next[1]} << 8;
    uint8_t* const to = out + literals;
    length += kLeastMatch;
    if (distance == 0 || distance > static_cast<size_t>(to - begin)) {
      valid = false;
      break;
    }
    copy_short_match(to, distance);
    in = next + 2;
    out = to + length;
  }
  data = in;
  output = out;
  return valid;
}

}  // namespace

bool lz4_decode(const uint8_t* data, size_t bytes, uint8_t* output, size_t output_bytes) {
  const uint8_t* in = data;
  const uint8_t* const in_end = data + bytes;
  uint8_t* out = output;
  uint8_t* const out_end = output + output_bytes;
  while (decode_short(in, in_end, output, out, out_end) && in < in_end) {
    const uint8_t token = *in++;
    size_t literals = token >> 4;
    if (literals == kLongLength && !extend(in, in_end, literals)) return false;
    const auto in_room = static_cast<size_t>(in_end - in);
    const auto out_room = static_cast<size_t>(out_end - out);
    if (literals > in_room || literals > out_room) return false;
    if (in_room - literals >= kCopy && out_room - literals >= kCopy) {
      copy_in_steps(out, in, literals);
    } else {
      std::memcpy(out, in, literals);
    }
    in += literals;
    out += literals;
    // Only the last sequence has no match.
    if (in == in_end) return out == out_end;

    if (in_end - in < 2) return false;
    const size_t distance = in[0] | size_t{in[1]} << 8;
    in += 2;
    if (distance == 0 || distance > static_cast<size_t>(out - output)) return false;
    size_t length = token & 15;
    if (length == kLongLength && !extend(in, in_end, length)) return false;
    length += kLeastMatch;
    const auto room = static_cast<size_t>(out_end - out);
    if (length > room) return false;
    copy_match(out, distance, length, room);
    out += length;
  }
  return false;
}

}  // namespace layerstream
