// How attention divides its scratch, the same for every instruction set.
#pragma once

#include <cstdint>

namespace layerstream::cpu::attention_layout {
namespace {

constexpr uint32_t kBlockKeys = 64;  // keys that are scored at once
constexpr uint32_t kRows = 64;       // query rows that share a transposed block of keys

constexpr uint32_t padded(uint32_t dim) { return (dim + 15) / 16 * 16; }

}  // namespace
}  // namespace layerstream::cpu::attention_layout
