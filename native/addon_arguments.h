// Arguments from JavaScript, checked: what doesn't fit is an INVALID_ARGUMENT that names it.
#pragma once

#include <napi.h>

#include <string>

#include "backend/format.h"
#include "platform/error.h"

namespace layerstream {

constexpr uint32_t kMaxCount = 0x7fffffff;  // of rows or columns
constexpr uint32_t kMinBlock = 32;
constexpr uint32_t kMaxBlock = 65536;

[[noreturn]] inline void reject(const std::string& message) { throw Error("INVALID_ARGUMENT", message); }

struct Bytes {
  uint8_t* data;
  size_t size;
};

inline Bytes bytes_argument(const Napi::CallbackInfo& info, size_t index, const char* name) {
  const Napi::Value value = info[index];
  if (!value.IsTypedArray() || value.As<Napi::TypedArray>().TypedArrayType() != napi_uint8_array) {
    reject(std::string("`") + name + "` must be a Uint8Array.");
  }
  auto array = value.As<Napi::Uint8Array>();
  return {array.Data(), array.ByteLength()};
}

inline uint32_t count_argument(const Napi::CallbackInfo& info, size_t index, const char* name, uint32_t least, uint32_t most) {
  const Napi::Value value = info[index];
  const double number = value.IsNumber() ? value.As<Napi::Number>().DoubleValue() : -1.0;
  if (!(number >= least && number <= most) || number != static_cast<double>(static_cast<uint32_t>(number))) {
    reject(std::string("`") + name + "` must be an integer from " + std::to_string(least) + " to " +
           std::to_string(most) + ", not " + value.ToString().Utf8Value() + ".");
  }
  return static_cast<uint32_t>(number);
}

// One of the formats [first, last].
inline Format format_argument(const Napi::CallbackInfo& info, size_t index, const char* name, Format first, Format last) {
  const std::string text = info[index].IsString() ? info[index].As<Napi::String>().Utf8Value() : "";
  std::string names;
  for (size_t i = static_cast<size_t>(first); i <= static_cast<size_t>(last); i++) {
    const char* const known = kFormatTraits[i].name;
    if (text == known) return static_cast<Format>(i);
    names += std::string(names.empty() ? "" : ", ") + known;
  }
  reject(std::string("`") + name + "` must be one of " + names + ".");
}

// Columns that share a scale, or bytes of escapes; formats without either ignore the argument.
inline uint32_t block_argument(const Napi::CallbackInfo& info, size_t index, Format format, uint32_t columns) {
  const FormatTraits& traits = traits_of(format);
  switch (traits.blocks) {
    case Blocks::kNone:
      return 1;
    case Blocks::kPowerOfTwo: {
      const uint32_t block = count_argument(info, index, "block", kMinBlock, kMaxBlock);
      if (!block_fits(format, columns, block)) reject("`block` must be a power of two, not " + std::to_string(block) + ".");
      return block;
    }
    case Blocks::kMultiple: {
      const uint32_t block = count_argument(info, index, "block", 1, kMaxCount);
      if (!block_fits(format, columns, block)) {
        reject("`block` must be a multiple of 16 or at least `columns`, not " + std::to_string(block) + ".");
      }
      return block;
    }
    case Blocks::kFixed:
    case Blocks::kWhole: {
      const uint32_t block = count_argument(info, index, "block", traits.block, traits.block);
      if (!block_fits(format, columns, block)) {
        reject("`columns` must be a multiple of " + std::to_string(block) + ", not " + std::to_string(columns) + ".");
      }
      return block;
    }
    case Blocks::kEscapes: {
      const uint32_t block = count_argument(info, index, "block", 1, kMaxEscapes);
      if (!block_fits(format, columns, block)) {
        reject("`block` must be at most `columns`, " + std::to_string(columns) + ", not " + std::to_string(block) + ".");
      }
      return block;
    }
  }
  return 1;
}

// `size` must hold `rows` rows; a quotient, because the product may not fit in 64 bits.
inline void check_holds(const char* name, size_t size, size_t rows, size_t bytes_per_row) {
  if (size / bytes_per_row >= rows) return;
  reject(std::string("`") + name + "` has " + std::to_string(size) + " bytes, too few for " + std::to_string(rows) +
         " rows of " + std::to_string(bytes_per_row) + " bytes.");
}

}  // namespace layerstream
