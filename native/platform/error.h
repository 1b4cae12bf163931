// The one exception type of native code. addon*.cc turn it into a JavaScript error with the same code.
#pragma once

#include <stdexcept>
#include <string>

namespace layerstream {

class Error : public std::runtime_error {
 public:
  Error(const char* code, const std::string& message) : std::runtime_error(message), code_(code) {}
  const char* code() const { return code_; }

 private:
  const char* code_;  // a string literal, one of ErrorCode in src/errors.ts
};

}  // namespace layerstream
