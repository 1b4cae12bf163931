// Functions of the addon on the trace of a model; addon_model.cc finds the model.
#pragma once

#include <napi.h>

#include "stream/runtime.h"

namespace layerstream {

Napi::Value activity_names(const Napi::CallbackInfo& info);
// (model, prompt) -> { tokens, sums }
Napi::Value phase_sums(const Napi::CallbackInfo& info, Runtime& runtime);
// (model, first, limit) -> { first, recorded, fields }
Napi::Value trace_spans(const Napi::CallbackInfo& info, Runtime& runtime);
// (model, activity)
Napi::Value trace_activity(const Napi::CallbackInfo& info, Runtime& runtime);

}  // namespace layerstream
