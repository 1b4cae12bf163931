#include "device.h"

#include <mutex>

#include "../platform/error.h"
#include "execute.h"
#include "stream.h"

namespace layerstream::cpu {

namespace {

Worker& worker_of(Stream* stream) { return static_cast<CpuStream*>(stream)->worker; }
CpuEvent& event_of(Event* event) { return *static_cast<CpuEvent*>(event); }
Arena& arena_of(Range range) { return static_cast<CpuBuffer*>(range.buffer)->arena; }

DeviceInfo info_of(const KernelTable& kernels, bool unified, uint32_t threads) {
  return {unified ? "cpu" : "cpu-discrete", kernels.name, unified, threads};
}

class CpuDevice final : public Device {
 public:
  CpuDevice(const DeviceOptions& options, bool unified)
      : unified_(unified), kernels_(best_kernels()), executor_(kernels_, options.threads), threads_(options.threads) {}

  DeviceInfo info() const override { return info_of(kernels_, unified_, threads_); }
  uint64_t free_bytes() const override { return 0; }
  uint64_t scratch_bytes(uint32_t) const override { return 0; }

  Buffer* alloc(uint64_t bytes) override { return new CpuBuffer(Arena(bytes)); }
  void free(Buffer* buffer) override { delete static_cast<CpuBuffer*>(buffer); }
  Buffer* reserve(uint64_t bytes) override { return new CpuBuffer(Arena::reserve(bytes)); }
  void commit(Range range) override { arena_of(range).commit(range.offset, range.size); }
  void populate(Range range) override { arena_of(range).populate(range.offset, range.size); }
  void discard(Range range) override { arena_of(range).discard(range.offset, range.size); }

  void* alloc_pinned(uint64_t bytes) override {
    Arena arena(bytes);
    arena.touch();
    void* data = arena.data();
    std::lock_guard lock(pinned_mutex_);
    pinned_.push_back(std::move(arena));
    return data;
  }
  void free_pinned(void* memory) override {
    std::lock_guard lock(pinned_mutex_);
    std::erase_if(pinned_, [memory](const Arena& arena) { return arena.data() == memory; });
  }

  Buffer* alias_host(void* memory, uint64_t) override {
    if (!unified_) throw Error("INTERNAL", "This device cannot alias host memory.");
    return new CpuBuffer(memory);
  }
  void* host_address(Range range) override {
    if (!unified_) throw Error("INTERNAL", "This device's memory has no host address.");
    return address<uint8_t>(range);
  }

  Stream* create_stream() override { return new CpuStream(executor_, executor_mutex_); }
  void destroy(Stream* stream) override { delete static_cast<CpuStream*>(stream); }
  Event* create_event() override { return new CpuEvent(); }
  void destroy(Event* event) override { delete static_cast<CpuEvent*>(event); }

  void record(Event* event, Stream* stream) override {
    CpuEvent& recorded = event_of(event);
    uint64_t sequence = 0;
    {
      std::lock_guard lock(recorded.mutex);
      sequence = ++recorded.recorded;
    }
    worker_of(stream).push(RecordCommand{&recorded, sequence});
  }
  void wait(Stream* stream, Event* event) override {
    CpuEvent& awaited = event_of(event);
    uint64_t sequence = 0;
    {
      std::lock_guard lock(awaited.mutex);
      sequence = awaited.recorded;
    }
    worker_of(stream).push(WaitCommand{&awaited, sequence});
  }
  void synchronize(Event* event) override {
    CpuEvent& awaited = event_of(event);
    std::unique_lock lock(awaited.mutex);
    awaited.changed.wait(lock, [&awaited] { return awaited.completed >= awaited.recorded; });
    if (awaited.failure) std::rethrow_exception(awaited.failure);
  }

  void upload(Stream* stream, Range destination, const void* source) override {
    worker_of(stream).push(CopyCommand{address<uint8_t>(destination), source, destination.size});
  }
  void download(Stream* stream, void* destination, Range source) override {
    worker_of(stream).push(CopyCommand{destination, address<uint8_t>(source), source.size});
  }
  void copy(Stream* stream, Range destination, Range source) override {
    worker_of(stream).push(CopyCommand{address<uint8_t>(destination), address<uint8_t>(source), source.size});
  }

  bool supports(const Op& op) const override {
    if (const auto* embed = std::get_if<EmbedOp>(&op)) return kernels_.dequantize_row[static_cast<size_t>(embed->format)] != nullptr;
    const auto* matmul = std::get_if<MatmulOp>(&op);
    return matmul == nullptr || kernels_.matmul[static_cast<size_t>(matmul->format)] != nullptr;
  }
  void launch(Stream* stream, std::span<const Op> ops) override {
    for (const Op& op : ops) worker_of(stream).push(op);
  }

  void observe(Stream* stream, Trace* trace, Track track) override { worker_of(stream).observe(trace, track); }
  void label(Stream* stream, uint32_t stage) override { worker_of(stream).push(LabelCommand{stage}); }

  uint64_t busy_nanoseconds(Stream* stream) override { return worker_of(stream).busy_nanoseconds(); }

  double measure_peak(PeakKind kind, double seconds) override {
    std::lock_guard lock(executor_mutex_);
    return executor_.measure_peak(kind, seconds);
  }

 private:
  const bool unified_;
  const KernelTable& kernels_;
  Executor executor_;
  std::mutex executor_mutex_;
  const uint32_t threads_;
  std::mutex pinned_mutex_;
  std::vector<Arena> pinned_;
};

std::unique_ptr<Device> open(const DeviceOptions& options, bool unified, std::string* reason) {
  if (options.index == 0) return std::make_unique<CpuDevice>(options, unified);
  *reason = "All processors together are one device, of index 0.";
  return nullptr;
}

}  // namespace

std::vector<ListedDevice> list_devices() { return {{info_of(best_kernels(), true, 0), ""}}; }

std::unique_ptr<Device> open_device(const DeviceOptions& options, std::string* reason) { return open(options, true, reason); }

std::vector<ListedDevice> list_discrete_devices() { return {{info_of(best_kernels(), false, 0), ""}}; }

std::unique_ptr<Device> open_discrete_device(const DeviceOptions& options, std::string* reason) { return open(options, false, reason); }

}  // namespace layerstream::cpu
