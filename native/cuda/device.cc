#include "device.h"

#include <mutex>
#include <unordered_map>

#include "../backend/work.h"
#include "../platform/error.h"
#include "../platform/memory.h"
#include "find.h"
#include "launch.h"

namespace layerstream::cuda {

namespace {

DeviceStream& of(Stream* stream) { return *static_cast<DeviceStream*>(stream); }
DeviceEvent& of(Event* event) { return *static_cast<DeviceEvent*>(event); }
DeviceMemory& of(Buffer* buffer) { return *static_cast<DeviceMemory*>(buffer); }

class DriverDevice final : public Device {
 public:
  explicit DriverDevice(std::shared_ptr<Context> context) : context_(std::move(context)) {}
  ~DriverDevice() override {
    for (const auto& [address, arena] : pinned_) unlock(address);
  }

  DeviceInfo info() const override { return context_->info(); }
  uint64_t free_bytes() const override { return context_->free_bytes(); }
  uint64_t scratch_bytes(uint32_t columns) const override { return cuda::scratch_bytes(columns); }

  Buffer* alloc(uint64_t bytes) override { return new DeviceMemory(context_, bytes, false); }
  void free(Buffer* buffer) override { delete static_cast<DeviceMemory*>(buffer); }
  Buffer* reserve(uint64_t bytes) override { return new DeviceMemory(context_, bytes, true); }
  void commit(Range range) override { of(range.buffer).commit(range.offset, range.size); }
  void populate(Range) override {}
  void discard(Range range) override { of(range.buffer).discard(range.offset, range.size); }

  void* alloc_pinned(uint64_t bytes) override;
  void free_pinned(void* memory) override;

  Buffer* alias_host(void*, uint64_t) override { throw Error("INTERNAL", "This device cannot alias host memory."); }
  void* host_address(Range) override { throw Error("INTERNAL", "This device's memory has no host address."); }

  Stream* create_stream() override { return new DeviceStream(context_); }
  void destroy(Stream* stream) override { delete static_cast<DeviceStream*>(stream); }
  Event* create_event() override { return new DeviceEvent(context_); }
  void destroy(Event* event) override { delete static_cast<DeviceEvent*>(event); }
  void record(Event* event, Stream* stream) override { of(stream).record(of(event)); }
  void wait(Stream* stream, Event* event) override { of(stream).wait(of(event)); }
  void synchronize(Event* event) override { of(event).synchronize(); }

  void upload(Stream* stream, Range destination, const void* source) override {
    of(stream).upload(address_of(destination), source, destination.size);
  }
  void download(Stream* stream, void* destination, Range source) override {
    of(stream).download(destination, address_of(source), source.size);
  }
  void copy(Stream* stream, Range destination, Range source) override {
    of(stream).copy(address_of(destination), address_of(source), destination.size);
  }

  bool supports(const Op& op) const override { return cuda::supports(context_->limits(), op); }
  void launch(Stream* stream, std::span<const Op> ops) override {
    DeviceStream& target = of(stream);
    Launcher launcher(target);
    for (const Op& op : ops) {
      const OpWork work = work_of(op);
      target.begin(work.activity, work.work);
      std::visit([&](const auto& concrete) { launcher.run(concrete); }, op);
      target.end();
    }
  }

  void observe(Stream* stream, Trace* trace, Track track) override { of(stream).observe(trace, track); }
  void label(Stream* stream, uint32_t stage) override { of(stream).label(stage); }
  uint64_t busy_nanoseconds(Stream* stream) override { return of(stream).busy_nanoseconds(); }
  double measure_peak(PeakKind, double) override { return 0.0; }

 private:
  void unlock(void* memory) {
    if (const Api* const api = context_->enter_quietly()) api->cuMemHostUnregister(memory);
  }

  const std::shared_ptr<Context> context_;
  std::mutex pinned_mutex_;
  std::unordered_map<void*, Arena> pinned_;
};

// Our own memory, page-locked: its huge pages, on which direct reads are fast, and its place beside the processor that
// touches it are as everywhere else. Where a driver locks no memory of others, copies go through buffers of its own.
void* DriverDevice::alloc_pinned(uint64_t bytes) {
  const Api& api = context_->enter();
  Arena arena(bytes);
  arena.touch();
  void* const memory = arena.data();
  const CUresult status = api.cuMemHostRegister(memory, arena.size(), CU_MEMHOSTREGISTER_PORTABLE);
  if (status != CUDA_ERROR_NOT_SUPPORTED && status != CUDA_ERROR_NOT_PERMITTED && status != CUDA_SUCCESS) {
    throw Error("DEVICE_FAILED", std::to_string(bytes) + " bytes of pinned memory: " + context_->failure(status, "cuMemHostRegister"));
  }
  std::lock_guard lock(pinned_mutex_);
  pinned_.emplace(memory, std::move(arena));
  return memory;
}

void DriverDevice::free_pinned(void* memory) {
  unlock(memory);
  std::lock_guard lock(pinned_mutex_);
  pinned_.erase(memory);
}

}  // namespace

std::vector<ListedDevice> list_devices(const Driver& driver) {
  std::vector<ListedDevice> listed;
  for (FoundDevice& device : find_devices(driver)) listed.push_back(std::move(device.listed));
  return listed;
}

std::unique_ptr<Device> open_device(const Driver& driver, const DeviceOptions& options, std::string* reason) {
  const std::vector<FoundDevice> found = find_devices(driver);
  if (found.front().listed.reason.empty() && options.index >= found.size()) {
    *reason = std::string(driver.called) + " has " + std::to_string(found.size()) + " devices, counted from 0: see layerstream doctor.";
    return nullptr;
  }
  const FoundDevice& device = found[options.index < found.size() ? options.index : 0];
  *reason = device.listed.reason;
  if (!reason->empty()) return nullptr;
  try {
    return std::make_unique<DriverDevice>(std::make_shared<Context>(driver, device.id, device.listed.info));
  } catch (const Error& error) {
    *reason = error.what();
    return nullptr;
  }
}

std::vector<ListedDevice> list_devices() { return list_devices(nvidia_driver()); }

std::unique_ptr<Device> open_device(const DeviceOptions& options, std::string* reason) {
  return open_device(nvidia_driver(), options, reason);
}

}  // namespace layerstream::cuda
