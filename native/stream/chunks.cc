// How a stage is cut into chunks, and chunks of LZ4 blocks.
#include "model.h"

#include <algorithm>
#include <cstring>
#include <numeric>

#include "../codec/lz4.h"
#include "../platform/error.h"
#include "../platform/memory.h"

namespace layerstream {

namespace {

// Rows whose bytes are a whole number of pages, where such a count is at most `limit`: no page is then read twice.
uint32_t rows_per_chunk(const Matrix& matrix, uint64_t chunk_bytes) {
  const uint64_t limit = std::clamp<uint64_t>(chunk_bytes / matrix.row_bytes, 1, UINT32_MAX);
  const uint64_t whole_pages = kPageBytes / std::gcd<uint64_t>(kPageBytes, matrix.row_bytes);
  return static_cast<uint32_t>(whole_pages <= limit ? align_down(limit, whole_pages) : limit);
}

// Cuts one stage. `shift_` is how much farther in memory than in the file things lie behind decoded blocks: whole pages.
class Cutter {
 public:
  Cutter(Stage& stage, uint64_t chunk_bytes) : stage_(stage), chunk_bytes_(chunk_bytes) {}

  void add(uint32_t index) {
    Matrix& matrix = stage_.matrices[index];
    if (matrix.encoded()) {
      add_encoded(index, matrix);
      return;
    }
    matrix.place = matrix.offset + shift_;
    if (!join_last(index, matrix)) add_plain(index, matrix);
  }

 private:
  Chunk* last() { return stage_.chunks.empty() ? nullptr : &stage_.chunks.back(); }

  bool join_last(uint32_t index, const Matrix& matrix) {
    Chunk* const chunk = last();
    if (chunk == nullptr || chunk->encoded() || matrix.place < chunk->offset) return false;
    const uint64_t length = align_up(matrix.place + matrix.bytes(), kPageBytes) - chunk->offset;
    if (length > chunk_bytes_) return false;
    chunk->length = chunk->stored_length = length;
    chunk->pieces.push_back({index, 0, matrix.rows, matrix.place - chunk->offset});
    return true;
  }

  void add_plain(uint32_t index, const Matrix& matrix) {
    const uint32_t step = rows_per_chunk(matrix, chunk_bytes_);
    for (uint32_t row = 0, row_end = 0; row < matrix.rows; row = row_end) {
      row_end = row + std::min(step, matrix.rows - row);
      const uint64_t first_byte = matrix.place + row * matrix.row_bytes;
      Chunk chunk;
      chunk.offset = align_down(first_byte, kPageBytes);
      chunk.length = align_up(matrix.place + row_end * matrix.row_bytes, kPageBytes) - chunk.offset;
      chunk.stored_offset = chunk.offset - shift_;
      chunk.stored_length = chunk.length;
      if (last() != nullptr) {
        const uint64_t last_end = last()->offset + last()->length;
        if (chunk.offset + chunk.length <= last_end) {
          last()->pieces.push_back({index, row, row_end, first_byte - last()->offset});
          continue;
        }
        if (chunk.offset < last_end) chunk.shared = last_end - chunk.offset;
      }
      chunk.pieces.push_back({index, row, row_end, first_byte - chunk.offset});
      stage_.chunks.push_back(std::move(chunk));
    }
  }

  void add_encoded(uint32_t index, Matrix& matrix) {
    const uint64_t block_bytes = matrix.lz4_rows * matrix.row_bytes;
    const auto step = static_cast<uint32_t>(std::clamp<uint64_t>(chunk_bytes_ / block_bytes, 1, UINT32_MAX));
    const auto blocks = static_cast<uint32_t>(matrix.lz4_bytes.size());
    matrix.place = align_up(std::max(matrix.offset + shift_, memory_end()), kPageBytes);
    uint64_t stored = matrix.offset;
    for (uint32_t block = 0; block < blocks;) {
      Chunk chunk;
      chunk.block_begin = block;
      chunk.block_end = block + std::min(step, blocks - block);
      const uint32_t row = block * matrix.lz4_rows;
      const auto row_end = static_cast<uint32_t>(std::min<uint64_t>(uint64_t{chunk.block_end} * matrix.lz4_rows, matrix.rows));
      chunk.blocks_offset = stored;
      for (; block < chunk.block_end; ++block) stored += matrix.lz4_bytes[block];
      chunk.offset = matrix.place + row * matrix.row_bytes;
      chunk.length = align_up((row_end - row) * matrix.row_bytes, kPageBytes);
      chunk.stored_offset = align_down(chunk.blocks_offset, kPageBytes);
      chunk.stored_length = align_up(stored, kPageBytes) - chunk.stored_offset;
      chunk.pieces.push_back({index, row, row_end, 0});
      stage_.chunks.push_back(std::move(chunk));
    }
    shift_ = memory_end() - align_down(stored, kPageBytes);
  }

