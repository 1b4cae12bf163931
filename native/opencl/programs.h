// Programs of the device, built from the embedded kernels when first used, and kept on disk for the next time.
#pragma once

#include <map>
#include <mutex>
#include <string>
#include <string_view>
#include <vector>

#include "context.h"
#include "kernel_key.h"

namespace layerstream::opencl {

// A file of native/opencl/kernels, embedded by tools/embed-kernels.mjs.
struct Source {
  const char* name;  // "common.cl"
  const char* text;
  size_t bytes;
};

// All of them, ended by one without a name.
extern const Source kSources[];

class Programs {
 public:
  // `cache_directory`: where binaries are kept; empty: nowhere.
  Programs(const Context& context, std::string cache_directory)
      : context_(context), directory_(std::move(cache_directory)) {}
  ~Programs();
  Programs(const Programs&) = delete;
  Programs& operator=(const Programs&) = delete;

  // A new kernel, the caller's, of the program that the files (one after the other) are with the options. Any thread.
  // Null if the program has none of that name on this device. Throws Error{"DEVICE_FAILED"} with what the compiler says.
  cl_kernel create_kernel(const KernelSource& source);

 private:
  cl_program find(const KernelSource& wanted);
  cl_program load(const std::string& path, const std::string& identity, const std::string& options);
  cl_program compile(const std::string& source, const std::string& options);
  void store(const std::string& path, const std::string& identity, cl_program program);

  const Context& context_;
  const std::string directory_;
  std::mutex mutex_;
  std::map<std::string, cl_program> programs_;  // by files and options
};

}  // namespace layerstream::opencl
