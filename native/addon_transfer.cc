// Transfers for JavaScript: an object with buffers and two functions, which all keep the Transfer alive.
#include <napi.h>

#include <memory>

#include "addon.h"
#include "addon_arguments.h"
#include "io/transfer.h"

namespace layerstream {

namespace {

constexpr uint32_t kMaxBuffers = 8;
constexpr uint32_t kMaxBytes = uint32_t{1} << 30;

using SharedTransfer = std::shared_ptr<Transfer>;

Napi::Uint8Array wrap_buffer(Napi::Env env, const SharedTransfer& transfer, uint32_t index) {
  auto owner = std::make_unique<SharedTransfer>(transfer);
  const auto release = [](Napi::Env, void*, SharedTransfer* held) { delete held; };
  const auto memory = Napi::ArrayBuffer::New(env, transfer->buffer(index), transfer->bytes(), release, owner.get());
  owner.release();
  return Napi::Uint8Array::New(env, transfer->bytes(), memory, 0);
}

// start(write, descriptor, buffer, begin, length, position)
Napi::Value start(const Napi::CallbackInfo& info, Transfer& transfer) {
  if (transfer.busy()) reject("A transfer is under way.");
  const auto most = static_cast<uint32_t>(transfer.bytes());
  const auto descriptor = static_cast<int>(count_argument(info, 1, "descriptor", 0, kMaxCount));
  const uint32_t index = count_argument(info, 2, "buffer", 0, transfer.buffers() - 1);
  const uint32_t begin = count_argument(info, 3, "begin", 0, most);
  const uint32_t length = count_argument(info, 4, "length", 0, most - begin);
  const double position = info[5].IsNumber() ? info[5].As<Napi::Number>().DoubleValue() : -1;
  if (!(position >= 0 && position <= 9007199254740991.0)) reject("`position` must be a byte of a file.");
  transfer.start({info[0].ToBoolean(), descriptor, transfer.buffer(index) + begin, length, static_cast<uint64_t>(position)});
  return info.Env().Undefined();
}

Napi::Value finish(const Napi::CallbackInfo& info, Transfer& transfer) {
  if (!transfer.busy()) reject("No transfer is under way.");
  return Napi::Number::New(info.Env(), static_cast<double>(transfer.finish()));
}

// createTransfer(buffers, bytes)
Napi::Value create_transfer(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  const uint32_t buffers = count_argument(info, 0, "buffers", 1, kMaxBuffers);
  const uint32_t bytes = count_argument(info, 1, "bytes", 1, kMaxBytes);
  const auto transfer = std::make_shared<Transfer>(buffers, bytes);
  const auto list = Napi::Array::New(env, buffers);
  for (uint32_t index = 0; index < buffers; ++index) list.Set(index, wrap_buffer(env, transfer, index));
  const auto object = Napi::Object::New(env);
  object.Set("buffers", list);
  object.Set("start", guarded(env, "start", [transfer](const Napi::CallbackInfo& call) { return start(call, *transfer); }));
  object.Set("finish", guarded(env, "finish", [transfer](const Napi::CallbackInfo& call) { return finish(call, *transfer); }));
  return object;
}

}  // namespace

void register_transfer(Napi::Env env, Napi::Object exports) {
  exports.Set("createTransfer", guarded(env, "createTransfer", create_transfer));
}

}  // namespace layerstream
