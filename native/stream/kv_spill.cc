#include "kv_spill.h"

#include <algorithm>

namespace layerstream {

std::vector<PageRun> page_runs(std::vector<uint32_t> pages) {
  std::ranges::sort(pages);
  std::vector<PageRun> runs;
  for (const uint32_t page : pages) {
    if (runs.empty() || page > runs.back().first + runs.back().second) runs.push_back({page, 0});
    runs.back().second = page + 1 - runs.back().first;
  }
  return runs;
}

void commit_pages(Device& device, Range cache, uint64_t page_bytes, std::span<const uint8_t> pages) {
  for (size_t begin = 0, end = 0; begin < pages.size(); begin = end) {
    for (end = begin + 1; end < pages.size() && pages[end] == pages[begin];) ++end;
    const Range part = cache.at(begin * page_bytes, (end - begin) * page_bytes);
    if (pages[begin]) device.commit(part);
    else device.discard(part);
  }
}

}  // namespace layerstream
