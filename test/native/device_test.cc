// The CPU as a device, unified and discrete: streams, events, copies, and commands that fail.
#ifdef __linux__
#include <sys/mman.h>
#endif

#include <algorithm>
#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "../../native/backend/device.h"
#include "../../native/cpu/execute.h"
#include "../../native/cpu/stream.h"
#include "../../native/platform/error.h"
#include "failure.h"

using namespace layerstream;

namespace {

std::atomic<int> checks = 0;

void check(bool condition, const char* what, size_t where = 0) {
  ++checks;
  if (condition) return;
  fprintf(stderr, "device_test: %s (at %zu)\n", what, where);
  exit(1);
}

// More commands than a stream's queue holds: whoever enqueues waits, and nothing is lost or reordered.
void test_copies(Device& device) {
  constexpr uint64_t kFloats = 1000;
  constexpr uint64_t kBytes = kFloats * sizeof(float);
  Stream* stream = device.create_stream();
  Event* event = device.create_event();
  Buffer* buffer = device.alloc(4 * kBytes);
  auto* host = static_cast<float*>(device.alloc_pinned(2 * kBytes));
  check(reinterpret_cast<uintptr_t>(host) % 4096 == 0, "pinned memory on a page");
  for (uint64_t i = 0; i < kFloats; ++i) host[i] = static_cast<float>(i);
  const Range whole{buffer, 0, 4 * kBytes};
  device.upload(stream, whole.at(0, kBytes), host);
  for (int round = 0; round < 3000; ++round) device.copy(stream, whole.at((round + 1) % 4 * kBytes, kBytes), whole.at(round % 4 * kBytes, kBytes));
  device.download(stream, host + kFloats, whole.at(0, kBytes));
  device.record(event, stream);
  device.synchronize(event);
  check(std::memcmp(host, host + kFloats, kBytes) == 0, "bytes after copies");
  check(device.busy_nanoseconds(stream) > 0, "time of commands");
  device.synchronize(event);
  device.destroy(stream);
  device.destroy(event);
  device.free(buffer);
  device.free_pinned(host);
}

#ifdef __linux__
size_t resident_pages(void* data, uint64_t bytes) {
  std::vector<unsigned char> pages(bytes / 4096);
  check(mincore(data, bytes, pages.data()) == 0, "mincore");
  return static_cast<size_t>(std::ranges::count_if(pages, [](unsigned char page) { return (page & 1) != 0; }));
}

// What is reserved costs nothing until it is used, and what is discarded nothing any more, huge pages or not.
void test_discard(Device& device) {
  if (!device.info().unified) return;
  constexpr uint64_t kBytes = uint64_t{32} << 20;
  Buffer* buffer = device.reserve(kBytes);
  const Range whole{buffer, 0, kBytes};
  auto* data = static_cast<uint8_t*>(device.host_address(whole));
  check(resident_pages(data, kBytes) == 0, "reserved memory is not resident");
  device.commit(whole);
  std::memset(data, 1, kBytes);
  check(resident_pages(data, kBytes) == kBytes / 4096, "used memory is resident");
  const uint64_t begin = (uint64_t{3} << 20) + 4096 + 17, end = (uint64_t{29} << 20) - 8192 - 5;
  device.discard(whole.at(begin, end - begin));
  check(resident_pages(data, kBytes) == (kBytes - (end / 4096 - (begin + 4095) / 4096) * 4096) / 4096, "only whole pages are given back");
  check(data[begin - 1] == 1 && data[begin] == 1 && data[end - 1] == 1 && data[end] == 1, "content around what was discarded");
  device.commit(whole);
  std::memset(data, 2, kBytes);
  check(resident_pages(data, kBytes) == kBytes / 4096, "memory that was discarded can be used again");
  device.free(buffer);
}
#endif

// Two streams pass a value to and fro, each waiting for the other's last record. Every event is recorded many times.
void test_events(Device& device) {
  Stream* streams[2] = {device.create_stream(), device.create_stream()};
  Event* events[2] = {device.create_event(), device.create_event()};
  Buffer* buffer = device.alloc(2 * sizeof(uint64_t));
  auto* host = static_cast<uint64_t*>(device.alloc_pinned(2048 * sizeof(uint64_t)));
  constexpr uint64_t kRounds = 500;
  for (uint64_t round = 0; round < kRounds; ++round) {
    const Range value{buffer, round % 2 * sizeof(uint64_t), sizeof(uint64_t)};
    host[round] = round + 1;
    device.upload(streams[0], value, host + round);
    device.record(events[0], streams[0]);
    device.wait(streams[1], events[0]);
    device.download(streams[1], host + 1024 + round, value);
    device.record(events[1], streams[1]);
    device.wait(streams[0], events[1]);
  }
  device.synchronize(events[1]);
  for (uint64_t round = 0; round < kRounds; ++round) check(host[1024 + round] == round + 1, "order of two streams", round);

  Event* never = device.create_event();
  device.synchronize(never);
  device.wait(streams[0], never);
  device.record(never, streams[0]);
  std::vector<std::thread> waiting;
  for (int i = 0; i < 4; ++i) waiting.emplace_back([&] { device.synchronize(never); });
  for (std::thread& thread : waiting) thread.join();

  // One event, two streams: it is complete with its last record, whichever stream comes first.
  for (uint64_t round = 0; round < 500; ++round) {
    device.record(never, streams[0]);
    device.record(never, streams[1]);
    device.synchronize(never);
    device.record(never, streams[round % 2]);
    device.synchronize(never);
  }
  // The other stream may not have come to its record yet: streams first.
  for (Stream* stream : streams) device.destroy(stream);
  for (Event* event : {events[0], events[1], never}) device.destroy(event);
  device.free(buffer);
  device.free_pinned(host);
}

void test_ops(Device& device) {
  Stream* stream = device.create_stream();
  Event* event = device.create_event();
  constexpr uint32_t kRows = 67, kColumns = 130;
  std::mt19937 random(1);
  const auto floats = [&](size_t count) {
    auto* memory = static_cast<float*>(device.alloc_pinned(count * sizeof(float)));
    for (size_t i = 0; i < count; ++i) memory[i] = static_cast<float>(static_cast<int>(random() % 17) - 8);
    return memory;
  };
  float* weight = floats(kRows * kColumns);
  float* input = floats(kColumns);
  float* output = floats(kRows);
  const uint64_t weight_bytes = kRows * kColumns * sizeof(float);
  Buffer* buffer = device.alloc(weight_bytes + (kColumns + kRows) * sizeof(float));
  const Range whole{buffer, 0, weight_bytes + (kColumns + kRows) * sizeof(float)};
  MatmulOp op{};
  op.format = Format::kF32;
  op.weight = whole.at(0, weight_bytes);
  op.row_bytes = kColumns * sizeof(float);
  op.rows = kRows;
  op.columns = kColumns;
  op.tokens = 1;
  op.input = whole.at(weight_bytes, kColumns * sizeof(float));
  op.output = whole.at(weight_bytes + kColumns * sizeof(float), kRows * sizeof(float));
  op.input_stride = kColumns;
  op.output_stride = kRows;
  check(device.supports(op), "f32 products");
  device.upload(stream, op.weight, weight);
  device.upload(stream, op.input, input);
  const Op ops[] = {op};
  device.launch(stream, ops);
  device.download(stream, output, op.output);
  device.record(event, stream);
  device.synchronize(event);
  // Small whole numbers: every order of summing gives the same.
  for (uint32_t row = 0; row < kRows; ++row) {
    float expected = 0;
    for (uint32_t column = 0; column < kColumns; ++column) expected += weight[row * kColumns + column] * input[column];
    check(output[row] == expected, "product", row);
  }
  device.destroy(stream);
  device.destroy(event);
  device.free(buffer);
  for (float* memory : {weight, input, output}) device.free_pinned(memory);
}

// A stream whose ops fail, beside a device whose own cannot: kernels that throw are not to be had from outside.
void test_failures(Device& device) {
  cpu::KernelTable kernels = cpu::scalar_kernels();
  kernels.activate = [](const cpu::ActivationArgs&) { throw Error("DEVICE_FAILED", "This kernel always fails."); };
  cpu::Executor executor(kernels, 1);
  std::mutex executor_mutex;
  Stream* failing = new cpu::CpuStream(executor, executor_mutex);
  Stream* healthy = device.create_stream();
  Stream* dependent = device.create_stream();
  Event* event = device.create_event();
  Event* other = device.create_event();
  Buffer* buffer = device.alloc(64);
  auto* host = static_cast<float*>(device.alloc_pinned(64));
  host[0] = 5;
  host[8] = 0;
  const Range range{buffer, 0, 16};

  device.upload(failing, range, host);
  device.record(event, failing);
  device.synchronize(event);
  const Op bad[] = {ActivationOp{range, range, 1, 4, 4, 4, Activation::kSilu, 0, 0}};
  device.launch(failing, bad);
  // What follows is skipped: it would work on wrong data.
  device.download(failing, host + 8, range);
  device.record(event, failing);
  check(code_of([&] { device.synchronize(event); }) == "DEVICE_FAILED", "a failed op is told at the next synchronize");
  check(code_of([&] { device.synchronize(event); }) == "DEVICE_FAILED", "and at every later one");
  check(host[8] == 0, "commands behind a failed op must not run");
  device.record(other, failing);
  check(code_of([&] { device.synchronize(other); }) == "DEVICE_FAILED", "every event of the lost stream tells");
  for (int i = 0; i < 3000; ++i) device.launch(failing, bad);
  device.record(other, failing);
  check(code_of([&] { device.synchronize(other); }) == "DEVICE_FAILED", "a lost stream still empties its queue");

  device.wait(dependent, event);
  device.download(dependent, host + 8, range);
  device.record(other, dependent);
  check(code_of([&] { device.synchronize(other); }) == "DEVICE_FAILED" && host[8] == 0, "what waits for a failed stream fails");

  device.record(event, healthy);
  check(code_of([&] { device.synchronize(event); }).empty(), "an event recorded again on a healthy stream forgets the failure");
  device.download(healthy, host + 8, range);
  device.record(event, healthy);
  device.synchronize(event);
  check(host[8] == 5, "a healthy stream works on");

  for (Stream* stream : {failing, healthy, dependent}) device.destroy(stream);
  for (Event* each : {event, other}) device.destroy(each);
  device.free(buffer);
  device.free_pinned(host);
}

void test_memory(Device& device) {
  const DeviceInfo info = device.info();
  check(!info.kernels.empty() && info.threads == 2, "info");
  check(code_of([&] { device.alloc(uint64_t{1} << 62); }) == "DEVICE_FAILED", "more memory than there is");
  check(code_of([&] { device.alloc_pinned(UINT64_MAX - 5); }) == "DEVICE_FAILED", "a size that wraps around");
  uint8_t bytes[64];
  if (info.unified) {
    Buffer* alias = device.alias_host(bytes, sizeof bytes);
    check(device.host_address({alias, 8, 8}) == bytes + 8, "address of an alias");
    device.free(alias);
  } else {
    check(code_of([&] { device.alias_host(bytes, sizeof bytes); }) == "INTERNAL", "alias on a discrete device");
    Buffer* buffer = device.alloc(8);
    check(code_of([&] { device.host_address({buffer, 0, 8}); }) == "INTERNAL", "address on a discrete device");
    device.free(buffer);
  }
}

// A stream runs what was enqueued before it was destroyed.
void test_destroy_drains(Device& device) {
  for (uint32_t round = 0; round < 100; ++round) {
    Stream* stream = device.create_stream();
    Buffer* buffer = device.alloc(sizeof round);
    auto* host = static_cast<uint32_t*>(device.alloc_pinned(2 * sizeof round));
    host[0] = round;
    host[1] = ~round;
    device.upload(stream, {buffer, 0, sizeof round}, host);
    device.download(stream, host + 1, {buffer, 0, sizeof round});
    device.destroy(stream);
    check(host[1] == round, "commands of a destroyed stream", round);
    device.free(buffer);
    device.free_pinned(host);
  }
}

}  // namespace

int main() {
  int devices = 0;
  for (const Backend& backend : backends()) {
    const std::unique_ptr<Device> device = backend.open({2});
    if (!device) continue;
    devices++;
    test_memory(*device);
    test_copies(*device);
#ifdef __linux__
    test_discard(*device);
#endif
    test_events(*device);
    test_ops(*device);
    test_failures(*device);
    test_destroy_drains(*device);
  }
  check(devices >= 2, "cpu and cpu-discrete");
  printf("device_test: %d checks passed\n", checks.load());
}
