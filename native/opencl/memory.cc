#include "memory.h"

#include <algorithm>
#include <string>

#include "../platform/error.h"

namespace layerstream::opencl {

namespace {

// What is worth copying the rest of a buffer for.
constexpr uint64_t kLeastDiscard = 256 << 10;

}  // namespace

DeviceMemory::~DeviceMemory() {
  for (const Piece& piece : pieces_) release(piece);
}

// The first piece that ends behind `offset`.
size_t DeviceMemory::first_behind(uint64_t offset) const {
  return static_cast<size_t>(std::ranges::upper_bound(pieces_, offset, {}, &Piece::end) - pieces_.begin());
}

void DeviceMemory::add(uint64_t begin, uint64_t end) {
  for (uint64_t next = begin; next < end;) {
    const uint64_t size = std::min(end - next, context_.max_allocation());
    pieces_.insert(pieces_.begin() + static_cast<ptrdiff_t>(first_behind(next)), {next, next + size, context_.create_buffer(size)});
    next += size;
  }
}

void DeviceMemory::commit(uint64_t offset, uint64_t bytes) {
  std::lock_guard lock(mutex_);
  const uint64_t end = offset + bytes;
  for (uint64_t next = offset; next < end;) {
    const size_t index = first_behind(next);
    if (index < pieces_.size() && pieces_[index].begin <= next) {
      next = pieces_[index].end;
      continue;
    }
    const uint64_t gap_end = index < pieces_.size() ? std::min(pieces_[index].begin, end) : end;
    add(next, gap_end);
    next = gap_end;
  }
}

void DeviceMemory::discard(uint64_t offset, uint64_t bytes) {
  std::lock_guard lock(mutex_);
  const uint64_t end = offset + bytes;
  for (size_t index = first_behind(offset); index < pieces_.size() && pieces_[index].begin < end;) {
    const Piece piece = pieces_[index];
    const uint64_t begin_lost = std::max(piece.begin, offset), end_lost = std::min(piece.end, end);
    const bool all = begin_lost == piece.begin && end_lost == piece.end;
    if (!all && end_lost - begin_lost < kLeastDiscard) {
      ++index;
      continue;
    }
    pieces_.erase(pieces_.begin() + static_cast<ptrdiff_t>(index));
    for (const auto& [begin_kept, end_kept] : {std::pair{piece.begin, begin_lost}, std::pair{end_lost, piece.end}}) {
      if (begin_kept == end_kept) continue;
      add(begin_kept, end_kept);
      copy(context_.host_queue(), piece, pieces_[first_behind(begin_kept)]);
      ++index;
    }
    if (!all) check(context_.api().clFinish(context_.host_queue()), "clFinish");
    release(piece);
  }
}

void DeviceMemory::copy(cl_command_queue queue, const Piece& from, const Piece& to) {
  const uint64_t begin = std::max(from.begin, to.begin), end = std::min(from.end, to.end);
  check(context_.api().clEnqueueCopyBuffer(queue, from.memory, to.memory, begin - from.begin, begin - to.begin, end - begin, 0, nullptr,
                                           nullptr),
        "clEnqueueCopyBuffer");
}

Operand DeviceMemory::in_one(uint64_t offset, uint64_t bytes) {
  std::lock_guard lock(mutex_);
  const size_t index = first_behind(offset);
  if (index == pieces_.size() || pieces_[index].begin > offset || pieces_[index].end < offset + bytes) return {};
  return {pieces_[index].memory, offset - pieces_[index].begin};
}

// Pieces first ... last become one, or, if that would be too long, three, of which [begin, end) is one.
void DeviceMemory::merge(cl_command_queue queue, size_t first, size_t last, uint64_t begin, uint64_t end) {
  const uint64_t all_begin = pieces_[first].begin, all_end = pieces_[last].end;
  if (all_end - all_begin <= context_.max_allocation()) {
    begin = all_begin;
    end = all_end;
  } else {
    begin = std::max(begin, all_begin);
    end = std::min(end, all_end);
  }
  if (end - begin > context_.max_allocation()) {
    throw Error("DEVICE_FAILED", context_.name() + " has no buffers of " + std::to_string(end - begin) + " bytes, only of up to " +
                                     std::to_string(context_.max_allocation()) + ": use shorter prompts or a smaller maxSeqLen.");
  }
  const std::vector<Piece> old(pieces_.begin() + static_cast<ptrdiff_t>(first), pieces_.begin() + static_cast<ptrdiff_t>(last) + 1);
  std::vector<Piece> merged;
  for (const auto& [from, to] : {std::pair{all_begin, begin}, std::pair{begin, end}, std::pair{end, all_end}}) {
    if (from < to) merged.push_back({from, to, context_.create_buffer(to - from)});
  }
  for (const Piece& source : old) {
    for (const Piece& target : merged) {
      if (source.begin < target.end && target.begin < source.end) copy(queue, source, target);
    }
  }
  // The queue keeps the old buffers until the copies have run.
  for (const Piece& piece : old) release(piece);
  pieces_.erase(pieces_.begin() + static_cast<ptrdiff_t>(first), pieces_.begin() + static_cast<ptrdiff_t>(last) + 1);
  pieces_.insert(pieces_.begin() + static_cast<ptrdiff_t>(first), merged.begin(), merged.end());
}

Operand DeviceMemory::whole(cl_command_queue queue, uint64_t offset, uint64_t bytes) {
  std::lock_guard lock(mutex_);
  size_t first = first_behind(offset);
  size_t last = first;
  while (last + 1 < pieces_.size() && pieces_[last + 1].begin < offset + bytes) ++last;
  if (first == pieces_.size() || pieces_[first].begin >= offset + bytes) {
    throw Error("INTERNAL", "Byte " + std::to_string(offset) + " of device memory is used but not committed.");
  }
  if (last > first) {
    merge(queue, first, last, offset, offset + bytes);
    first = first_behind(offset);
  }
  // May wrap around: a cache whose first pages are not committed.
  return {pieces_[first].memory, offset - pieces_[first].begin};
}

}  // namespace layerstream::opencl
