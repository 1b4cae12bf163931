// What a function that should fail threw.
#pragma once

#include <string>

#include "../../native/platform/error.h"

namespace layerstream {

struct Failure {
  std::string code, message;
  bool has(const std::string& part) const { return message.find(part) != std::string::npos; }
};

// Empty if it did not throw.
template <typename Function>
Failure failure_of(Function function) {
  try {
    function();
  } catch (const Error& error) {
    return {error.code(), error.what()};
  }
  return {};
}

template <typename Function>
std::string code_of(Function function) {
  return failure_of(function).code;
}

}  // namespace layerstream
