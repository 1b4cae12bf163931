// From NativeModelDescription of src/native/types.ts to what the runtime takes.
#pragma once

#include <napi.h>

#include "stream/model.h"

namespace layerstream {

// Throws Error{"INTERNAL"} for what is not of the expected kind, Error{"STORE_INVALID"} for matrices that cannot be.
RuntimeDescription read_description(const Napi::Object& object);

}  // namespace layerstream
