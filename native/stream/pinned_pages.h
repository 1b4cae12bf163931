// Pages of a layer of the KV cache in pinned memory: those that came together are neighbours there, too, so that one copy takes many.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "../backend/device.h"
#include "kv_spill.h"

namespace layerstream {

class PinnedPages {
 public:
  // Of `pages` pages, none are here at first; at most `block_pages` share an allocation. The device outlives this object.
  PinnedPages(Device& device, uint32_t pages, uint64_t page_bytes, uint32_t block_pages);
  ~PinnedPages();
  PinnedPages(const PinnedPages&) = delete;
  PinnedPages& operator=(const PinnedPages&) = delete;

  // Memory for these pages, of any content, where they are not here. Throws Error{"DEVICE_FAILED"}; what was here still is then.
  void add(std::span<const PageRun> runs);
  // Gives back all memory but that of these pages (a flag each), whose content stays; what they share an allocation with goes where
  // there is memory to move them to.
  void keep(std::span<const uint8_t> pages);

  // Of a page that is here.
  uint8_t* at(uint32_t page) const { return memory_[page]; }
  // Pages from this one on, `most` or fewer, that follow one another here.
  uint32_t together(uint32_t page, uint32_t most) const;

 private:
  struct Block {
    uint8_t* memory;
    uint32_t first, count;  // pages
  };

  Block allocate(uint32_t first, uint32_t count);
  void own(const Block& block);
  void keep_some(const Block& block, std::span<const uint8_t> flags);

  Device& device_;
  const uint64_t page_bytes_;
  const uint32_t block_pages_;
  std::vector<uint8_t*> memory_;  // of each page; null: not here
  std::vector<Block> blocks_;
};

}  // namespace layerstream
