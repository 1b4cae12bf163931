// What device.h promises of memory, streams, events and copies, checked through Device alone.
#pragma once

#include <algorithm>
#include <cstring>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "../../native/backend/device.h"
#include "../../native/platform/memory.h"
#include "check.h"
#include "failure.h"

namespace layerstream::test {

// A stream, an event and what is allocated, given back at the end.
class Session {
 public:
  explicit Session(Device& device) : device(device), stream(device.create_stream()), event(device.create_event()) {}
  ~Session() {
    for (Stream* each : streams_) device.destroy(each);
    device.destroy(stream);
    for (Event* each : events_) device.destroy(each);
    device.destroy(event);
    for (Buffer* buffer : buffers_) device.free(buffer);
    for (void* memory : pinned_) device.free_pinned(memory);
  }
  Session(const Session&) = delete;
  Session& operator=(const Session&) = delete;

  Range alloc(uint64_t bytes) { return {keep(device.alloc(bytes)), 0, bytes}; }
  Range reserve(uint64_t bytes) { return {keep(device.reserve(bytes)), 0, bytes}; }
  template <typename T>
  T* alloc_pinned(uint64_t count) {
    pinned_.push_back(device.alloc_pinned(count * sizeof(T)));
    check(reinterpret_cast<uintptr_t>(pinned_.back()) % kPageBytes == 0, "pinned memory begins on a page");
    return static_cast<T*>(pinned_.back());
  }
  Stream* another_stream() { return streams_.emplace_back(device.create_stream()); }
  Event* another_event() { return events_.emplace_back(device.create_event()); }
  void finish() {
    device.record(event, stream);
    device.synchronize(event);
  }

  Device& device;
  Stream* const stream;
  Event* const event;

 private:
  Buffer* keep(Buffer* buffer) { return buffers_.emplace_back(buffer); }

