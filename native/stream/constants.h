// What is always in device memory: norm weights and biases, column orders, ALiBi slopes, adapters.
#pragma once

#include <span>

#include "../io/file.h"
#include "../io/reader.h"
#include "model.h"
#include "processor.h"

namespace layerstream {

// Bytes of device memory that load_constants fills.
uint64_t constant_bytes(const RuntimeDescription& description);

// Reads and uploads, and notes in the description where each constant lies in `memory`, and those of stages that are placed on
// `processor`, which may be null, there too. Blocks. Throws
// Error{"IO_ERROR"}, Error{"STORE_INVALID"} for a column order that names a column that is not there.
void load_constants(RuntimeDescription& description, Range memory, Device& device, Stream* stream, Reader& reader,
                    std::span<const WeightFile> files, Processor* processor);

}  // namespace layerstream
