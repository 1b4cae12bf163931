// What tests check: the first that does not hold ends the program.
#pragma once

#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <string>

namespace layerstream {

inline std::atomic<int> checks = 0;

inline void check(bool condition, const std::string& what) {
  ++checks;
  if (condition) return;
  fprintf(stderr, "failed: %s\n", what.c_str());
  exit(1);
}

}  // namespace layerstream
