// What the addon*.cc files share: registration, and the one place where exceptions become JavaScript errors.
#pragma once

#include <napi.h>

#include <exception>

namespace layerstream {

void register_codec(Napi::Env env, Napi::Object exports);
void register_repack(Napi::Env env, Napi::Object exports);
void register_transfer(Napi::Env env, Napi::Object exports);
void register_model(Napi::Env env, Napi::Object exports);
void register_measure(Napi::Env env, Napi::Object exports);
void register_devices(Napi::Env env, Napi::Object exports);

// The JavaScript error for an exception: `code` is that of layerstream::Error, or INTERNAL. INVALID_ARGUMENT becomes a
// RangeError. An error that JavaScript itself threw is passed on.
Napi::Error to_js_error(Napi::Env env, std::exception_ptr error);

// A JavaScript function that calls `function`, which takes a Napi::CallbackInfo, returns a Napi::Value and may throw.
template <typename Function>
Napi::Function guarded(Napi::Env env, const char* name, Function function) {
  const auto call = [function](const Napi::CallbackInfo& info) -> Napi::Value {
    try {
      return function(info);
    } catch (...) {
      throw to_js_error(info.Env(), std::current_exception());
    }
  };
  return Napi::Function::New(env, call, name);
}

}  // namespace layerstream
