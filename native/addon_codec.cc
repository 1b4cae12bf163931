// Checksums and weight formats for JavaScript. Every argument is checked here: the code below trusts its callers.
#include <napi.h>

#include <string>

#include "addon.h"
#include "backend/format.h"
#include "codec/crc32c.h"
#include "cpu/kernels.h"
#include "platform/error.h"

namespace layerstream {

namespace {

constexpr uint32_t kMaxCount = 0x7fffffff;  // of rows or columns
constexpr uint32_t kMinBlock = 32;
constexpr uint32_t kMaxBlock = 65536;

[[noreturn]] void reject(const std::string& message) { throw Error("INVALID_ARGUMENT", message); }

struct Bytes {
  uint8_t* data;
  size_t size;
};

Bytes bytes_argument(const Napi::CallbackInfo& info, size_t index, const char* name) {
  const Napi::Value value = info[index];
  if (!value.IsTypedArray() || value.As<Napi::TypedArray>().TypedArrayType() != napi_uint8_array) {
    reject(std::string("`") + name + "` must be a Uint8Array.");
  }
  auto array = value.As<Napi::Uint8Array>();
  return {array.Data(), array.ByteLength()};
}

uint32_t count_argument(const Napi::CallbackInfo& info, size_t index, const char* name, uint32_t least, uint32_t most) {
  const Napi::Value value = info[index];
  const double number = value.IsNumber() ? value.As<Napi::Number>().DoubleValue() : -1.0;
  if (!(number >= least && number <= most) || number != static_cast<double>(static_cast<uint32_t>(number))) {
    reject(std::string("`") + name + "` must be an integer from " + std::to_string(least) + " to " +
           std::to_string(most) + ", not " + value.ToString().Utf8Value() + ".");
  }
  return static_cast<uint32_t>(number);
}

// One of the formats [first, last].
Format format_argument(const Napi::CallbackInfo& info, size_t index, const char* name, Format first, Format last) {
  const std::string text = info[index].IsString() ? info[index].As<Napi::String>().Utf8Value() : "";
  std::string names;
  for (size_t i = static_cast<size_t>(first); i <= static_cast<size_t>(last); i++) {
    const char* const known = kFormatTraits[i].name;
    if (text == known) return static_cast<Format>(i);
    names += std::string(names.empty() ? "" : ", ") + known;
  }
  reject(std::string("`") + name + "` must be one of " + names + ".");
}

// Columns that share a scale; formats without scales ignore the argument.
uint32_t block_argument(const Napi::CallbackInfo& info, size_t index, Format format, uint32_t columns) {
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
  }
  return 1;
}

// `size` must hold `rows` rows; a quotient, because the product may not fit in 64 bits.
void check_holds(const char* name, size_t size, size_t rows, size_t bytes_per_row) {
  if (size / bytes_per_row >= rows) return;
  reject(std::string("`") + name + "` has " + std::to_string(size) + " bytes, too few for " + std::to_string(rows) +
         " rows of " + std::to_string(bytes_per_row) + " bytes.");
}

Napi::Value js_crc32c(const Napi::CallbackInfo& info) {
  const Bytes data = bytes_argument(info, 0, "data");
  return Napi::Number::New(info.Env(), crc32c(data.data, data.size));
}

Napi::Value js_row_bytes(const Napi::CallbackInfo& info) {
  const Format format = format_argument(info, 0, "format", Format::kF32, Format::kQ6K);
  const uint32_t columns = count_argument(info, 1, "columns", 1, kMaxCount);
  const size_t bytes = row_bytes(format, columns, block_argument(info, 2, format, columns));
  return Napi::Number::New(info.Env(), static_cast<double>(bytes));
}

Napi::Value js_quantize(const Napi::CallbackInfo& info) {
  cpu::QuantizeArgs args;
  args.source_format = format_argument(info, 0, "sourceFormat", Format::kF32, Format::kBF16);
  const Bytes source = bytes_argument(info, 1, "source");
  args.rows = count_argument(info, 2, "rows", 0, kMaxCount);
  args.columns = count_argument(info, 3, "columns", 1, kMaxCount);
  args.format = format_argument(info, 4, "format", Format::kQ8, Format::kQ4);
  args.block = block_argument(info, 5, args.format, args.columns);
  const Bytes output = bytes_argument(info, 6, "output");
  check_holds("source", source.size, args.rows, row_bytes(args.source_format, args.columns, 1));
  check_holds("output", output.size, args.rows, row_bytes(args.format, args.columns, args.block));
  args.source = source.data;
  args.output = output.data;
  return Napi::Boolean::New(info.Env(), cpu::best_kernels().quantize(args));
}

Napi::Value js_dequantize(const Napi::CallbackInfo& info) {
  const Format format = format_argument(info, 0, "format", Format::kF32, Format::kQ6K);
  const Bytes data = bytes_argument(info, 1, "data");
  const uint32_t rows = count_argument(info, 2, "rows", 0, kMaxCount);
  const uint32_t columns = count_argument(info, 3, "columns", 1, kMaxCount);
  const uint32_t block = block_argument(info, 4, format, columns);
  if (!info[5].IsTypedArray() || info[5].As<Napi::TypedArray>().TypedArrayType() != napi_float32_array) {
    reject("`output` must be a Float32Array.");
  }
  auto output = info[5].As<Napi::Float32Array>();
  const size_t stride = row_bytes(format, columns, block);
  check_holds("data", data.size, rows, stride);
  check_holds("output", output.ByteLength(), rows, size_t{4} * columns);
  const auto dequantize_row = cpu::best_kernels().dequantize_row[static_cast<size_t>(format)];
  if (dequantize_row == nullptr) reject(std::string("No kernel decodes ") + traits_of(format).name + " yet.");
  for (size_t row = 0; row < rows; row++) {
    dequantize_row(data.data + row * stride, columns, block, output.Data() + row * columns);
  }
  return info.Env().Undefined();
}

}  // namespace

void register_codec(Napi::Env env, Napi::Object exports) {
  exports.Set("crc32c", guarded(env, "crc32c", js_crc32c));
  exports.Set("rowBytes", guarded(env, "rowBytes", js_row_bytes));
  exports.Set("quantize", guarded(env, "quantize", js_quantize));
  exports.Set("dequantize", guarded(env, "dequantize", js_dequantize));
}

}  // namespace layerstream
