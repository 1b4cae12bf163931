// Layers of the KV cache in pinned memory, beside a device with memory of its own. A stream of its own copies the pages of one after
// the other into the buffers, and back what the pass has changed: the host never waits for it inside a pass.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "../platform/trace.h"
#include "kv_spill.h"

namespace layerstream {

class KvHost final : public KvSpill {
 public:
  // The device, the stream and the trace (null where nobody asked) outlive this object; nothing is enqueued when it goes.
  KvHost(Device& device, Stream* compute, uint32_t layers, uint32_t pages, uint64_t page_bytes, Trace* trace);
  ~KvHost() override;
  KvHost(const KvHost&) = delete;
  KvHost& operator=(const KvHost&) = delete;

  void use_pages(std::span<const uint8_t> pages) override;
  void store(uint32_t layer, Range cache, std::span<const PageRun> runs) override;
  void load(uint32_t layer, Range cache, std::span<const PageRun> runs) override;
  void begin(std::vector<SpilledLayer> layers, std::vector<PageRun> reads, std::vector<PageRun> writes) override;
  Range take() override;
  void finish() override;
  void end() override;
  void abort() override;

 private:
  static constexpr uint32_t kBuffers = 2;
  // Pages of a layer, each in memory of its own; null where it is not used. Empty: the layer is not here.
  using Layer = std::vector<uint8_t*>;

  KvHost(Device& device, Stream* compute, uint32_t layers, uint32_t pages, uint64_t page_bytes);
  void allocate(Layer& layer, std::span<const PageRun> runs);
  void release(Layer& layer);
  // Enqueues copies between a layer's cache on the device and what is here of it.
  void upload(const Layer& layer, Range cache, std::span<const PageRun> runs);
  void download(const Layer& layer, Range cache, std::span<const PageRun> runs);
  // The next layer of the pass, into the buffer that is free next.
  void read_ahead();
  void synchronize();

  Device& device_;
  Stream* compute_;
  Stream* copies_ = nullptr;
  Trace* trace_ = nullptr;
  const uint32_t pages_;
  const uint64_t page_bytes_;
  std::vector<Layer> layers_;
  Range buffers_[kBuffers];
  Event* arrived_[kBuffers] = {};
  Event* used_ = nullptr;       // behind the last op on what was taken
  Event* done_ = nullptr;
  std::vector<SpilledLayer> order_;
  std::vector<PageRun> reads_, writes_;
  uint64_t read_ = 0, taken_ = 0, finished_ = 0;  // layers of the pass
};

}  // namespace layerstream
