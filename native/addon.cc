#include "addon.h"

#include <cstring>

#include "platform/error.h"

namespace layerstream {

namespace {

Napi::Error with_code(Napi::Env env, const char* code, const std::string& message) {
  Napi::Error error = std::strcmp(code, "INVALID_ARGUMENT") == 0 ? Napi::RangeError::New(env, message)
                                                                  : Napi::Error::New(env, message);
  error.Set("code", code);
  return error;
}

}  // namespace

Napi::Error to_js_error(Napi::Env env, std::exception_ptr error) {
  try {
    std::rethrow_exception(error);
  } catch (const Napi::Error& thrown) {
    return thrown;
  } catch (const Error& thrown) {
    return with_code(env, thrown.code(), thrown.what());
  } catch (const std::bad_alloc&) {
    return with_code(env, "INTERNAL", "The system has no memory left for this operation.");
  } catch (const std::exception& thrown) {
    return with_code(env, "INTERNAL", thrown.what());
  } catch (...) {
    return with_code(env, "INTERNAL", "Native code raised an unknown exception.");
  }
}

}  // namespace layerstream

static Napi::Object initialize(Napi::Env env, Napi::Object exports) {
  layerstream::register_codec(env, exports);
  layerstream::register_repack(env, exports);
  layerstream::register_transfer(env, exports);
  layerstream::register_model(env, exports);
  layerstream::register_measure(env, exports);
  layerstream::register_devices(env, exports);
  return exports;
}

NODE_API_MODULE(layerstream, initialize)
