#include "programs.h"

#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <random>
#include <system_error>

#include "../platform/error.h"

namespace layerstream::opencl {

namespace {

// FNV-1a.
uint64_t hash_of(std::string_view text) {
  uint64_t hash = 0xcbf29ce484222325;
  for (const char each : text) hash = (hash ^ static_cast<uint8_t>(each)) * 0x100000001b3;
  return hash;
}

std::string hexadecimal(uint64_t number) {
  std::string digits;
  for (int shift = 60; shift >= 0; shift -= 4) digits += "0123456789abcdef"[number >> shift & 15];
  return digits;
}

const Source& file_of(const char* name) {
  const Source* source = kSources;
  while (source->name != nullptr && std::strcmp(source->name, name) != 0) ++source;
  if (source->name == nullptr) throw Error("INTERNAL", std::string("There is no kernel file ") + name + ".");
  return *source;
}

}  // namespace

Programs::~Programs() {
  for (const auto& [key, program] : programs_) context_.api().clReleaseProgram(program);
}

cl_kernel Programs::create_kernel(const KernelSource& source) {
  cl_int status = CL_SUCCESS;
  const cl_kernel kernel = context_.api().clCreateKernel(find(source), source.name, &status);
  if (status == CL_INVALID_KERNEL_NAME) return nullptr;
  check(status, "clCreateKernel");
  return kernel;
}

cl_program Programs::find(const KernelSource& wanted) {
  const auto& [files, options, name] = wanted;
  std::string key = options;
  for (const char* file : files) key += std::string(" ") + file;
  std::lock_guard lock(mutex_);
  const auto found = programs_.find(key);
  if (found != programs_.end()) return found->second;

  std::string source;
  for (const char* file : files) {
    const Source& part = file_of(file);
    source.append(part.text, part.bytes);
  }
  // What a binary depends on. Files are named by its hash, and repeat it: two programs never share one.
  const std::string identity = context_.name() + '\n' + context_.driver() + '\n' + options + '\n' + hexadecimal(hash_of(source)) + '\n';
  const std::string path = directory_.empty() ? "" : directory_ + "/" + hexadecimal(hash_of(identity)) + ".bin";
  cl_program program = path.empty() ? nullptr : load(path, identity, options);
  if (program == nullptr) {
    program = compile(source, options);
    if (!path.empty()) store(path, identity, program);
  }
  return programs_.emplace(key, program).first->second;
}

// The file is the identity, the hash of the binary, the binary. Null unless all is as it should be.
cl_program Programs::load(const std::string& path, const std::string& identity, const std::string& options) {
  std::ifstream file(path, std::ios::binary);
  const std::string content{std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
  if (content.size() <= identity.size() + 16 || content.compare(0, identity.size(), identity) != 0) return nullptr;
  const std::string_view binary = std::string_view(content).substr(identity.size() + 16);
  if (std::string_view(content).substr(identity.size(), 16) != hexadecimal(hash_of(binary))) return nullptr;

  const Api& api = context_.api();
  const cl_device_id device = context_.device();
  const size_t bytes = binary.size();
  const auto* data = reinterpret_cast<const unsigned char*>(binary.data());
  cl_int accepted = CL_SUCCESS, status = CL_SUCCESS;
  const cl_program program = api.clCreateProgramWithBinary(context_.handle(), 1, &device, &bytes, &data, &accepted, &status);
  if (program == nullptr || status != CL_SUCCESS) return nullptr;
  if (accepted == CL_SUCCESS && api.clBuildProgram(program, 1, &device, options.c_str(), nullptr, nullptr) == CL_SUCCESS) return program;
  api.clReleaseProgram(program);
  return nullptr;
}

cl_program Programs::compile(const std::string& source, const std::string& options) {
  const Api& api = context_.api();
  const cl_device_id device = context_.device();
  const char* text = source.c_str();
  const size_t bytes = source.size();
  cl_int status = CL_SUCCESS;
  const cl_program program = api.clCreateProgramWithSource(context_.handle(), 1, &text, &bytes, &status);
  check(status, "clCreateProgramWithSource");
  status = api.clBuildProgram(program, 1, &device, options.c_str(), nullptr, nullptr);
  if (status == CL_SUCCESS) return program;
  size_t length = 0;
  api.clGetProgramBuildInfo(program, device, CL_PROGRAM_BUILD_LOG, 0, nullptr, &length);
  std::string log(length, '\0');
  api.clGetProgramBuildInfo(program, device, CL_PROGRAM_BUILD_LOG, length, log.data(), nullptr);
  api.clReleaseProgram(program);
  throw Error("DEVICE_FAILED", "The OpenCL compiler of " + context_.name() + " (driver " + context_.driver() + ") refused the kernels with " +
                                   options + ", " + status_name(status) + ": " + log.c_str());
}

// A cache: what cannot be written is compiled again the next time.
void Programs::store(const std::string& path, const std::string& identity, cl_program program) {
  const Api& api = context_.api();
  size_t bytes = 0;
  if (api.clGetProgramInfo(program, CL_PROGRAM_BINARY_SIZES, sizeof bytes, &bytes, nullptr) != CL_SUCCESS || bytes == 0) return;
  std::string binary(bytes, '\0');
  auto* data = reinterpret_cast<unsigned char*>(binary.data());
  if (api.clGetProgramInfo(program, CL_PROGRAM_BINARIES, sizeof data, &data, nullptr) != CL_SUCCESS) return;
  std::error_code error;
  std::filesystem::create_directories(directory_, error);
  const std::string temporary = path + "." + hexadecimal(std::random_device{}());
  {
    std::ofstream file(temporary, std::ios::binary);
    file << identity << hexadecimal(hash_of(binary)) << binary;
    if (!file.flush()) error = std::make_error_code(std::errc::io_error);
  }
  if (!error) std::filesystem::rename(temporary, path, error);
  if (error) std::filesystem::remove(temporary, error);
}

}  // namespace layerstream::opencl
