// The KV cache: which of its pages are used, and which of its layers are where passes use them. The others are elsewhere
// (kv_spill.h).
#include <algorithm>
#include <string>

#include "../platform/error.h"
#include "kv_file.h"
#include "kv_host.h"
#include "runtime.h"

namespace layerstream {

namespace {

// Neighbouring pages with this flag, together.
template <typename Function>
void for_each_run(std::span<const uint8_t> pages, uint8_t flag, const Function& function) {
  for (size_t begin = 0, end = 0; begin < pages.size(); begin = end) {
    for (end = begin + 1; end < pages.size() && pages[end] == pages[begin];) ++end;
    if (pages[begin] == flag) function(begin, end - begin);
  }
}

}  // namespace

void Runtime::reserve_kv_cache() {
  const uint64_t layer_bytes = description_.page_count * description_.kv_page_bytes();
  for (uint32_t layer = 0; layer < description_.kv_layers; ++layer) kv_cache_.push_back(reserve(layer_bytes));
  kv_pages_.assign(description_.page_count, 0);
  spilled_.assign(description_.kv_layers, 0);
}

// `layers` of them are in the device's memory, evenly among the others, so that what is moved is spread over the pass.
void Runtime::set_kv_cache(std::span<const uint8_t> pages, uint32_t layers) {
  const uint32_t all = description_.kv_layers;
  const bool spills_somewhere = unified_ ? !description_.spill_directory.empty() : description_.kv_part_pages > 0;
  if (pages.size() != description_.page_count || layers > all || (layers < all && !spills_somewhere)) {
    throw Error("INTERNAL", "The KV cache has other pages, or its layers cannot be spilled.");
  }
  if (layers < all && !spill_) {
    const KvLayout layout{description_.page_count, description_.page_positions, description_.kv_page_bytes()};
    if (unified_) {
      spill_ = std::make_unique<KvFile>(*device_, compute_, description_.spill_directory, layout, meter_, trace_.get());
    } else {
      spill_ = std::make_unique<KvHost>(*device_, compute_, all, layout, description_.kv_part_pages, trace_.get());
    }
  }
  std::vector<uint32_t> kept;
  std::vector<uint8_t> either(pages.begin(), pages.end());
  for (uint32_t page = 0; page < description_.page_count; ++page) {
    if (kv_pages_[page] && pages[page]) kept.push_back(page);
    either[page] |= kv_pages_[page];
  }
  const std::vector<PageRun> runs = page_runs(std::move(kept));
  const auto spills = [&](uint64_t layer) { return (layer + 1) * layers / all == layer * layers / all; };
  const std::vector<uint8_t> none(description_.page_count, 0);
  // Should writing fail, layers stay where they have got to, and pages are those of before.
  if (layers < all) spill_->use_pages(either);
  // First what gives memory back.
  for (uint32_t layer = 0; layer < all; ++layer) {
    if (spilled_[layer] || !spills(layer)) continue;
    spill_->store(layer, kv_cache_[layer], runs);
    discard_pages(layer, none);
    spilled_[layer] = 1;
  }
  if (spill_) spill_->use_pages(layers < all ? pages : none);
  for (uint32_t layer = 0; layer < all; ++layer) {
    if (spills(layer)) continue;
    commit_pages(layer, pages);
    if (!spilled_[layer]) continue;
    spill_->load(layer, kv_cache_[layer], runs);
    spilled_[layer] = 0;
  }
  for (uint32_t layer = 0; layer < all; ++layer) {
    if (!spills(layer)) discard_pages(layer, pages);
  }
  kv_pages_.assign(pages.begin(), pages.end());
}

void Runtime::commit_pages(uint32_t layer, std::span<const uint8_t> pages) {
  for_each_run(pages, 1, [&](uint64_t first, uint64_t count) { device_->commit(pages_of_layer(layer, first, count)); });
}

void Runtime::discard_pages(uint32_t layer, std::span<const uint8_t> pages) {
  for_each_run(pages, 0, [&](uint64_t first, uint64_t count) { device_->discard(pages_of_layer(layer, first, count)); });
}

Range Runtime::pages_of_layer(uint32_t layer, uint64_t first, uint64_t count) const {
  const uint64_t page_bytes = description_.kv_page_bytes();
  return kv_cache_[layer].at(first * page_bytes, count * page_bytes);
}

// The tokens of each segment that are in the block, which has `rows` of all from `first` on.
std::vector<Runtime::SegmentTokens> Runtime::tokens_of_block(const PassRequest& request, uint32_t first, uint32_t rows) const {
  std::vector<SegmentTokens> result;
  uint32_t segment_begin = 0;
  uint64_t first_page = 0;
  for (const Segment& segment : request.segments) {
    const uint32_t segment_end = segment_begin + segment.tokens;
    const uint32_t begin = std::max(segment_begin, first), end = std::min(segment_end, first + rows);
    if (begin < end) {
      const KvTokens tokens{segment.first_position + begin - segment_begin, end - begin, segment.first_position, segment.pages};
      result.push_back({tokens, begin - first, pages_.at(first_page * sizeof(uint32_t), segment.pages.size() * sizeof(uint32_t))});
    }
    segment_begin = segment_end;
    first_page += segment.pages.size();
  }
  return result;
}

// Has the caches of spilled layers read ahead, in the order of their attention.
void Runtime::begin_spilled(const PassRequest& request) {
  std::vector<SpilledLayer> layers;
  for (uint32_t index = 0; index < description_.stages.size(); ++index) {
    const Stage& stage = description_.stages[index];
    if (stage.layer == kNone || !spilled_[stage.layer]) continue;
    for (const Step& step : description_.plans[stage.kind]) {
      if (const auto* attention = std::get_if<AttentionStep>(&step)) layers.push_back({stage.layer, index, attention->window});
    }
  }
  if (layers.empty()) return;
  std::vector<KvTokens> tokens;
  const auto all = static_cast<uint32_t>(request.tokens.size()), rows = block_rows(all);
  for (uint32_t first = 0; first < all; first += rows) {
    for (const SegmentTokens& each : tokens_of_block(request, first, rows)) tokens.push_back(each.kv);
  }
  spill_->begin(std::move(layers), std::move(tokens));
  spilling_ = true;
}

// Until the caches of spilled layers are as the pass leaves them.
void Runtime::end_spilled() {
  if (spilling_) {
    const Trace::Time start = Trace::Clock::now();
    spill_->end();
    count_wait(kNone, start);
  }
  spilling_ = false;
}

void Runtime::abort_spilled() {
  if (spilling_) spill_->abort();
  spilling_ = false;
}

}  // namespace layerstream
