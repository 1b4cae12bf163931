// Layers of the KV cache that do not fit where passes use them: in a temporary file (kv_file.h), or beside a device with memory of
// its own in pinned memory (kv_host.h).
//
// In a pass, such layers come one after the other, whole or in parts, through a few buffers, as far ahead as these allow, and the
// pages that the pass has changed go back. So a layer's attention finds its cache in memory, as others do.
#pragma once

#include <cstdint>
#include <span>
#include <utility>
#include <vector>

#include "../backend/device.h"

namespace layerstream {

// Neighbouring pages: the first, and how many.
using PageRun = std::pair<uint32_t, uint32_t>;

// A layer of the cache and the stage that attends with it.
struct SpilledLayer {
  uint32_t layer = 0, stage = 0;
  uint32_t window = 0;  // of that attention; 0: unlimited
};

// Tokens that attention works on at once: those of a sequence that are in a block.
struct KvTokens {
  uint32_t first_position = 0, tokens = 0;
  uint32_t cached = 0;              // positions of the sequence that the pass has found in the cache
  std::span<const uint32_t> pages;  // of the sequence
};

// What an op finds of a layer's cache: AttentionOp::part_begin and part_end.
struct KvPart {
  Range cache;
  Range page_table;  // where in it the pages of the sequence are; null: where the sequence says
  uint32_t begin = 0, end = UINT32_MAX;
};

// Runs of the pages in `pages`, in any order.
std::vector<PageRun> page_runs(std::vector<uint32_t> pages);

// Commits these pages (a flag each) of a layer's cache, and gives the memory of the others back.
void commit_pages(Device& device, Range cache, uint64_t page_bytes, std::span<const uint8_t> pages);

// Of a layer's cache.
struct KvLayout {
  uint32_t pages = 0, page_positions = 0;
  uint64_t page_bytes = 0;
};

class KvSpill {
 public:
  // Of all transfers from and to files so far. They do not overlap one another.
  struct Counters {
    uint64_t read_bytes = 0, read_nanoseconds = 0;
    uint64_t written_bytes = 0, write_nanoseconds = 0;
  };

  virtual ~KvSpill() = default;

  // --- between passes --------------------------------------------------------------------------------------------
  // These pages (a flag each) are used from now on; memory for others is given back. With none, what has been stored stays until
  // it is loaded.
  virtual void use_pages(std::span<const uint8_t> pages) = 0;
  // Pages of a layer, from its whole cache in memory, or back. Throw Error{"KV_SPILL_FAILED"} or Error{"DEVICE_FAILED"}.
  virtual void store(uint32_t layer, Range cache, std::span<const PageRun> runs) = 0;
  virtual void load(uint32_t layer, Range cache, std::span<const PageRun> runs) = 0;

  // --- a pass ----------------------------------------------------------------------------------------------------
  // Attention of these layers comes in this order, of each with all these tokens, which come in this order. Their pages outlive
  // the pass.
  virtual void begin(std::vector<SpilledLayer> layers, std::vector<KvTokens> tokens) = 0;
  // The next part of the cache for the tokens whose turn it is, for ops that are enqueued from now on. After the part that reaches
  // the last of them, the next tokens', or the next layer's. Throws what moving layers before threw.
  virtual KvPart take() = 0;
  // The last op on what was taken has been enqueued.
  virtual void finish() = 0;
  // Waits until everything is back. Throws what that threw.
  virtual void end() = 0;
  // After an error, when all ops have run: forgets the pass. Layers that went back stay so.
  virtual void abort() = 0;

  // Any thread.
  virtual Counters counters() { return {}; }
};

}  // namespace layerstream
