// One pass for JavaScript: its request, and the way back from the pass thread.
#pragma once

#include <napi.h>

#include <cstdint>
#include <memory>
#include <vector>

#include "stream/runtime.h"

namespace layerstream {

struct LoadedModel {
  std::unique_ptr<Runtime> runtime;
  RuntimeDescription limits;  // numbers that requests are checked against; no files, plans or stages
  uint32_t embedding_rows = 0;
  std::vector<RopeTable> ropes;  // of the latest request that had any
};

// A promise of the token that the pass chooses (see NativePassRequest in src/native/types.ts).
Napi::Value start_pass(Napi::Env env, std::shared_ptr<LoadedModel> model, const Napi::Object& object);

}  // namespace layerstream
