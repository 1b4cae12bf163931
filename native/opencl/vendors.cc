#include "vendors.h"

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <vector>

#include "../platform/library.h"

namespace layerstream::opencl {

namespace {

#if defined(__linux__)
// A file of one line, the name of a library (Khronos, cl_khr_icd).
std::string fault_of(const std::filesystem::path& file) {
  std::string name;
  std::getline(std::ifstream(file), name);
  while (!name.empty() && (name.back() == '\r' || name.back() == ' ')) name.pop_back();
  if (name.empty()) return " " + file.string() + " names no driver: reinstall its package, or delete the file.";
  const Library driver(name.c_str());
  if (!driver.loaded()) return " The driver of " + file.string() + " cannot be loaded (" + driver.error() + "): reinstall it, or delete the file.";
  if (driver.find("clGetExtensionFunctionAddress") != nullptr) return {};
  return " " + name + ", which " + file.string() + " names, is no OpenCL driver: reinstall its package, or delete the file.";
}
#endif

}  // namespace

std::string broken_drivers() {
  std::string faults;
#if defined(__linux__)
  const char* const chosen = std::getenv("OCL_ICD_VENDORS");
  std::error_code error;
  std::vector<std::filesystem::path> files;
  for (const auto& entry : std::filesystem::directory_iterator(chosen != nullptr ? chosen : "/etc/OpenCL/vendors", error)) {
    if (entry.path().extension() == ".icd") files.push_back(entry.path());
  }
  std::ranges::sort(files);
  for (const std::filesystem::path& file : files) faults += fault_of(file);
#endif
  return faults;
}

}  // namespace layerstream::opencl
