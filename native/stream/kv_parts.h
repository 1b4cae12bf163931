// Which parts of the spilled layers' caches a pass needs, in the order in which attention works on them: for each layer the tokens
// of block after block, and for these part after part.
#pragma once

#include <cstdint>
#include <vector>

#include "kv_spill.h"

namespace layerstream {

// Neighbouring pages of a sequence, as indexes of KvTokens::pages.
struct PageIndexes {
  uint32_t begin = 0, end = 0;

  uint32_t count() const { return end > begin ? end - begin : 0; }
  bool meets(const PageIndexes& other) const { return begin < other.end && other.begin < end; }
};

struct KvPartWork {
  size_t layer = 0, tokens = 0;  // indexes of what the walk was given
  uint32_t begin = 0, end = 0;   // positions: AttentionOp::part_begin and part_end
  PageIndexes reads, writes;     // what is there before and is seen or stays, and what the tokens change
};

class KvPartWalk {
 public:
  KvPartWalk() = default;
  // Parts have `part_pages` pages of `page_positions` positions, a multiple of kAttentionPartPositions.
  KvPartWalk(std::vector<SpilledLayer> layers, std::vector<KvTokens> tokens, uint32_t page_positions, uint32_t part_pages);

  bool done() const { return layer_ == layers_.size(); }
  // Not when done.
  KvPartWork current() const;
  void advance();

  const SpilledLayer& layer(const KvPartWork& part) const { return layers_[part.layer]; }
  const KvTokens& tokens(const KvPartWork& part) const { return tokens_[part.tokens]; }

 private:
  uint32_t first_seen() const;
  void begin_tokens();

  std::vector<SpilledLayer> layers_;
  std::vector<KvTokens> tokens_;
  uint32_t page_positions_ = 1, part_positions_ = 1;
  size_t layer_ = 0, at_ = 0;  // of tokens_
  uint32_t begin_ = 0;         // of the current part
};

}  // namespace layerstream
