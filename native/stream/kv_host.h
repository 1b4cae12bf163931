// Layers of the KV cache in pinned memory, beside a device with memory of its own. Of a layer's cache, parts of some pages pass
// through a ring of buffers on the device, on a stream of their own; what the pass has changed goes back on it: the host never waits
// for it inside a pass.
#pragma once

#include <cstdint>
#include <deque>
#include <optional>
#include <span>
#include <vector>

#include "../platform/trace.h"
#include "kv_parts.h"
#include "pinned_pages.h"

namespace layerstream {

// Parts of the cache on the device: one that ops work on, one that is there, and one that is on its way.
constexpr uint32_t kKvBuffers = 3;

class KvHost final : public KvSpill {
 public:
  // Parts have `part_pages` pages. The device, the stream and the trace (null where nobody asked) outlive this object; nothing is
  // enqueued when it goes.
  KvHost(Device& device, Stream* compute, uint32_t layers, const KvLayout& layout, uint32_t part_pages, Trace* trace);
  ~KvHost() override;
  KvHost(const KvHost&) = delete;
  KvHost& operator=(const KvHost&) = delete;

  void use_pages(std::span<const uint8_t> pages) override;
  void store(uint32_t layer, Range cache, std::span<const PageRun> runs) override;
  void load(uint32_t layer, Range cache, std::span<const PageRun> runs) override;
  void begin(std::vector<SpilledLayer> layers, std::vector<KvTokens> tokens) override;
  KvPart take() override;
  void finish() override;
  void end() override;
  void abort() override;

 private:
  KvHost(Device& device, Stream* compute, uint32_t layers, const KvLayout& layout, uint32_t part_pages);
  void make_page_table();
  // The pages of a part, neighbours together: copy(place in its buffer, pinned memory).
  template <class Copy>
  void for_each_copy(const KvPartWork& part, PageIndexes indexes, uint64_t number, const Copy& copy);
  // Parts, each into the buffer that is free next, as far as there are such buffers and nothing is missing of the part.
  void read_ahead();
  bool is_complete(const KvPartWork& part) const;
  void synchronize();

  Device& device_;
  Stream* compute_;
  Stream* copies_ = nullptr;
  Trace* trace_ = nullptr;
  const KvLayout layout_;
  const uint32_t part_pages_;
  std::vector<std::optional<PinnedPages>> layers_;  // those that are here
  Range buffers_;                     // kKvBuffers, one after the other
  Range page_table_;                  // page i of a sequence is in place i % part_pages_ of a buffer
  Event* arrived_[kKvBuffers] = {};
  Event* used_ = nullptr;             // behind the last op on what was taken
  Event* done_ = nullptr;
  KvPartWalk walk_;                   // at the part that is read next
  std::deque<KvPartWork> parts_;      // in buffers; the first one is taken next, or has been
  uint64_t read_ = 0, finished_ = 0;  // parts of the pass
};

}  // namespace layerstream
