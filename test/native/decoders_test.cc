// Decoders: chunks come off the tape in order, decoded, however many threads there are; a damaged one fails the tape; nothing
// is under way once they have settled.
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>

#include "../../native/platform/memory.h"
#include "../../native/stream/decoders.h"
#include "check.h"
#include "failure.h"

using namespace layerstream;

namespace {

constexpr uint32_t kRows = 40;

// A page of one byte each: a literal, a match over the rest, and five literals.
std::vector<uint8_t> page_of(uint8_t byte) {
  std::vector<uint8_t> block = {0x1f, byte, 1, 0};
  for (int left = static_cast<int>(kPageBytes) - 1 - 5 - 4 - 15; left >= 0; left -= 255) {
    block.push_back(static_cast<uint8_t>(std::min(left, 255)));
  }
  block.push_back(0x50);
  block.insert(block.end(), 5, byte);
  return block;
}

// One block, one row and one chunk a page.
Stage pages() {
  Stage stage;
  Matrix matrix;
  matrix.rows = kRows;
  matrix.columns = 1024;
  matrix.row_bytes = kPageBytes;
  matrix.lz4_rows = 1;
  matrix.lz4_bytes.assign(kRows, static_cast<uint32_t>(page_of(0).size()));
  stage.matrices.push_back(matrix);
  cut_into_chunks(stage, kPageBytes);
  check(stage.chunks.size() == kRows, "a chunk for each row");
  return stage;
}

struct Ring {
  explicit Ring(uint64_t bytes) : memory(bytes), tape(memory.data(), bytes, meter) {}
  Arena memory;
  ReadMeter meter;
  Tape tape;
};

// Reads all chunks as a reader does, into the ring behind the place of what they become.
void read_all(const Stage& stage, Ring& ring, Decoders& decoders, uint32_t damaged) {
  static const std::string path = "the file";
  for (uint32_t row = 0; row < kRows; ++row) {
    const Chunk& chunk = stage.chunks[row];
    const uint64_t bytes = chunk.staging_bytes(0, false);
    Tape::Chunk place;
    if (ring.tape.acquire(bytes, nullptr, true, &place) != Tape::Status::kDone) return;
    uint8_t* const stored = place.memory + chunk.length;
    const std::vector<uint8_t> block = page_of(static_cast<uint8_t>(row));
    std::memcpy(stored + (chunk.blocks_offset - chunk.stored_offset), block.data(), block.size());
    if (row == damaged) std::memset(stored, 255, chunk.stored_length);
    Decoders::Work work;
    work.stage = &stage;
    work.chunk = &chunk;
    work.path = &path;
    work.stored = stored;
    work.memory = place.memory;
    work.sequence = place.sequence;
    work.unread = bytes - chunk.stored_length;
    decoders.submit(work);
  }
}

void decode_in_order(uint32_t threads) {
  const Stage stage = pages();
  Ring ring(10 * kPageBytes);
  ring.tape.set_idle(false);
  Decoders decoders(threads, ring.tape, nullptr);
  std::thread reader([&] { read_all(stage, ring, decoders, kRows); });
  uint64_t read = 0;
  for (uint32_t row = 0; row < kRows; ++row) {
    const uint8_t* const memory = ring.tape.wait_ready(row);
    for (uint64_t i = 0; i < kPageBytes; ++i) check(memory[i] == static_cast<uint8_t>(row), "the bytes of each row");
    ring.tape.release(row);
    read += stage.chunks[row].stored_length;
  }
  reader.join();
  decoders.settle();
  check(ring.meter.counters().bytes_read == read, "only what was read is counted");
}

void fail_for_damage() {
  const Stage stage = pages();
  Ring ring(10 * kPageBytes);
  ring.tape.set_idle(false);
  Decoders decoders(2, ring.tape, nullptr);
  std::thread reader([&] { read_all(stage, ring, decoders, 20); });
  const Failure failure = failure_of([&] {
    for (uint32_t row = 0; row < kRows; ++row) {
      ring.tape.wait_ready(row);
      ring.tape.release(row);
    }
  });
  check(failure.code == "STORE_CORRUPT" && failure.has("the file"), "a damaged chunk is refused");
  reader.join();
  decoders.settle();
  ring.tape.reset();
}

}  // namespace

int main() {
  for (uint32_t threads = 1; threads <= 4; ++threads) decode_in_order(threads);
  for (int round = 0; round < 50; ++round) fail_for_damage();
  printf("decoders_test: %d checks passed\n", checks.load());
  return 0;
}
