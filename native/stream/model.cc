#include "model.h"

#include <algorithm>

#include "../platform/memory.h"

namespace layerstream {

uint64_t RuntimeDescription::kv_page_bytes() const {
  return align_up(kv_keys_bytes() + kv_heads * kv_block_bytes(kv_format, page_positions, value_dim), kPageBytes);
}

void mark_held(Stage& stage) {
  for (size_t index = 0; index < stage.chunks.size(); ++index) {
    Chunk& chunk = stage.chunks[index];
    const Tier before = chunk.tier;
    chunk.tier = stage.held_chunks.empty() ? Tier::kDisk : static_cast<Tier>(stage.held_chunks[index]);
    chunk.loaded &= chunk.tier == before;
  }
}

bool Stage::resident() const {
  return std::ranges::all_of(chunks, [](const Chunk& chunk) { return chunk.loaded && chunk.held_on_device(); });
}

}  // namespace layerstream
