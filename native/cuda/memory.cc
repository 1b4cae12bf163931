#include "memory.h"

#include <algorithm>

#include "../platform/error.h"
#include "../platform/memory.h"

namespace layerstream::cuda {

namespace {

// More than any device has, and far from where sizes wrap around.
constexpr uint64_t kMostBytes = uint64_t{1} << 50;

}  // namespace

DeviceMemory::DeviceMemory(std::shared_ptr<Context> context, uint64_t bytes, bool reserved) : context_(std::move(context)), bytes_(bytes) {
  const Api& api = context_->enter();
  if (bytes > kMostBytes) throw Error("DEVICE_FAILED", context_->name() + " has no " + std::to_string(bytes) + " bytes of memory.");
  const uint64_t least = std::max<uint64_t>(bytes, 1);
  if (reserved && context_->granularity() > 0) {
    reserved_bytes_ = align_up(least, context_->granularity());
    const CUresult status = api.cuMemAddressReserve(&address_, reserved_bytes_, 0, 0, 0);
    if (status == CUDA_SUCCESS) return;
    throw Error("DEVICE_FAILED", std::to_string(bytes) + " bytes of addresses: " + context_->failure(status, "cuMemAddressReserve"));
  }
  const CUresult status = api.cuMemAlloc(&address_, least);
  if (status == CUDA_SUCCESS) return;
  throw Error("DEVICE_FAILED", std::to_string(bytes) + " bytes of device memory: " + context_->failure(status, "cuMemAlloc"));
}

DeviceMemory::~DeviceMemory() {
  const Api* const api = context_->enter_quietly();
  if (api == nullptr) return;
  if (reserved_bytes_ == 0) {
    api->cuMemFree(address_);
    return;
  }
  while (!granules_.empty()) unmap(granules_.begin()->first);
  api->cuMemAddressFree(address_, reserved_bytes_);
}

void DeviceMemory::map(uint64_t granule) {
  const Api& api = context_->enter();
  const uint64_t bytes = context_->granularity();
  const CUmemAllocationProp properties = context_->allocation();
  CUmemGenericAllocationHandle handle = 0;
  context_->check(api.cuMemCreate(&handle, bytes, &properties, 0), "cuMemCreate");
  const CUdeviceptr place = address_ + granule;
  const CUresult mapped = api.cuMemMap(place, bytes, 0, handle, 0);
  if (mapped != CUDA_SUCCESS) {
    api.cuMemRelease(handle);
    context_->check(mapped, "cuMemMap");
  }
  granules_.emplace(granule, handle);
  const CUmemAccessDesc access{properties.location, CU_MEM_ACCESS_FLAGS_PROT_READWRITE};
  const CUresult allowed = api.cuMemSetAccess(place, bytes, &access, 1);
  if (allowed == CUDA_SUCCESS) return;
  unmap(granule);
  context_->check(allowed, "cuMemSetAccess");
}

void DeviceMemory::unmap(uint64_t granule) noexcept {
  const auto found = granules_.find(granule);
  if (const Api* const api = context_->enter_quietly()) {
    api->cuMemUnmap(address_ + granule, context_->granularity());
    api->cuMemRelease(found->second);
  }
  granules_.erase(found);
}

// Whether any of it is committed.
bool DeviceMemory::used(uint64_t begin, uint64_t end) const {
  const auto behind = used_.lower_bound(end);
  return behind != used_.begin() && std::prev(behind)->second > begin;
}

void DeviceMemory::commit(uint64_t offset, uint64_t bytes) {
  context_->enter();
  std::lock_guard lock(mutex_);
  if (reserved_bytes_ == 0 || bytes == 0) return;
  const uint64_t granularity = context_->granularity();
  uint64_t begin = offset, end = offset + bytes;
  std::vector<uint64_t> mapped;
  try {
    for (uint64_t granule = align_down(begin, granularity); granule < end; granule += granularity) {
      if (granules_.contains(granule)) continue;
      map(granule);
      mapped.push_back(granule);
    }
  } catch (...) {
    for (const uint64_t granule : mapped) unmap(granule);
    throw;
  }
  for (auto next = used_.upper_bound(end); next != used_.begin();) {
    const auto before = std::prev(next);
    if (before->second < begin) break;
    begin = std::min(begin, before->first);
    end = std::max(end, before->second);
    next = used_.erase(before);
  }
  used_.emplace(begin, end);
}

void DeviceMemory::discard(uint64_t offset, uint64_t bytes) {
  context_->enter();
  std::lock_guard lock(mutex_);
  if (reserved_bytes_ == 0 || bytes == 0) return;
  const uint64_t begin = offset, end = offset + bytes;
  for (auto next = used_.lower_bound(end); next != used_.begin();) {
    const auto before = std::prev(next);
    const auto [first, last] = *before;
    if (last <= begin) break;
    next = used_.erase(before);
    if (end < last) next = used_.emplace(end, last).first;
    if (first < begin) next = used_.emplace(first, begin).first;
  }
  const uint64_t granularity = context_->granularity();
  for (uint64_t granule = align_down(begin, granularity); granule < end; granule += granularity) {
    if (granules_.contains(granule) && !used(granule, granule + granularity)) unmap(granule);
  }
}

}  // namespace layerstream::cuda
