#include "pinned_pages.h"

#include <algorithm>
#include <cstring>

#include "../platform/error.h"

namespace layerstream {

PinnedPages::PinnedPages(Device& device, uint32_t pages, uint64_t page_bytes, uint32_t block_pages)
    : device_(device), page_bytes_(page_bytes), block_pages_(block_pages), memory_(pages) {}

PinnedPages::~PinnedPages() {
  for (const Block& block : blocks_) device_.free_pinned(block.memory);
}

PinnedPages::Block PinnedPages::allocate(uint32_t first, uint32_t count) {
  return {static_cast<uint8_t*>(device_.alloc_pinned(count * page_bytes_)), first, count};
}

// Nothing throws once the block is there.
void PinnedPages::own(const Block& block) {
  for (uint32_t page = 0; page < block.count; ++page) memory_[block.first + page] = block.memory + page * page_bytes_;
  blocks_.push_back(block);
}

void PinnedPages::add(std::span<const PageRun> runs) {
  for (const auto& [first, count] : runs) {
    for (uint32_t page = first, end = first; page < first + count; page = end) {
      for (end = page + 1; end < first + count && end < page + block_pages_ && (memory_[end] == nullptr) == (memory_[page] == nullptr);) ++end;
      if (memory_[page] != nullptr) continue;
      blocks_.reserve(blocks_.size() + 1);
      own(allocate(page, end - page));
    }
  }
}

void PinnedPages::keep(std::span<const uint8_t> pages) {
  std::vector<Block> before;
  before.swap(blocks_);
  // No more blocks than pages.
  blocks_.reserve(memory_.size());
  for (const Block& block : before) {
    const auto flags = pages.subspan(block.first, block.count);
    if (std::ranges::count(flags, 0) == 0) own(block);
    else keep_some(block, flags);
  }
}

// What is kept moves to memory of its own before the block is given back.
void PinnedPages::keep_some(const Block& block, std::span<const uint8_t> flags) {
  std::vector<Block> kept;
  kept.reserve(block.count);
  try {
    for (uint32_t page = 0, end = 0; page < block.count; page = end) {
      for (end = page + 1; end < block.count && flags[end] == flags[page];) ++end;
      if (flags[page]) kept.push_back(allocate(block.first + page, end - page));
    }
  } catch (const Error&) {
    for (const Block& each : kept) device_.free_pinned(each.memory);
    return own(block);
  }
  for (uint32_t page = 0; page < block.count; ++page) memory_[block.first + page] = nullptr;
  for (const Block& each : kept) {
    std::memcpy(each.memory, block.memory + (each.first - block.first) * page_bytes_, each.count * page_bytes_);
    own(each);
  }
  device_.free_pinned(block.memory);
}

uint32_t PinnedPages::together(uint32_t page, uint32_t most) const {
  uint32_t count = 1;
  while (count < most && memory_[page + count] == memory_[page] + count * page_bytes_) ++count;
  return count;
}

}  // namespace layerstream
