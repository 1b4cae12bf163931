#include "kv_parts.h"

#include <algorithm>
#include <utility>

namespace layerstream {

KvPartWalk::KvPartWalk(std::vector<SpilledLayer> layers, std::vector<KvTokens> tokens, uint32_t page_positions, uint32_t part_pages)
    : layers_(std::move(layers)), tokens_(std::move(tokens)), page_positions_(page_positions), part_positions_(part_pages * page_positions) {
  if (!done()) begin_tokens();
}

// The first position that the tokens see: AttentionOp::begin_position.
uint32_t KvPartWalk::first_seen() const {
  const uint32_t window = layers_[layer_].window, end = tokens_[at_].first_position + 1;
  return window != 0 && end > window ? end - window : 0;
}

void KvPartWalk::begin_tokens() { begin_ = first_seen() / part_positions_ * part_positions_; }

KvPartWork KvPartWalk::current() const {
  const uint32_t first = tokens_[at_].first_position, last = first + tokens_[at_].tokens;
  const uint32_t end = begin_ + part_positions_;
  const auto indexes = [&](uint32_t from, uint32_t to) -> PageIndexes {
    if (from >= to) return {};
    return {from / page_positions_, (to - 1) / page_positions_ + 1};
  };
  // A page that tokens are added to keeps what it has, seen or not.
  const uint32_t kept = std::min(first_seen(), first / page_positions_ * page_positions_);
  return {layer_, at_, begin_, end, indexes(std::max(begin_, kept), std::min(end, first)),
          indexes(std::max(begin_, first), std::min(end, last))};
}

void KvPartWalk::advance() {
  begin_ += part_positions_;
  if (begin_ < tokens_[at_].first_position + tokens_[at_].tokens) return;
  if (++at_ == tokens_.size()) {
    at_ = 0;
    if (++layer_ == layers_.size()) return;
  }
  begin_tokens();
}

}  // namespace layerstream
