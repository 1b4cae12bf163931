// What devices there are on this machine, and their memory.
#include <memory>

#include "addon.h"
#include "backend/device.h"
#include "backend/self_check.h"

namespace layerstream {

namespace {

Napi::Object describe(Napi::Env env, const ListedDevice& device) {
  const DeviceInfo& info = device.info;
  const Napi::Object object = Napi::Object::New(env);
  object.Set("name", info.name);
  if (!device.reason.empty()) {
    object.Set("reason", device.reason);
    return object;
  }
  object.Set("kernels", info.kernels);
  object.Set("kind", info.kind == DeviceKind::kGpu ? "gpu" : "processor");
  object.Set("driver", info.driver);
  object.Set("memoryBytes", static_cast<double>(info.memory_bytes));
  object.Set("unified", info.unified);
  return object;
}

Napi::Value devices(const Napi::CallbackInfo& info) {
  const Napi::Array list = Napi::Array::New(info.Env());
  for (const Backend& backend : backends()) {
    const std::vector<ListedDevice> listed = backend.list();
    for (uint32_t index = 0; index < listed.size(); ++index) {
      const Napi::Object each = describe(info.Env(), listed[index]);
      each.Set("backend", backend.name);
      each.Set("index", index);
      list.Set(list.Length(), each);
    }
  }
  return list;
}

Napi::Value device_free_bytes(const Napi::CallbackInfo& info) {
  const std::unique_ptr<Device> device = open_device(info[0].ToString().Utf8Value(), {});
  return Napi::Number::New(info.Env(), static_cast<double>(device->free_bytes()));
}

Napi::Value device_scratch_bytes(const Napi::CallbackInfo& info) {
  const std::unique_ptr<Device> device = open_device(info[0].ToString().Utf8Value(), {});
  const uint32_t columns = info[1].ToNumber().Uint32Value();
  return Napi::Number::New(info.Env(), static_cast<double>(device->scratch_bytes(columns)));
}

// holdDevice(name): returns what lets go of it.
Napi::Value hold_device(const Napi::CallbackInfo& info) {
  std::shared_ptr<Device> device = open_device(info[0].ToString().Utf8Value(), {});
  return Napi::Function::New(info.Env(), [device](const Napi::CallbackInfo&) mutable { device.reset(); });
}

// checkDevice(name, kernelDirectory)
Napi::Value check_device(const Napi::CallbackInfo& info) {
  const std::unique_ptr<Device> device = open_device(info[0].ToString().Utf8Value(), {1, info[1].ToString().Utf8Value()});
  check_computes(*device);
  return info.Env().Undefined();
}

}  // namespace

void register_devices(Napi::Env env, Napi::Object exports) {
  exports.Set("devices", guarded(env, "devices", devices));
  exports.Set("deviceFreeBytes", guarded(env, "deviceFreeBytes", device_free_bytes));
  exports.Set("holdDevice", guarded(env, "holdDevice", hold_device));
  exports.Set("checkDevice", guarded(env, "checkDevice", check_device));
  exports.Set("deviceScratchBytes", guarded(env, "deviceScratchBytes", device_scratch_bytes));
}

}  // namespace layerstream
