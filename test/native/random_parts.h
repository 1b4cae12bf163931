// Products in parts: results must not depend on how rows and tokens are divided.
#pragma once

#include <algorithm>
#include <cstring>
#include <vector>

#include "reference_weights.h"

namespace layerstream::reference {

// part(row, rows, token, tokens) for every part of a random division of both, most of them small.
template <typename Part>
void in_random_parts(RandomRows& random, uint32_t rows, uint32_t tokens, const Part& part) {
  for (uint32_t token = 0, some_tokens = 0; token < tokens; token += some_tokens) {
    some_tokens = std::min(random.uniform(1, random.uniform(0, 1) == 0 ? 3 : 120), tokens - token);
    for (uint32_t row = 0, some_rows = 0; row < rows; row += some_rows) {
      some_rows = std::min(random.uniform(1, random.uniform(0, 1) == 0 ? 9 : 400), rows - row);
      part(row, some_rows, token, some_tokens);
    }
  }
}

// Where the bits of two arrays of one size begin to differ; their size if nowhere.
inline size_t first_difference(const std::vector<float>& a, const std::vector<float>& b) {
  size_t index = 0;
  while (index < a.size() && std::memcmp(&a[index], &b[index], sizeof(float)) == 0) ++index;
  return index;
}

}  // namespace layerstream::reference
