// From NativeModelDescription of src/native/types.ts to what the runtime takes.
#pragma once

#include <napi.h>

#include "stream/model.h"

namespace layerstream {

// Throws Error{"INTERNAL"} for what is not of the expected kind, Error{"STORE_INVALID"} for matrices that cannot be.
RuntimeDescription read_description(const Napi::Object& object);

// The chunks into which the runtime cuts the stage (a NativeStage). Throws as read_description does.
std::vector<Chunk> chunks_of(const Napi::Object& stage, uint64_t chunk_bytes);

// A Uint8Array of flags.
std::vector<uint8_t> flags_of(const Napi::Value& value);

}  // namespace layerstream
