// The tape: order, wrapping, pausing, cancelling, and a stress with a reader and a consumer, byte for byte.
#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "../../native/platform/error.h"
#include "../../native/stream/tape.h"
#include "failure.h"

using namespace layerstream;
using Status = Tape::Status;

namespace {

std::atomic<int> checks = 0;

void check(bool condition, const char* what, size_t where = 0) {
  ++checks;
  if (condition) return;
  fprintf(stderr, "tape_test: %s (at %zu)\n", what, where);
  exit(1);
}

// A chunk of `bytes`, read at once.
Tape::Chunk read_one(Tape& tape, uint64_t bytes) {
  Tape::Chunk chunk;
  check(tape.acquire(bytes, nullptr, true, &chunk) == Status::kDone, "acquire", bytes);
  tape.publish(chunk.sequence);
  return chunk;
}

void test_order() {
  std::vector<uint8_t> ring(100);
  ReadMeter meter;
  Tape tape(ring.data(), ring.size(), meter);
  tape.set_idle(false);
  uint64_t bytes = 0;
  for (uint64_t sequence = 0; sequence < 4; ++sequence) {
    check(read_one(tape, 10 + sequence).memory == ring.data() + bytes, "chunks follow one another", sequence);
    bytes += 10 + sequence;
  }
  check(meter.counters().bytes_read == bytes, "bytes read");
  for (uint64_t sequence = 0; sequence < 4; ++sequence) {
    check(tape.wait_ready(sequence) >= ring.data(), "ready", sequence);
    tape.release(sequence);
  }
}

struct Extent {
  uint64_t begin, end;
};

// Against a model of its own: chunks follow one another, from 0 again where the end is too near; full where the place
// is taken. Every chunk that fits the ring is given a place once the ring is empty.
void test_wrapping(uint64_t ring_bytes, uint32_t seed) {
  std::vector<uint8_t> ring(ring_bytes);
  ReadMeter meter;
  Tape tape(ring.data(), ring.size(), meter);
  std::mt19937 random(seed);
  std::deque<Extent> live;
  uint64_t released = 0;
  for (int step = 0; step < 4000; ++step) {
    const uint64_t size = 1 + random() % ring_bytes;
    const uint64_t bytes = random() % 5 == 0 ? ring_bytes : 1 + size / (2 + random() % 4);
    uint64_t begin = live.empty() ? 0 : live.back().end;
    if (begin + bytes > ring_bytes) begin = 0;
    bool free = true;
    for (const Extent& other : live) free = free && (begin + bytes <= other.begin || other.end <= begin);
    Tape::Chunk chunk;
    const Status status = tape.acquire(bytes, nullptr, false, &chunk);
    check(status == (free ? Status::kDone : Status::kFull), "space", step);
    if (free) {
      check(chunk.memory == ring.data() + begin, "place", step);
      live.push_back({begin, begin + bytes});
      tape.publish(chunk.sequence);
    }
    while (!live.empty() && (!free || random() % 3 == 0)) {
      tape.release(released++);
      live.pop_front();
      if (random() % 2 == 0) break;
    }
  }
}

void test_chunk_as_large_as_the_ring() {
  std::vector<uint8_t> ring(4096);
  ReadMeter meter;
  Tape tape(ring.data(), ring.size(), meter);
  Tape::Chunk chunk;
  for (uint64_t sequence = 0; sequence < 5; ++sequence) {
    check(tape.acquire(ring.size(), nullptr, true, &chunk) == Status::kDone && chunk.memory == ring.data(), "whole ring", sequence);
    Tape::Chunk other;
    check(tape.acquire(1, nullptr, false, &other) == Status::kFull, "one byte more", sequence);
    tape.publish(sequence);
    tape.release(sequence);
  }
  const auto too_large = [&] { tape.acquire(ring.size() + 1, nullptr, true, &chunk); };
  check(code_of(too_large) == "INTERNAL", "a chunk larger than the ring would be waited for for ever");
  Tape none(nullptr, 0, meter);
  check(code_of([&] { none.acquire(1, nullptr, true, &chunk); }) == "INTERNAL", "a ring of no bytes");
  check(none.acquire(1 << 20, ring.data(), true, &chunk) == Status::kDone && chunk.memory == ring.data(), "a place of its own");
}

void test_slots() {
  uint8_t place = 0;
  ReadMeter meter;
  Tape tape(nullptr, 0, meter);
  tape.set_idle(false);
  Tape::Chunk chunk;
  for (uint32_t i = 0; i < Tape::kSlots; ++i) {
    check(tape.acquire(1, &place, true, &chunk) == Status::kDone, "slot", i);
    tape.publish(chunk.sequence);
  }
  check(tape.acquire(1, &place, false, &chunk) == Status::kFull, "one chunk more than there are slots");
  std::thread reader([&] { check(tape.acquire(1, &place, true, &chunk) == Status::kDone, "a slot that came free"); });
  tape.wait_ready(0);
  tape.release(0);
  reader.join();
  check(chunk.sequence == Tape::kSlots, "sequence");
  check(tape.acquire(1, &place, false, &chunk) == Status::kFull, "full again");
}

// Ring full and nobody consuming: the reader leaves. Without reading ahead, it leaves at once.
void test_pause() {
  std::vector<uint8_t> ring(100);
  ReadMeter meter;
  Tape tape(ring.data(), ring.size(), meter);
  tape.set_idle(false);
  Tape::Chunk chunks[2];
  for (Tape::Chunk& chunk : chunks) check(tape.acquire(50, nullptr, true, &chunk) == Status::kDone, "acquire");
  std::thread control([&] { tape.set_idle(true); });
  Tape::Chunk third;
  check(tape.acquire(50, nullptr, true, &third) == Status::kPaused, "an idle tape does not wait");
  control.join();

  // The next pass: chunks that are there are taken, and the reader goes on where it left.
  tape.set_idle(false);
  for (const Tape::Chunk& chunk : chunks) tape.publish(chunk.sequence);
  std::thread consumer([&] {
    for (uint64_t sequence = 0; sequence < 3; ++sequence) {
      check(tape.wait_ready(sequence) == ring.data() + (sequence == 1 ? 50 : 0), "memory", sequence);
      tape.release(sequence);
    }
  });
  check(tape.acquire(50, nullptr, true, &third) == Status::kDone && third.sequence == 2, "acquire after a pause");
  tape.publish(third.sequence);
  consumer.join();

  tape.set_idle(true, false);
  check(tape.acquire(50, nullptr, true, &third) == Status::kPaused, "an idle tape that does not read ahead");
  tape.set_idle(true, true);
  check(tape.acquire(50, nullptr, true, &third) == Status::kDone, "an idle tape that does");
}

// Everybody who waits, for space or for data, returns; so does everybody who comes later, until reset.
void test_cancel(bool by_failure) {
  std::vector<uint8_t> ring(100);
  ReadMeter meter;
  Tape tape(ring.data(), ring.size(), meter);
  tape.set_idle(false);
  const char* expected = by_failure ? "IO_ERROR" : "ABORTED";
  for (uint64_t round = 0; round < 50; ++round) {
      Tape::Chunk chunk;
    check(tape.acquire(100, nullptr, true, &chunk) == Status::kDone, "acquire", round);
    std::thread space([&] {
      Tape::Chunk ignored;
      check(tape.acquire(1, nullptr, true, &ignored) == Status::kCancelled, "who waits for space");
    });
    std::thread data([&] { check(code_of([&] { tape.wait_ready(chunk.sequence); }) == expected, "who waits for data"); });
    for (uint64_t i = 0; i < round; ++i) std::this_thread::yield();
    if (by_failure) {
      tape.fail(std::make_exception_ptr(Error("IO_ERROR", "first")));
      tape.fail(std::make_exception_ptr(Error("INTERNAL", "second")));
    } else {
      tape.cancel();
    }
    for (std::thread* thread : {&space, &data}) thread->join();
    check(tape.cancelled() == !by_failure, "cancelled");
    check(tape.acquire(1, nullptr, true, &chunk) == Status::kCancelled, "acquire afterwards");
    check(code_of([&] { tape.wait_ready(chunk.sequence + 7); }) == expected, "data afterwards");
    // A read that was in flight still comes home.
    if (round % 2 == 0) tape.publish(chunk.sequence);
    const uint64_t read_before = meter.counters().read_nanoseconds;
    const uint64_t next = tape.reset();
    check(next == round + 1 && !tape.cancelled(), "reset", next);
    check(meter.counters().read_nanoseconds >= read_before, "time cannot run backwards");
  }
  check(read_one(tape, 100).memory == ring.data(), "the whole ring after a reset");
}

uint8_t pattern(uint64_t position, uint32_t chunk, uint64_t byte) {
  return static_cast<uint8_t>((position * 31 + chunk * 17 + byte * 7) ^ (byte >> 8));
}

// Chunk sizes of a position: the same for reader and consumer.
std::vector<uint64_t> chunk_sizes(uint64_t position, uint64_t ring_bytes) {
  std::mt19937 random(static_cast<uint32_t>(position));
  std::vector<uint64_t> sizes(random() % 6);
  for (uint64_t& size : sizes) size = 1 + random() % (random() % 7 == 0 ? ring_bytes : ring_bytes / 5);
  return sizes;
}

void relax(std::mt19937& random) {
  if (random() % 4 == 0) std::this_thread::yield();
  if (random() % 64 == 0) std::this_thread::sleep_for(std::chrono::microseconds(random() % 200));
}

// As Runtime::read_tape does it: several reads in flight, published in any order. Goes on at *position and *number.
Status read_positions(Tape& tape, uint64_t positions, uint64_t ring_bytes, std::mt19937& random, uint64_t* position, uint32_t* number) {
  struct Read {
    Tape::Chunk chunk;
    uint64_t position;
    uint32_t number;
    uint64_t bytes;
  };
  std::vector<Read> flying;
  const auto publish_one = [&] {
    std::swap(flying[random() % flying.size()], flying.back());
    const Read read = flying.back();
    flying.pop_back();
    relax(random);
    for (uint64_t byte = 0; byte < read.bytes; ++byte) read.chunk.memory[byte] = pattern(read.position, read.number, byte);
    tape.publish(read.chunk.sequence);
  };
  Status status = Status::kDone;
  for (; *position < positions; ++*position, *number = 0) {
    const std::vector<uint64_t> sizes = chunk_sizes(*position, ring_bytes);
    for (; *number < sizes.size(); ++*number) {
      Read read{{}, *position, *number, sizes[*number]};
      if (flying.size() == 4) publish_one();
      while ((status = tape.acquire(read.bytes, nullptr, flying.empty(), &read.chunk)) == Status::kFull) publish_one();
      if (status != Status::kDone) break;
      flying.push_back(read);
    }
    if (status != Status::kDone) break;
  }
  while (!flying.empty()) publish_one();
  return status;
}

void test_stress(uint64_t ring_bytes, uint64_t positions, uint32_t seed) {
  std::vector<uint8_t> ring(ring_bytes);
  ReadMeter meter;
  Tape tape(ring.data(), ring_bytes, meter);
  std::atomic<bool> consumed = false;
  std::thread reader([&] {
    std::mt19937 random(seed);
    uint64_t position = 0;
    uint32_t number = 0;
    while (read_positions(tape, positions, ring_bytes, random, &position, &number) == Status::kPaused) std::this_thread::yield();
  });
  // Passes begin and end at any time.
  std::thread control([&] {
    std::mt19937 random(seed + 2);
    while (!consumed) {
      tape.set_idle(random() % 3 == 0);
      std::this_thread::sleep_for(std::chrono::microseconds(random() % 100));
    }
  });
  std::mt19937 random(seed + 3);
  uint64_t sequence = 0;
  uint64_t released = 0;
  uint64_t total = 0;
  struct Taken {
    const uint8_t* memory;
    uint64_t position, bytes;
    uint32_t number;
  };
  std::deque<Taken> taken;
  const auto release_one = [&] {
    const Taken& oldest = taken.front();
    bool equal = true;
    for (uint64_t byte = 0; byte < oldest.bytes; ++byte) {
      equal = equal && oldest.memory[byte] == pattern(oldest.position, oldest.number, byte);
    }
    check(equal, "a chunk has other bytes than were read", oldest.position);
    taken.pop_front();
    tape.release(released++);
  };
  for (uint64_t position = 0; position < positions; ++position) {
    const std::vector<uint64_t> sizes = chunk_sizes(position, ring_bytes);
    for (uint32_t number = 0; number < sizes.size(); ++number) {
      // Some chunks are still used while the next are awaited, unless the ring cannot hold them all.
      uint64_t held = sizes[number];
      for (const Taken& chunk : taken) held += chunk.bytes;
      while (!taken.empty() && (held * 2 > ring_bytes || random() % 2 == 0)) {
        held -= taken.front().bytes;
        release_one();
      }
      taken.push_back({tape.wait_ready(sequence++), position, sizes[number], number});
      total += sizes[number];
      relax(random);
    }
  }
  while (!taken.empty()) release_one();
  consumed = true;
  control.join();
  reader.join();
  check(meter.counters().bytes_read == total, "bytes read in total");
}

}  // namespace

int main() {
  test_order();
  for (const uint64_t ring_bytes : {1, 7, 64, 1000, 4097}) test_wrapping(ring_bytes, static_cast<uint32_t>(ring_bytes));
  test_chunk_as_large_as_the_ring();
  test_slots();
  for (int round = 0; round < 20; ++round) test_pause();
  test_cancel(false);
  test_cancel(true);
  test_stress(1009, 1500, 1);
  test_stress(64 << 10, 400, 2);
  printf("tape_test: %d checks passed\n", checks.load());
}
