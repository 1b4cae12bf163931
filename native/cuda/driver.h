// What differs between the drivers of NVIDIA's and of AMD's GPUs (../hip), which run the same kernels through the same table.
#pragma once

#include <string>

#include "../backend/device.h"
#include "api.h"
#include "kernel_images.h"

namespace layerstream::cuda {

struct Driver {
  const char* backend;  // as devices are named: "cuda"
  const char* name;     // of the interface: "CUDA"
  const char* called;   // where a sentence begins: "The NVIDIA driver"
  // What functions of the table are called in this driver, as messages name them.
  const char* (*call_name)(const char* function);
  // Null where there is no driver, or one that is too old; `error` then says so and what to do.
  const Api* (*find)();
  const std::string& (*error)();
  const KernelImage* images;
  // Why there are no images, and what to do about it.
  const char* no_images;
  // Why the driver finds no device, and what to do where a call fails.
  const char* no_device;
  const char* remedy;
  // A sentence or two on what a status of cuInit means; empty for those of which nothing else is known.
  std::string (*initialization)(CUresult status);
  // "12.4" of a number as cuDriverGetVersion gives it.
  std::string (*version_text)(int version);
  // Why the kernels cannot run on a device called `name`; empty where nothing speaks against it.
  std::string (*unsuitable)(const Api& api, CUdevice device, const std::string& name, int version);
  // The same where the driver has refused an image: `detail` is " (SOURCE: STATUS)".
  std::string (*refused)(const std::string& name, int version, const std::string& detail);
  bool graphs;  // whether runs of launches become graphs
};

const Driver& nvidia_driver();

// The devices of a driver, as Backend has them.
std::vector<ListedDevice> list_devices(const Driver& driver);
std::unique_ptr<Device> open_device(const Driver& driver, const DeviceOptions& options, std::string* reason);

// Throws Error{"DEVICE_FAILED"} naming the call, unless it succeeded.
void check_call(const Driver& driver, const Api& api, CUresult status, const char* function);

}  // namespace layerstream::cuda