  uint64_t memory_end() { return last() == nullptr ? 0 : last()->offset + last()->length; }

  Stage& stage_;
  const uint64_t chunk_bytes_;
  uint64_t shift_ = 0;
};

}  // namespace

void cut_into_chunks(Stage& stage, uint64_t chunk_bytes) {
  stage.chunks.clear();
  Cutter cutter(stage, chunk_bytes);
  for (uint32_t index = 0; index < stage.matrices.size(); ++index) cutter.add(index);
  if (stage.chunks.empty()) return;
  stage.extent_offset = stage.chunks.front().offset;
  stage.extent_bytes = stage.chunks.back().offset + stage.chunks.back().length - stage.extent_offset;
}

uint64_t Matrix::stored_bytes() const {
  return encoded() ? std::accumulate(lz4_bytes.begin(), lz4_bytes.end(), uint64_t{0}) : bytes();
}

std::string encoding_problem(const Matrix& matrix) {
  if (!matrix.encoded()) return matrix.lz4_bytes.empty() ? "" : "LZ4 blocks without rows";
  const uint64_t blocks = (uint64_t{matrix.rows} + matrix.lz4_rows - 1) / matrix.lz4_rows;
  if (matrix.lz4_bytes.size() != blocks) {
    return std::to_string(matrix.lz4_bytes.size()) + " LZ4 blocks where its rows need " + std::to_string(blocks);
  }
  const uint64_t block_bytes = matrix.lz4_rows * matrix.row_bytes;
  if (blocks > 1 && block_bytes % kPageBytes != 0) return "LZ4 blocks that are not whole pages";
  for (uint64_t block = 0; block < blocks; ++block) {
    const uint64_t most = std::min(block_bytes, matrix.bytes() - block * block_bytes);
    if (matrix.lz4_bytes[block] == 0 || matrix.lz4_bytes[block] > most) {
      return "an LZ4 block of " + std::to_string(matrix.lz4_bytes[block]) + " bytes for " + std::to_string(most);
    }
  }
  return "";
}

void decode_chunk(const Stage& stage, const Chunk& chunk, const uint8_t* stored, uint8_t* memory, const std::string& path) {
  const Piece& piece = chunk.pieces.front();
  const Matrix& matrix = stage.matrices[piece.matrix];
  uint64_t position = chunk.blocks_offset;
  uint64_t left = (piece.row_end - piece.row_begin) * matrix.row_bytes;
  for (uint32_t block = chunk.block_begin; block < chunk.block_end; ++block) {
    const uint64_t bytes = std::min(left, matrix.lz4_rows * matrix.row_bytes);
    const uint64_t stored_bytes = matrix.lz4_bytes[block];
    const uint8_t* data = stored + (position - chunk.stored_offset);
    if (stored_bytes == bytes) {
      std::memcpy(memory, data, bytes);
    } else if (!lz4_decode(data, stored_bytes, memory, bytes)) {
      throw Error("STORE_CORRUPT", path + " is damaged: bytes " + std::to_string(position) + " to " + std::to_string(position + stored_bytes) +
                                       " are no LZ4 block of " + std::to_string(bytes) + " bytes. Run `layerstream verify` on the store.");
    }
    position += stored_bytes;
    memory += bytes;
    left -= bytes;
  }
}

}  // namespace layerstream
