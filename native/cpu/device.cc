#include "device.h"

#include <mutex>

#include "../platform/error.h"
#include "execute.h"
#include "stream.h"

namespace layerstream::cpu {

namespace {

class CpuDevice final : public Device {
 public:
  CpuDevice(const DeviceOptions& options, bool unified)
      : unified_(unified), kernels_(best_kernels()), executor_(kernels_, options.threads), threads_(options.threads) {}

  DeviceInfo info() const override { return {unified_ ? "cpu" : "cpu-discrete", kernels_.name, unified_, threads_}; }

  Buffer* alloc(uint64_t bytes) override {
    Arena arena(bytes);
    uint8_t* data = arena.data();
    return new Buffer{data, bytes, std::move(arena)};
  }
  void free(Buffer* buffer) override { delete buffer; }
  Buffer* reserve(uint64_t bytes) override {
    Arena arena = Arena::reserve(bytes);
    uint8_t* data = arena.data();
    return new Buffer{data, bytes, std::move(arena)};
  }
  void populate(Range range) override { range.buffer->arena.populate(range.offset, range.size); }
  void commit(Range range) override { range.buffer->arena.commit(range.offset, range.size); }
  void discard(Range range) override { range.buffer->arena.discard(range.offset, range.size); }

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

  Buffer* alias_host(void* memory, uint64_t bytes) override {
    if (!unified_) throw Error("INTERNAL", "This device cannot alias host memory.");
    return new Buffer{static_cast<uint8_t*>(memory), bytes, Arena()};
  }
  void* host_address(Range range) override {
    if (!unified_) throw Error("INTERNAL", "This device's memory has no host address.");
    return range.buffer->data + range.offset;
  }

  Stream* create_stream() override { return new Stream{Worker(executor_, executor_mutex_)}; }
  void destroy(Stream* stream) override { delete stream; }
  Event* create_event() override { return new Event(); }
  void destroy(Event* event) override { delete event; }

  void record(Event* event, Stream* stream) override {
    uint64_t sequence = 0;
    {
      std::lock_guard lock(event->mutex);
      sequence = ++event->recorded;
    }
    stream->worker.push(RecordCommand{event, sequence});
  }
  void wait(Stream* stream, Event* event) override {
    uint64_t sequence = 0;
    {
      std::lock_guard lock(event->mutex);
      sequence = event->recorded;
    }
    stream->worker.push(WaitCommand{event, sequence});
  }
  void synchronize(Event* event) override {
    std::unique_lock lock(event->mutex);
    event->changed.wait(lock, [event] { return event->completed >= event->recorded; });
    if (event->failure) std::rethrow_exception(event->failure);
  }

  void upload(Stream* stream, Range destination, const void* source) override {
    stream->worker.push(CopyCommand{destination.buffer->data + destination.offset, source, destination.size});
  }
  void download(Stream* stream, void* destination, Range source) override {
    stream->worker.push(CopyCommand{destination, source.buffer->data + source.offset, source.size});
  }
  void copy(Stream* stream, Range destination, Range source) override {
    stream->worker.push(
        CopyCommand{destination.buffer->data + destination.offset, source.buffer->data + source.offset, source.size});
  }

  bool supports(const Op& op) const override {
    const auto* matmul = std::get_if<MatmulOp>(&op);
    return matmul == nullptr || kernels_.matmul[static_cast<size_t>(matmul->format)] != nullptr;
  }
  void launch(Stream* stream, std::span<const Op> ops) override {
    for (const Op& op : ops) stream->worker.push(op);
  }

  void observe(Stream* stream, Trace* trace, Track track) override { stream->worker.observe(trace, track); }
  void label(Stream* stream, uint32_t stage) override { stream->worker.push(LabelCommand{stage}); }

  uint64_t busy_nanoseconds(Stream* stream) override { return stream->worker.busy_nanoseconds(); }

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

}  // namespace

std::unique_ptr<Device> open_device(const DeviceOptions& options) { return std::make_unique<CpuDevice>(options, true); }

std::unique_ptr<Device> open_discrete_device(const DeviceOptions& options) {
  return std::make_unique<CpuDevice>(options, false);
}

}  // namespace layerstream::cpu
