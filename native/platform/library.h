// Shared libraries that are looked for at run time: drivers that a user may or may not have.
#pragma once

#include <string>

namespace layerstream {

// Stays loaded: drivers do not like to be unloaded.
class Library {
 public:
  // The first of `names` that loads; otherwise not loaded(), and error() says why.
  template <class... Names>
  explicit Library(const char* name, Names... names) : Library() {
    for (const char* each : {name, static_cast<const char*>(names)...}) {
      if (handle_ == nullptr) open(each);
    }
  }

  bool loaded() const { return handle_ != nullptr; }
  const std::string& error() const { return error_; }
  // Null where the library has no such function.
  void* find(const char* function) const;

 private:
  Library() = default;
  void open(const char* name);

  void* handle_ = nullptr;
  std::string error_;
};

}  // namespace layerstream
