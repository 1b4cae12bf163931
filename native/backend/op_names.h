// What ops are called in messages and tables.
#pragma once

#include <string>

#include "ops.h"

namespace layerstream {

// "matmul"
const char* name_of(const Op& op);

// The op and its formats: "matmul with 4bit weights".
std::string describe(const Op& op);

}  // namespace layerstream
