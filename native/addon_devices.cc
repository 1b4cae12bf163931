// devices(): what backends() can run here.
#include "addon.h"
#include "backend/device.h"

namespace layerstream {

namespace {

Napi::Value devices(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  const Napi::Array list = Napi::Array::New(env);
  for (const Backend& backend : backends()) {
    std::string reason;
    const std::unique_ptr<Device> device = backend.open({}, &reason);
    const Napi::Object each = Napi::Object::New(env);
    each.Set("name", backend.name);
    if (device) {
      const DeviceInfo found = device->info();
      each.Set("kernels", found.kernels);
      each.Set("unified", found.unified);
    } else {
      each.Set("reason", reason);
    }
    list.Set(list.Length(), each);
  }
  return list;
}

}  // namespace

void register_devices(Napi::Env env, Napi::Object exports) { exports.Set("devices", guarded(env, "devices", devices)); }

}  // namespace layerstream
