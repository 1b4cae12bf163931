// Repacking of quantized checkpoints for JavaScript. Every argument is checked here: the code below trusts its callers.
#include <napi.h>

#include "addon.h"
#include "addon_arguments.h"
#include "codec/repack.h"

namespace layerstream {

namespace {

// The elements of a typed array of the given kind, of which there must be at least `count`.
template <typename Element>
Element* elements(const Napi::Value& value, napi_typedarray_type type, const char* name, size_t count) {
  if (!value.IsTypedArray() || value.As<Napi::TypedArray>().TypedArrayType() != type) {
    reject(std::string("`") + name + "` is no typed array of the right kind.");
  }
  auto array = value.As<Napi::TypedArrayOf<Element>>();
  if (array.ElementLength() >= count) return array.Data();
  reject(std::string("`") + name + "` has " + std::to_string(array.ElementLength()) + " elements, fewer than " +
         std::to_string(count) + ".");
}

CodePacking packing_argument(const Napi::CallbackInfo& info, size_t index) {
  const std::string text = info[index].IsString() ? info[index].As<Napi::String>().Utf8Value() : "";
  if (text == "stream") return CodePacking::kStream;
  if (text == "highNibbles") return CodePacking::kHighNibbles;
  if (text == "interleaved") return CodePacking::kInterleaved;
  reject("`packing` must be stream, highNibbles or interleaved.");
}

Napi::Value js_unpack_codes(const Napi::CallbackInfo& info) {
  PackedCodes codes;
  codes.packing = packing_argument(info, 0);
  codes.bits = count_argument(info, 1, "bits", 2, 8);
  const Bytes data = bytes_argument(info, 2, "data");
  codes.rows = count_argument(info, 3, "rows", 0, kMaxCount);
  codes.columns = count_argument(info, 4, "columns", 1, kMaxCount);
  codes.row_bytes = count_argument(info, 5, "rowBytes", 0, kMaxCount);
  codes.first = count_argument(info, 6, "first", 0, kMaxCount);
  const bool known = codes.packing == CodePacking::kStream ? codes.bits <= 4 || codes.bits == 8 : codes.bits == 4;
  if (!known) reject("`bits` must be 2, 3, 4 or 8, or 4 where nibbles are packed; it is " + std::to_string(codes.bits) + ".");
  if (codes.packing == CodePacking::kInterleaved && codes.rows % 8 != 0) reject("`rows` must be a multiple of 8.");
  if (data.size < packed_bytes(codes)) reject("`data` is too short for its rows and columns.");
  codes.data = data.data;
  unpack_codes(codes, elements<uint8_t>(info[7], napi_uint8_array, "output", size_t{codes.rows} * codes.columns));
  return info.Env().Undefined();
}

// { codes, rows, columns, block, scales, zeros?, groupOf? }
ScaledCodes scaled_codes_argument(const Napi::CallbackInfo& info, size_t index) {
  if (!info[index].IsObject()) reject("`codes` must be an object.");
  const auto object = info[index].As<Napi::Object>();
  const auto count = [&object](const char* name, uint32_t least) {
    const double number = object.Get(name).IsNumber() ? object.Get(name).As<Napi::Number>().DoubleValue() : -1.0;
    if (!(number >= least && number <= kMaxCount)) reject(std::string("`") + name + "` is out of range.");
    return static_cast<uint32_t>(number);
  };
  ScaledCodes codes{};
  codes.rows = count("rows", 0);
  codes.columns = count("columns", 1);
  codes.block = count("block", 1);
  codes.codes = elements<uint8_t>(object.Get("codes"), napi_uint8_array, "codes", size_t{codes.rows} * codes.columns);
  const size_t blocks = (size_t{codes.columns} + codes.block - 1) / codes.block;
  codes.groups = count("groups", 1);
  if (object.Has("groupOf") && !object.Get("groupOf").IsUndefined()) {
    codes.group_of = elements<uint32_t>(object.Get("groupOf"), napi_uint32_array, "groupOf", blocks);
    for (size_t b = 0; b < blocks; ++b) {
      if (codes.group_of[b] >= codes.groups) reject("`groupOf` names a group that `scales` lacks.");
    }
  } else if (codes.groups < blocks) {
    reject("`groups` is less than the number of blocks.");
  }
  const size_t scales = size_t{codes.rows} * codes.groups;
  codes.scales = elements<float>(object.Get("scales"), napi_float32_array, "scales", scales);
  if (object.Has("zeros") && !object.Get("zeros").IsUndefined()) {
    codes.zeros = elements<uint8_t>(object.Get("zeros"), napi_uint8_array, "zeros", scales);
  }
  return codes;
}

// (codes, format, columnOrder?, output): false if a scale is not exact in the format.
Napi::Value js_pack_rows(const Napi::CallbackInfo& info) {
  const ScaledCodes codes = scaled_codes_argument(info, 0);
  const Format format = format_argument(info, 1, "format", Format::kU2, Format::kNf4);
  if (!block_fits(format, codes.columns, codes.block)) reject("`block` does not fit the format.");
  const bool has_zeros = format >= Format::kU2 && format <= Format::kU8;
  if (has_zeros != (codes.zeros != nullptr)) reject("`zeros` belong to uint2, uint3, uint4 and uint8, and to no other.");
  const uint32_t* order = nullptr;
  if (!info[2].IsUndefined()) {
    order = elements<uint32_t>(info[2], napi_uint32_array, "columnOrder", codes.columns);
    for (uint32_t c = 0; c < codes.columns; ++c) {
      if (order[c] >= codes.columns) reject("`columnOrder` names a column that is not there.");
    }
  }
  const Bytes output = bytes_argument(info, 3, "output");
  check_holds("output", output.size, codes.rows, row_bytes(format, codes.columns, codes.block));
  return Napi::Boolean::New(info.Env(), pack_rows(codes, order, format, output.data));
}

// (codes, levels?, output)
Napi::Value js_expand_rows(const Napi::CallbackInfo& info) {
  const ScaledCodes codes = scaled_codes_argument(info, 0);
  const float* levels = nullptr;
  if (!info[1].IsUndefined()) levels = elements<float>(info[1], napi_float32_array, "levels", 256);
  const size_t count = size_t{codes.rows} * codes.columns;
  expand_rows(codes, levels, elements<float>(info[2], napi_float32_array, "output", count));
  return info.Env().Undefined();
}

}  // namespace

void register_repack(Napi::Env env, Napi::Object exports) {
  exports.Set("unpackCodes", guarded(env, "unpackCodes", js_unpack_codes));
  exports.Set("packRows", guarded(env, "packRows", js_pack_rows));
  exports.Set("expandRows", guarded(env, "expandRows", js_expand_rows));
}

}  // namespace layerstream
