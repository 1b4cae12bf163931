// Checksums and weight formats for JavaScript. Every argument is checked here: the code below trusts its callers.
#include <napi.h>

#include "addon.h"
#include "addon_arguments.h"
#include "backend/format.h"
#include "codec/bf16_window.h"
#include "codec/crc32c.h"
#include "cpu/kernels.h"

namespace layerstream {

namespace {

Napi::Value js_crc32c(const Napi::CallbackInfo& info) {
  const Bytes data = bytes_argument(info, 0, "data");
  return Napi::Number::New(info.Env(), crc32c(data.data, data.size));
}

Napi::Value js_row_bytes(const Napi::CallbackInfo& info) {
  const Format format = format_argument(info, 0, "format", Format::kF32, Format::kBF16Window);
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

WindowSource window_source_argument(const Napi::CallbackInfo& info) {
  const Bytes source = bytes_argument(info, 0, "source");
  const uint32_t rows = count_argument(info, 1, "rows", 0, kMaxCount);
  const uint32_t columns = count_argument(info, 2, "columns", 1, kMaxCount);
  check_holds("source", source.size, rows, row_bytes(Format::kBF16, columns, 0));
  return {source.data, rows, columns};
}

Napi::Value js_most_escapes(const Napi::CallbackInfo& info) {
  return Napi::Number::New(info.Env(), static_cast<double>(most_escapes(window_source_argument(info))));
}

Napi::Value js_encode_windows(const Napi::CallbackInfo& info) {
  const WindowSource source = window_source_argument(info);
  const uint32_t block = block_argument(info, 3, Format::kBF16Window, source.columns);
  const Bytes output = bytes_argument(info, 4, "output");
  check_holds("output", output.size, source.rows, row_bytes(Format::kBF16Window, source.columns, block));
  return Napi::Boolean::New(info.Env(), encode_windows(source, block, output.data));
}

Napi::Value js_narrow_to_bf16(const Napi::CallbackInfo& info) {
  const Bytes source = bytes_argument(info, 0, "source");
  const Bytes output = bytes_argument(info, 1, "output");
  const size_t count = source.size / sizeof(float);
  check_holds("output", output.size, count, sizeof(uint16_t));
  return Napi::Boolean::New(info.Env(), narrow_to_bfloat16(source.data, count, output.data));
}

Napi::Value js_dequantize(const Napi::CallbackInfo& info) {
  const Format format = format_argument(info, 0, "format", Format::kF32, Format::kBF16Window);
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
  exports.Set("mostEscapes", guarded(env, "mostEscapes", js_most_escapes));
  exports.Set("encodeWindows", guarded(env, "encodeWindows", js_encode_windows));
  exports.Set("narrowToBf16", guarded(env, "narrowToBf16", js_narrow_to_bf16));
  exports.Set("dequantize", guarded(env, "dequantize", js_dequantize));
}

}  // namespace layerstream
