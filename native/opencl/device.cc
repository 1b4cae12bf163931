#include "device.h"

#include <algorithm>
#include <mutex>
#include <vector>

#include "../backend/work.h"
#include "../platform/error.h"
#include "../platform/memory.h"
#include "launch.h"

namespace layerstream::opencl {

namespace {

constexpr uint64_t kMostReserved = uint64_t{1} << 50;
constexpr uint64_t kLeastHugeBytes = 8 * kHugePageBytes;

DeviceStream& of(Stream* stream) { return *static_cast<DeviceStream*>(stream); }
DeviceEvent& of(Event* event) { return *static_cast<DeviceEvent*>(event); }
DeviceMemory& of(Buffer* buffer) { return *static_cast<DeviceMemory*>(buffer); }

class OpenClDevice final : public Device {
 public:
  OpenClDevice(std::shared_ptr<Context> context, std::string cache_directory)
      : context_(std::move(context)), programs_(*context_, std::move(cache_directory)) {}
  ~OpenClDevice() override {
    for (const Pinned& pinned : pinned_) release(pinned);
  }

  DeviceInfo info() const override { return context_->info(); }
  uint64_t free_bytes() const override { return context_->free_bytes(); }
  uint64_t scratch_bytes(uint32_t columns) const override { return Launcher::scratch_bytes(*context_, columns); }

  Buffer* alloc(uint64_t bytes) override {
    auto memory = std::make_unique<DeviceMemory>(*context_, bytes);
    check_size(bytes);
    memory->commit(0, bytes);
    return memory.release();
  }
  void free(Buffer* buffer) override { delete static_cast<DeviceMemory*>(buffer); }
  // Ranges may be larger than the memory of which they use parts.
  Buffer* reserve(uint64_t bytes) override {
    if (bytes > kMostReserved) throw Error("DEVICE_FAILED", "No device has " + std::to_string(bytes) + " bytes of memory.");
    return new DeviceMemory(*context_, bytes);
  }
  void commit(Range range) override { of(range.buffer).commit(range.offset, range.size); }
  void populate(Range) override {}
  void discard(Range range) override { of(range.buffer).discard(range.offset, range.size); }

  void* alloc_pinned(uint64_t bytes) override;
  void free_pinned(void* memory) override;

  Buffer* alias_host(void*, uint64_t) override { throw Error("INTERNAL", "This device cannot alias host memory."); }
  void* host_address(Range) override { throw Error("INTERNAL", "This device's memory has no host address."); }

  Stream* create_stream() override { return new DeviceStream(context_, programs_); }
  void destroy(Stream* stream) override { delete static_cast<DeviceStream*>(stream); }
  Event* create_event() override { return new DeviceEvent(context_); }
  void destroy(Event* event) override { delete static_cast<DeviceEvent*>(event); }
  void record(Event* event, Stream* stream) override { of(stream).record(of(event)); }
  void wait(Stream* stream, Event* event) override { of(stream).wait(of(event)); }
  void synchronize(Event* event) override { of(event).synchronize(); }

  void upload(Stream* stream, Range destination, const void* source) override {
    of(stream).upload(of(destination.buffer), destination.offset, destination.size, source);
  }
  void download(Stream* stream, void* destination, Range source) override {
    of(stream).download(of(source.buffer), source.offset, source.size, destination);
  }
  void copy(Stream* stream, Range destination, Range source) override {
    of(stream).copy(of(destination.buffer), destination.offset, of(source.buffer), source.offset, destination.size);
  }

  bool supports(const Op&) const override { return true; }
  void launch(Stream* stream, std::span<const Op> ops) override {
    DeviceStream& target = of(stream);
    Launcher launcher(*context_, target);
    for (const Op& op : ops) {
      const OpWork work = work_of(op);
      target.begin(work.activity, work.work);
      std::visit([&](const auto& concrete) { launcher.run(concrete); }, op);
      target.end();
    }
    target.flush();
  }

  void observe(Stream* stream, Trace* trace, Track track) override {
    of(stream).log().observe(trace, track);
    // Compares the clocks of the host and of the device.
    DeviceEvent now(context_);
    of(stream).record(now);
    now.synchronize();
  }
  void label(Stream* stream, uint32_t stage) override { of(stream).label(stage); }
  uint64_t busy_nanoseconds(Stream* stream) override { return of(stream).log().busy_nanoseconds(); }
  double measure_peak(PeakKind, double) override { return 0.0; }