  std::vector<Stream*> streams_;
  std::vector<Event*> events_;
  std::vector<Buffer*> buffers_;
  std::vector<void*> pinned_;
};

// Scales `width` floats by the sigmoid of the word behind them: an op that every device must have.
inline Op scale_op(Range floats, Range factor) {
  return ScaleTokensOp{floats, factor, 1, static_cast<uint32_t>(floats.size / sizeof(float)), 0, 0};
}

// Uploads, copies and downloads of any length at any byte leave what is beside them.
inline void check_copies(Device& device) {
  constexpr uint64_t kBytes = 70000;
  Session session(device);
  std::mt19937 random(5);
  const Range memory = session.alloc(2 * kBytes);
  auto* host = session.alloc_pinned<uint8_t>(2 * kBytes);
  auto* result = session.alloc_pinned<uint8_t>(2 * kBytes);
  for (uint64_t i = 0; i < 2 * kBytes; ++i) host[i] = static_cast<uint8_t>(random());
  std::vector<uint8_t> expected(host, host + 2 * kBytes);
  device.upload(session.stream, memory, host);
  for (int round = 0; round < 300; ++round) {
    const uint64_t bytes = 1 + random() % (round % 3 == 0 ? 60000 : 40);
    const uint64_t from = random() % (kBytes - bytes), to = random() % (kBytes - bytes);
    if (round % 2 == 0) {
      device.upload(session.stream, memory.at(to, bytes), host + from);
      std::copy_n(host + from, bytes, expected.begin() + static_cast<ptrdiff_t>(to));
    } else {
      device.copy(session.stream, memory.at(kBytes + to, bytes), memory.at(from, bytes));
      std::copy_n(expected.begin() + static_cast<ptrdiff_t>(from), bytes, expected.begin() + static_cast<ptrdiff_t>(kBytes + to));
    }
  }
  std::memset(result, 0, 2 * kBytes);
  device.download(session.stream, result + 3, memory.at(5, 2 * kBytes - 9));
  session.finish();
  check(std::equal(expected.begin() + 5, expected.end() - 4, result + 3), "bytes after copies");
  check(result[2] == 0 && result[2 * kBytes - 6] == 0, "bytes beside a download");
}

// More commands than any queue holds: whoever enqueues waits, and nothing is lost or reordered.
inline void check_order(Device& device) {
  constexpr uint64_t kBytes = 4000;
  Session session(device);
  const Range memory = session.alloc(4 * kBytes);
  auto* host = session.alloc_pinned<uint8_t>(2 * kBytes);
  for (uint64_t i = 0; i < kBytes; ++i) host[i] = static_cast<uint8_t>(i * 7);
  const uint64_t before = device.busy_nanoseconds(session.stream);
  device.upload(session.stream, memory.at(0, kBytes), host);
  for (uint64_t round = 0; round < 3000; ++round) {
    device.copy(session.stream, memory.at((round + 1) % 4 * kBytes, kBytes), memory.at(round % 4 * kBytes, kBytes));
  }
  device.download(session.stream, host + kBytes, memory.at(0, kBytes));
  session.finish();
  check(std::memcmp(host, host + kBytes, kBytes) == 0, "bytes after a chain of copies");
  check(device.busy_nanoseconds(session.stream) > before, "time in which a stream has worked");
  device.synchronize(session.event);
}

// Two streams pass a value to and fro, each waiting for the other's last record. Every event is recorded many times.
inline void check_events(Device& device) {
  constexpr uint64_t kRounds = 500;
  Session session(device);
  Stream* const streams[2] = {session.stream, session.another_stream()};
  Event* const events[2] = {session.event, session.another_event()};
  const Range memory = session.alloc(2 * sizeof(uint64_t));
  auto* sent = session.alloc_pinned<uint64_t>(kRounds);
  auto* received = session.alloc_pinned<uint64_t>(kRounds);
  for (uint64_t round = 0; round < kRounds; ++round) {
    const Range value = memory.at(round % 2 * sizeof(uint64_t), sizeof(uint64_t));
    sent[round] = round + 1;
    device.upload(streams[0], value, sent + round);
    device.record(events[0], streams[0]);
    device.wait(streams[1], events[0]);
    device.download(streams[1], received + round, value);
    device.record(events[1], streams[1]);
    device.wait(streams[0], events[1]);
  }
  device.synchronize(events[1]);
  check(std::equal(sent, sent + kRounds, received), "order of two streams");

  Event* const never = session.another_event();
  device.synchronize(never);
  device.wait(streams[0], never);
  device.record(never, streams[0]);
  std::vector<std::thread> waiting;
  for (int i = 0; i < 4; ++i) waiting.emplace_back([&] { device.synchronize(never); });
  for (std::thread& thread : waiting) thread.join();
}

// One event, two streams: it stands for its last record, whichever stream comes first.
inline void check_records(Device& device) {
  Session session(device);
  Stream* const streams[2] = {session.stream, session.another_stream()};
  const Range memory = session.alloc(4096);
  auto* host = session.alloc_pinned<uint32_t>(1024);
  for (uint32_t round = 0; round < 500; ++round) {
    std::fill_n(host, 1024, round);
    device.upload(streams[0], memory, host);
    device.record(session.event, streams[0]);
    device.synchronize(session.event);
    device.record(session.event, streams[0]);
    device.download(streams[1], host, memory.at(0, 8));
    host[1000] = ~round;
    device.record(session.event, streams[1]);
    device.synchronize(session.event);
    check(host[0] == round && host[1] == round, "an event recorded on two streams");
  }
}

// As the engine does it: chunks go through two slots, copied on one stream while ops of another work on those before. A slot
// is used again after the event of its last reader.
inline void check_slots(Device& device) {
  constexpr uint32_t kChunks = 200, kFloats = 3000, kSlots = 2;
  constexpr uint64_t kBytes = kFloats * sizeof(float);
  Session session(device);
  Stream* const copies = session.another_stream();
  Event* const copied = session.another_event();
  Event* const used[kSlots] = {session.another_event(), session.another_event()};
  const Range slots = session.alloc(kSlots * kBytes), factor = session.alloc(sizeof(float)), results = session.alloc(kChunks * kBytes);
  auto* host = session.alloc_pinned<float>(kChunks * kFloats);
  auto* output = session.alloc_pinned<float>(kChunks * kFloats);
  auto* one = session.alloc_pinned<float>(1);
  for (uint32_t i = 0; i < kChunks * kFloats; ++i) host[i] = static_cast<float>(i % 1000003);
  *one = 1000;  // whose sigmoid is 1
  device.upload(session.stream, factor, one);
  for (uint32_t chunk = 0; chunk < kChunks; ++chunk) {
    const Range slot = slots.at(chunk % kSlots * kBytes, kBytes);
    device.wait(copies, used[chunk % kSlots]);
    device.upload(copies, slot, host + uint64_t{chunk} * kFloats);
    device.record(copied, copies);
    device.wait(session.stream, copied);
    const Op op = scale_op(slot, factor);
    device.launch(session.stream, {&op, 1});
    device.copy(session.stream, results.at(chunk * kBytes, kBytes), slot);
    device.record(used[chunk % kSlots], session.stream);
  }
  device.download(session.stream, output, results);
  session.finish();
  check(std::equal(host, host + kChunks * kFloats, output), "chunks that went through slots");
}

inline void check_memory(Device& device) {
  const DeviceInfo info = device.info();
  check(!info.name.empty() && !info.kernels.empty(), "a device says what it is");
  check(code_of([&] { device.alloc(uint64_t{1} << 62); }) == "DEVICE_FAILED", "more memory than there is");
  check(code_of([&] { device.reserve(uint64_t{1} << 62); }) == "DEVICE_FAILED", "more address space than there is");
  check(code_of([&] { device.alloc_pinned(UINT64_MAX - 5); }) == "DEVICE_FAILED", "a size that wraps around");
  Session session(device);
  uint8_t bytes[64];
  const Range memory = session.alloc(64);
  if (info.unified) {
    Buffer* alias = device.alias_host(bytes, sizeof bytes);
    check(device.host_address({alias, 8, 8}) == bytes + 8, "address of an alias");
    device.free(alias);
    check(device.host_address(memory.at(8, 8)) == static_cast<uint8_t*>(device.host_address(memory)) + 8, "address of a range");
  } else {
    check(code_of([&] { device.alias_host(bytes, sizeof bytes); }) == "INTERNAL", "alias on a discrete device");
    check(code_of([&] { device.host_address(memory); }) == "INTERNAL", "address on a discrete device");
  }
}

// Parts of reserved memory are used, given back and used again; what lies around them stays.
inline void check_reserved(Device& device) {
  constexpr uint64_t kBytes = uint64_t{8} << 20;
  constexpr uint64_t kBegin = (uint64_t{3} << 20) + kPageBytes + 17, kEnd = (uint64_t{6} << 20) - 2 * kPageBytes - 5;
  Session session(device);
  const Range memory = session.reserve(kBytes);
  auto* host = session.alloc_pinned<uint8_t>(kBytes);
  auto* result = session.alloc_pinned<uint8_t>(kBytes);
  const auto differs = [&](uint64_t begin, uint64_t end) { return std::memcmp(host + begin, result + begin, end - begin) != 0; };
  const auto send = [&](uint64_t begin, uint64_t end) {
    device.commit(memory.at(begin, end - begin));
    device.upload(session.stream, memory.at(begin, end - begin), host + begin);
  };
  for (uint64_t i = 0; i < kBytes; ++i) host[i] = static_cast<uint8_t>(i * 31 + i / 4096);
  send(0, kBytes);
  session.finish();
  device.populate(memory.at(1 << 20, 1 << 20));
  device.discard(memory.at(kBegin, kEnd - kBegin));
  device.download(session.stream, result, memory.at(0, kBegin));
  device.download(session.stream, result + kEnd, memory.at(kEnd, kBytes - kEnd));
  session.finish();
  check(!differs(0, kBegin) && !differs(kEnd, kBytes), "content around what was discarded");
  send(kBegin, kEnd);
  device.download(session.stream, result, memory);
  session.finish();
  check(!differs(0, kBytes), "memory that was discarded is used again");
}

// A stream runs what was enqueued before it was destroyed.
inline void check_destroy(Device& device) {
  for (uint32_t round = 0; round < 50; ++round) {
    Session session(device);
    Stream* stream = device.create_stream();
    const Range memory = session.alloc(sizeof round);
    auto* host = session.alloc_pinned<uint32_t>(2);
    host[0] = round;
    host[1] = ~round;
    device.upload(stream, memory, host);
    device.download(stream, host + 1, memory);
    device.destroy(stream);
    check(host[1] == round, "commands of a stream that is destroyed");
  }
}

// Commands that are traced say where and what they were.
inline void check_trace(Device& device) {
  Trace trace({0, 0}, 1, static_cast<uint32_t>(Activity::kMatmul) + static_cast<uint32_t>(kFormatCount), 64);
  Session session(device);
  const Range memory = session.alloc(4096);
  auto* host = session.alloc_pinned<uint8_t>(4096);
  std::memset(host, 0, 4096);
  Stream* const stream = session.another_stream();
  device.observe(stream, &trace, Track::kCopies);
  device.label(stream, 1);
  device.upload(stream, memory, host);
  const Op op = scale_op(memory.at(0, 1024), memory.at(1024, 4));
  device.launch(stream, {&op, 1});
  device.record(session.event, stream);
  device.synchronize(session.event);
  size_t copies = 0, ops = 0;
  std::vector<Trace::Span> spans;
  trace.copy(0, 64, &spans);
  for (const Trace::Span& span : spans) {
    const bool placed = span.track == static_cast<uint8_t>(Track::kCopies) && span.stage == 1 && span.end >= span.begin;
    check(placed, "place and time of a span");
    (span.activity == static_cast<uint16_t>(Activity::kCopy) ? copies : ops)++;
  }
  check(copies == 1 && ops == 1, "a span a command");
}

inline void check_semantics(Device& device) {
  check_memory(device);
  check_copies(device);
  check_order(device);
  check_events(device);
  check_records(device);
  check_slots(device);
  check_reserved(device);
  check_destroy(device);
  check_trace(device);
  check(device.measure_peak(PeakKind::kFloat32, 0.01) >= 0, "a peak");
}

}  // namespace layerstream::test
