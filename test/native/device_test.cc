// The CPU as a device, unified and discrete: memory that is given back, and commands that fail. What every device must do is
// conformance_test's part.
#ifdef __linux__
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>
#endif

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "../../native/backend/device.h"
#include "../../native/cpu/execute.h"
#include "../../native/cpu/stream.h"
#include "../../native/platform/error.h"
#include "check.h"
#include "failure.h"

using namespace layerstream;

namespace {

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

// Children of the process do not get weights, rings and caches: reads and copies into these may be under way.
void test_fork(Device& device) {
  uint8_t* const memory = static_cast<uint8_t*>(device.alloc_pinned(uint64_t{4} << 20));
  memory[0] = 7;
  const pid_t child = fork();
  if (child == 0) {
    unsigned char page = 0;
    _exit(mincore(memory, 4096, &page) == -1 && errno == ENOMEM ? 0 : 1);
  }
  int status = 0;
  check(child > 0 && waitpid(child, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status) == 0, "a child has no pinned memory");
  check(memory[0] == 7, "pinned memory after a fork");
  device.free_pinned(memory);
}
#endif

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

}  // namespace

int main() {
  for (const char* name : {"cpu", "cpu-discrete"}) {
    const std::unique_ptr<Device> device = open_device(name, {2});
    check(device->info().threads == 2, "threads");
#ifdef __linux__
    test_discard(*device);
    test_fork(*device);
#endif
    test_failures(*device);
  }
  const Failure unknown = failure_of([] { open_device("abacus", {1}); });
  check(unknown.code == "DEVICE_UNAVAILABLE" && unknown.has("abacus") && unknown.has("cpu"), "a device that does not exist");
  printf("device_test: %d checks passed\n", checks.load());
}
