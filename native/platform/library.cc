#include "library.h"

#if defined(_WIN32)
#include <windows.h>
#else
#include <dlfcn.h>
#endif

namespace layerstream {

#if defined(_WIN32)

void Library::open(const char* name) {
  handle_ = LoadLibraryA(name);
  if (handle_ == nullptr) error_ += std::string(error_.empty() ? "" : "; ") + name + " cannot be loaded, error " + std::to_string(GetLastError());
}

void* Library::find(const char* function) const {
  return handle_ == nullptr ? nullptr : reinterpret_cast<void*>(GetProcAddress(static_cast<HMODULE>(handle_), function));
}

#else

void Library::open(const char* name) {
  handle_ = dlopen(name, RTLD_NOW | RTLD_LOCAL);
  if (handle_ != nullptr) return;
  const char* const reason = dlerror();
  error_ += std::string(error_.empty() ? "" : "; ") + (reason == nullptr ? name : reason);
}

void* Library::find(const char* function) const { return handle_ == nullptr ? nullptr : dlsym(handle_, function); }

#endif

}  // namespace layerstream
