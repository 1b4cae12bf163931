// The drivers that are registered with the loader.
#pragma once

#include <string>

namespace layerstream::opencl {

// Which of them cannot be loaded or are none, as sentences that begin with a space; nothing where all is well. Loaders pass
// over such drivers in silence.
std::string broken_drivers();

}  // namespace layerstream::opencl
