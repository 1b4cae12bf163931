// Reading of JavaScript values, checked. All throw Error{"INTERNAL"} naming the key: descriptions come from TypeScript.
#pragma once

#include <napi.h>

#include <cstdint>
#include <string>
#include <vector>

#include "platform/error.h"

namespace layerstream {

inline Napi::Object object_at(const Napi::Object& object, const char* key) {
  const Napi::Value value = object.Get(key);
  if (!value.IsObject()) throw Error("INTERNAL", std::string("Expected an object: ") + key);
  return value.As<Napi::Object>();
}

inline bool has(const Napi::Object& object, const char* key) { return !object.Get(key).IsUndefined(); }

inline double number_at(const Napi::Object& object, const char* key) {
  const Napi::Value value = object.Get(key);
  if (!value.IsNumber()) throw Error("INTERNAL", std::string("Expected a number: ") + key);
  return value.As<Napi::Number>().DoubleValue();
}

inline float float_at(const Napi::Object& object, const char* key) { return static_cast<float>(number_at(object, key)); }

inline uint32_t uint_at(const Napi::Object& object, const char* key) {
  const double value = number_at(object, key);
  if (!(value >= 0 && value <= UINT32_MAX) || value != static_cast<double>(static_cast<uint32_t>(value))) {
    throw Error("INTERNAL", std::string("Expected a 32-bit unsigned integer: ") + key);
  }
  return static_cast<uint32_t>(value);
}

inline uint64_t bytes_at(const Napi::Object& object, const char* key) {
  const double value = number_at(object, key);
  if (!(value >= 0 && value <= 9007199254740991.0)) throw Error("INTERNAL", std::string("Expected a byte count: ") + key);
  return static_cast<uint64_t>(value);
}

inline std::string string_at(const Napi::Object& object, const char* key) {
  const Napi::Value value = object.Get(key);
  if (!value.IsString()) throw Error("INTERNAL", std::string("Expected a string: ") + key);
  return value.As<Napi::String>().Utf8Value();
}

inline bool flag_at(const Napi::Object& object, const char* key) { return object.Get(key).ToBoolean(); }

// function(Napi::Object) for each element of an array of objects.
template <typename F>
void each(const Napi::Object& object, const char* key, F&& function) {
  const Napi::Value value = object.Get(key);
  if (!value.IsArray()) throw Error("INTERNAL", std::string("Expected an array: ") + key);
  const auto array = value.As<Napi::Array>();
  for (uint32_t index = 0; index < array.Length(); ++index) {
    const Napi::Value item = array.Get(index);
    if (!item.IsObject()) throw Error("INTERNAL", std::string("Expected an array of objects: ") + key);
    function(item.As<Napi::Object>());
  }
}

inline std::vector<float> floats_at(const Napi::Object& object, const char* key) {
  const Napi::Value value = object.Get(key);
  if (!value.IsTypedArray() || value.As<Napi::TypedArray>().TypedArrayType() != napi_float32_array) {
    throw Error("INTERNAL", std::string("Expected a Float32Array: ") + key);
  }
  const auto array = value.As<Napi::Float32Array>();
  return {array.Data(), array.Data() + array.ElementLength()};
}

inline std::vector<uint32_t> uints_at(const Napi::Object& object, const char* key) {
  const Napi::Value value = object.Get(key);
  if (!value.IsTypedArray() || value.As<Napi::TypedArray>().TypedArrayType() != napi_uint32_array) {
    throw Error("INTERNAL", std::string("Expected a Uint32Array: ") + key);
  }
  const auto array = value.As<Napi::Uint32Array>();
  return {array.Data(), array.Data() + array.ElementLength()};
}

// An array of JavaScript numbers.
inline std::vector<double> numbers_at(const Napi::Object& object, const char* key) {
  const Napi::Value value = object.Get(key);
  if (!value.IsArray()) throw Error("INTERNAL", std::string("Expected an array: ") + key);
  const auto array = value.As<Napi::Array>();
  std::vector<double> numbers;
  for (uint32_t index = 0; index < array.Length(); ++index) {
    const Napi::Value item = array.Get(index);
    if (!item.IsNumber()) throw Error("INTERNAL", std::string("Expected an array of numbers: ") + key);
    numbers.push_back(item.As<Napi::Number>().DoubleValue());
  }
  return numbers;
}

}  // namespace layerstream