 private:
  struct Pinned {
    void* address;
    cl_mem memory;  // null: `arena`
    void* mapped;
    Arena arena;
  };

  void check_size(uint64_t bytes) const {
    if (bytes <= context_->memory_bytes()) return;
    throw Error("DEVICE_FAILED", context_->name() + " has " + std::to_string(context_->memory_bytes()) + " bytes of memory, not " +
                                     std::to_string(bytes) + ".");
  }
  void release(const Pinned& pinned);

  const std::shared_ptr<Context> context_;
  Programs programs_;
  std::mutex pinned_mutex_;
  std::vector<Pinned> pinned_;
};

// Memory that the driver has pinned; where a buffer cannot be that long, memory of the host alone.
void* OpenClDevice::alloc_pinned(uint64_t bytes) {
  Pinned pinned{};
  // Of what is pinned beside it, a driver may lock every byte: huge pages are for rings only.
  const uint64_t alignment = bytes >= kLeastHugeBytes ? kHugePageBytes : kPageBytes;
  if (bytes <= context_->max_allocation() && context_->max_allocation() - bytes > alignment) {
    const Api& api = context_->api();
    pinned.memory = context_->create_host_buffer(bytes + alignment);
    cl_int status = CL_SUCCESS;
    pinned.mapped = api.clEnqueueMapBuffer(context_->host_queue(), pinned.memory, CL_TRUE, CL_MAP_READ | CL_MAP_WRITE, 0,
                                           bytes + alignment, 0, nullptr, nullptr, &status);
    if (status != CL_SUCCESS || pinned.mapped == nullptr) {
      api.clReleaseMemObject(pinned.memory);
      check(status, "clEnqueueMapBuffer");
    }
    pinned.address = reinterpret_cast<void*>(align_up(reinterpret_cast<uintptr_t>(pinned.mapped), alignment));
    prefer_huge_pages(pinned.address, bytes);
    volatile uint8_t* const touched = static_cast<uint8_t*>(pinned.address);
    for (uint64_t offset = 0; offset < bytes; offset += kPageBytes) touched[offset] = 0;
  } else {
    pinned.arena = Arena(bytes);
    pinned.arena.touch();
    pinned.address = pinned.arena.data();
  }
  void* const address = pinned.address;
  std::lock_guard lock(pinned_mutex_);
  pinned_.push_back(std::move(pinned));
  return address;
}

void OpenClDevice::release(const Pinned& pinned) {
  if (pinned.memory == nullptr) return;
  context_->api().clEnqueueUnmapMemObject(context_->host_queue(), pinned.memory, pinned.mapped, 0, nullptr, nullptr);
  context_->api().clFinish(context_->host_queue());
  context_->api().clReleaseMemObject(pinned.memory);
}

void OpenClDevice::free_pinned(void* memory) {
  std::lock_guard lock(pinned_mutex_);
  const auto found = std::ranges::find(pinned_, memory, &Pinned::address);
  if (found == pinned_.end()) return;
  release(*found);
  pinned_.erase(found);
}

}  // namespace

std::vector<ListedDevice> list_devices() {
  std::vector<ListedDevice> listed;
  for (FoundDevice& device : find_devices()) listed.push_back(std::move(device.listed));
  return listed;
}

std::unique_ptr<Device> open_device(const DeviceOptions& options, std::string* reason) {
  const std::vector<FoundDevice> found = find_devices();
  const bool none = found.front().id == nullptr;
  if (!none && options.index >= found.size()) {
    *reason = "There are " + std::to_string(found.size()) + " OpenCL devices, counted from 0: see layerstream doctor.";
    return nullptr;
  }
  const FoundDevice& device = found[none ? 0 : options.index];
  *reason = device.listed.reason;
  if (!reason->empty()) return nullptr;
  return std::make_unique<OpenClDevice>(std::make_shared<Context>(*find_api(), device.id, device.listed.info, options), options.cache_directory);
}

}  // namespace layerstream::opencl
