#include "model.h"

#include <algorithm>
#include <numeric>

#include "../platform/memory.h"

namespace layerstream {

namespace {

// Rows whose bytes are a whole number of pages, where such a count is at most `limit`: no page is then read twice.
uint32_t rows_per_chunk(const Matrix& matrix, uint64_t chunk_bytes) {
  const uint64_t limit = std::clamp<uint64_t>(chunk_bytes / matrix.row_bytes, 1, UINT32_MAX);
  const uint64_t whole_pages = kPageBytes / std::gcd<uint64_t>(kPageBytes, matrix.row_bytes);
  return static_cast<uint32_t>(whole_pages <= limit ? align_down(limit, whole_pages) : limit);
}

}  // namespace

uint64_t RuntimeDescription::kv_page_bytes() const {
  return align_up(kv_keys_bytes() + kv_heads * kv_block_bytes(kv_format, page_positions, value_dim), kPageBytes);
}

void cut_into_chunks(Stage& stage, uint64_t chunk_bytes) {
  stage.chunks.clear();
  for (uint32_t index = 0; index < stage.matrices.size(); ++index) {
    const Matrix& matrix = stage.matrices[index];
    const uint64_t end = matrix.offset + matrix.rows * matrix.row_bytes;
    if (!stage.chunks.empty()) {
      Chunk& last = stage.chunks.back();
      const uint64_t length = align_up(end, kPageBytes) - last.offset;
      if (matrix.offset >= last.offset && length <= chunk_bytes) {
        last.length = length;
        last.pieces.push_back({index, 0, matrix.rows, matrix.offset - last.offset});
        continue;
      }
    }
    const uint32_t step = rows_per_chunk(matrix, chunk_bytes);
    for (uint32_t row = 0, row_end = 0; row < matrix.rows; row = row_end) {
      row_end = row + std::min(step, matrix.rows - row);
      const uint64_t first_byte = matrix.offset + row * matrix.row_bytes;
      Chunk chunk;
      chunk.offset = align_down(first_byte, kPageBytes);
      chunk.length = align_up(matrix.offset + row_end * matrix.row_bytes, kPageBytes) - chunk.offset;
      if (!stage.chunks.empty()) {
        Chunk& last = stage.chunks.back();
        const uint64_t last_end = last.offset + last.length;
        if (chunk.offset + chunk.length <= last_end) {
          last.pieces.push_back({index, row, row_end, first_byte - last.offset});
          continue;
        }
        if (chunk.offset < last_end) chunk.shared = last_end - chunk.offset;
      }
      chunk.pieces.push_back({index, row, row_end, first_byte - chunk.offset});
      stage.chunks.push_back(std::move(chunk));
    }
  }
  if (stage.chunks.empty()) return;
  stage.extent_offset = stage.chunks.front().offset;
  stage.extent_bytes = stage.chunks.back().offset + stage.chunks.back().length - stage.extent_offset;
}

void mark_held(Stage& stage) {
  for (size_t index = 0; index < stage.chunks.size(); ++index) {
    Chunk& chunk = stage.chunks[index];
    chunk.held = !stage.held_chunks.empty() && stage.held_chunks[index] != 0;
    chunk.loaded &= chunk.held;
  }
}

bool Stage::resident() const {
  return std::ranges::all_of(chunks, [](const Chunk& chunk) { return chunk.loaded; });
}

}  // namespace layerstream
