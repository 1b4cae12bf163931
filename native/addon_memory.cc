// Memory for JavaScript that direct reads and writes can use: V8 promises no alignment.
#include <napi.h>

#include <memory>

#include "addon.h"
#include "addon_arguments.h"
#include "platform/memory.h"

namespace layerstream {

namespace {

constexpr uint32_t kMaxBytes = uint32_t{1} << 30;

// allocateBuffer(bytes)
Napi::Value js_allocate_buffer(const Napi::CallbackInfo& info) {
  const uint32_t bytes = count_argument(info, 0, "bytes", 1, kMaxBytes);
  auto arena = std::make_unique<Arena>(bytes);
  const auto release = [](Napi::Env, void*, Arena* owner) { delete owner; };
  const auto memory = Napi::ArrayBuffer::New(info.Env(), arena->data(), bytes, release, arena.get());
  arena.release();
  return Napi::Uint8Array::New(info.Env(), bytes, memory, 0);
}

}  // namespace

void register_memory(Napi::Env env, Napi::Object exports) {
  exports.Set("allocateBuffer", guarded(env, "allocateBuffer", js_allocate_buffer));
}

}  // namespace layerstream
