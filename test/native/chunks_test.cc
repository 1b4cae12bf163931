// How stages are cut: every row once and in order, LZ4 blocks whole, nothing of two chunks at one place in memory.
#include <cstdio>
#include <random>
#include <string>

#include "../../native/platform/memory.h"
#include "../../native/stream/model.h"
#include "check.h"
#include "failure.h"

using namespace layerstream;

namespace {

uint32_t pick(std::mt19937& random, uint32_t least, uint32_t most) { return least + random() % (most - least + 1); }

Matrix random_matrix(std::mt19937& random, uint64_t offset) {
  Matrix matrix;
  matrix.columns = random() % 3 == 0 ? pick(random, 1, 3000) : 256u << (random() % 4);
  matrix.rows = pick(random, 1, 400);
  matrix.row_bytes = uint64_t{matrix.columns} * 4;
  matrix.offset = align_up(offset, random() % 2 == 0 ? 64 : kPageBytes);
  if (random() % 2 == 0) return matrix;
  uint64_t step = 1;
  while (step * matrix.row_bytes % kPageBytes != 0) step *= 2;
  matrix.lz4_rows = static_cast<uint32_t>(step) * pick(random, 1, 8);
  for (uint64_t row = 0; row < matrix.rows; row += matrix.lz4_rows) {
    const uint64_t plain = std::min<uint64_t>(matrix.lz4_rows, matrix.rows - row) * matrix.row_bytes;
    matrix.lz4_bytes.push_back(random() % 4 == 0 ? static_cast<uint32_t>(plain) : pick(random, 1, static_cast<uint32_t>(plain)));
  }
  check(encoding_problem(matrix).empty(), "blocks that can be");
  return matrix;
}

// Where the rows of a piece lie in memory, and that what is read holds them.
void check_piece(const Chunk& chunk, const Piece& piece, const Matrix& matrix) {
  const uint64_t begin = chunk.offset + piece.offset;
  const uint64_t bytes = (piece.row_end - piece.row_begin) * matrix.row_bytes;
  check(begin == matrix.place + piece.row_begin * matrix.row_bytes, "rows lie one after the other in memory");
  check(piece.offset + bytes <= chunk.length, "rows lie within their chunk");
  if (!chunk.encoded()) {
    const uint64_t stored = matrix.offset + piece.row_begin * matrix.row_bytes;
    check(stored - chunk.stored_offset == piece.offset && chunk.stored_length == chunk.length, "what is read is what lies there");
    return;
  }
  uint64_t stored = matrix.offset, stored_end = 0;
  for (uint32_t block = 0; block < chunk.block_end; ++block) {
    if (block == chunk.block_begin) check(stored == chunk.blocks_offset, "blocks begin where those before them end");
    stored += matrix.lz4_bytes[block];
  }
  stored_end = stored;
  check(piece.row_begin == chunk.block_begin * matrix.lz4_rows, "chunks begin with a block");
  check(chunk.stored_offset <= chunk.blocks_offset && stored_end <= chunk.stored_offset + chunk.stored_length, "blocks are read whole");
  check(chunk.stored_length < stored_end - chunk.blocks_offset + 2 * kPageBytes, "and little else");
}

void cut_random_stage(std::mt19937& random) {
  Stage stage;
  uint64_t end = kPageBytes * pick(random, 1, 3);
  for (uint32_t count = pick(random, 1, 6); count > 0; --count) {
    stage.matrices.push_back(random_matrix(random, end));
    end = stage.matrices.back().offset + stage.matrices.back().stored_bytes();
  }
  cut_into_chunks(stage, uint64_t{1} << pick(random, 16, 21));
  std::vector<uint32_t> next_row(stage.matrices.size(), 0);
  uint64_t memory_end = stage.extent_offset;
  for (size_t index = 0; index < stage.chunks.size(); ++index) {
    const Chunk& chunk = stage.chunks[index];
    check(chunk.offset % kPageBytes == 0 && chunk.length % kPageBytes == 0, "chunks are pages of memory");
    check(chunk.stored_offset % kPageBytes == 0 && chunk.stored_length % kPageBytes == 0, "reads are pages of the file");
    check(chunk.stored_offset + chunk.stored_length <= align_up(end, kPageBytes), "reads stay within the stage");
    const uint64_t gap = chunk.offset + chunk.shared - memory_end;
    check(gap == 0 || gap == kPageBytes, "chunks follow one another in memory");
    check(chunk.shared <= kPageBytes && (chunk.shared == 0 || !(chunk.encoded() || stage.chunks[index - 1].encoded())), "only plain ones share a page");
    memory_end = chunk.offset + chunk.length;
    for (const Piece& piece : chunk.pieces) {
      check(piece.row_begin == next_row[piece.matrix], "rows are in order");
      next_row[piece.matrix] = piece.row_end;
      check_piece(chunk, piece, stage.matrices[piece.matrix]);
    }
  }
  for (size_t index = 0; index < stage.matrices.size(); ++index) check(next_row[index] == stage.matrices[index].rows, "no row is left out");
  check(stage.extent_offset + stage.extent_bytes == memory_end, "the extent holds all chunks");
}

void refuse_forged_blocks() {
  Matrix matrix;
  matrix.columns = 1024;
  matrix.rows = 10;
  matrix.row_bytes = 4096;
  matrix.lz4_rows = 4;
  const auto problem_of = [&](std::vector<uint32_t> bytes) {
    matrix.lz4_bytes = std::move(bytes);
    return encoding_problem(matrix);
  };
  check(problem_of({1, 16384, 8192}).empty(), "blocks up to the size of their rows");
  check(!problem_of({1, 16384}).empty() && !problem_of({1, 1, 1, 1}).empty(), "as many as there must be");
  check(!problem_of({1, 0, 1}).empty() && !problem_of({1, 16385, 1}).empty() && !problem_of({1, 1, 8193}).empty(), "of possible sizes");
  matrix.row_bytes = 4092;
  check(!problem_of({1, 1, 1}).empty(), "whole pages");
  matrix.lz4_rows = 0;
  check(!problem_of({1}).empty() && problem_of({}).empty(), "none without rows");
}

void decode_blocks() {
  Stage stage;
  Matrix matrix;
  matrix.columns = 1024;
  matrix.rows = 3;
  matrix.row_bytes = 4096;
  matrix.offset = 4096 + 100;
  matrix.lz4_rows = 1;
  // One literal and a match over the rest; 4096 literals as they are; a damaged block.
  std::vector<uint8_t> zeros = {0x1f, 0, 1, 0};
  for (int left = 4096 - 1 - 5 - 4 - 15; left >= 0; left -= 255) zeros.push_back(static_cast<uint8_t>(std::min(left, 255)));
  zeros.insert(zeros.end(), {0x50, 1, 2, 3, 4, 5});
  matrix.lz4_bytes = {static_cast<uint32_t>(zeros.size()), 4096, 4};
  stage.matrices.push_back(matrix);
  cut_into_chunks(stage, 2 * kPageBytes);
  check(stage.chunks.size() == 2, "two blocks and one");
  const Chunk& first = stage.chunks[0];
  std::vector<uint8_t> stored(first.stored_length, 9), memory(first.length, 8);
  std::copy(zeros.begin(), zeros.end(), stored.begin() + 100);
  decode_chunk(stage, first, stored.data(), memory.data(), "the file");
  check(memory[0] == 0 && memory[4090] == 0 && memory[4091] == 1 && memory[4095] == 5, "a compressed block");
  check(memory[4096] == 9 && memory[8191] == 9, "one that is as it was");
  const Chunk& second = stage.chunks[1];
  std::vector<uint8_t> damaged(second.stored_length, 255);
  const Failure failure = failure_of([&] { decode_chunk(stage, second, damaged.data(), memory.data(), "the file"); });
  const uint64_t position = matrix.offset + zeros.size() + 4096;
  check(failure.code == "STORE_CORRUPT" && failure.has("the file") && failure.has("bytes " + std::to_string(position)), "a damaged one is named");
}

}  // namespace

int main() {
  std::mt19937 random(5);
  for (int round = 0; round < 3000; ++round) cut_random_stage(random);
  refuse_forged_blocks();
  decode_blocks();
  printf("chunks_test: %d checks passed\n", checks.load());
  return 0;
}
