// What is HIP's own: the runtime's names, numbers and versions, memory that cannot be mapped, a device that is lost. What it shares
// with CUDA is in cuda_test.cc. On the driver of cuda_driver/, which is also HIP's runtime and does as LAYERSTREAM_CUDA_DRIVER says.
#include <cstdio>
#include <cstdlib>

#include "../../native/hip/device.h"
#include "device_semantics.h"

using namespace layerstream;
using namespace layerstream::test;

namespace {

constexpr uint64_t kGranule = 2 << 20;

std::unique_ptr<Device> open(const std::string& driver, uint32_t index = 0) {
  setenv("LAYERSTREAM_CUDA_DRIVER", driver.c_str(), 1);
  std::string reason;
  DeviceOptions asked;
  asked.index = index;
  std::unique_ptr<Device> device = hip::open_device(asked, &reason);
  check(device != nullptr && reason.empty(), "a device of the runtime '" + driver + "' " + reason);
  return device;
}

void check_refused(const std::string& driver, uint32_t index, std::initializer_list<const char*> parts) {
  setenv("LAYERSTREAM_CUDA_DRIVER", driver.c_str(), 1);
  std::string reason;
  DeviceOptions asked;
  asked.index = index;
  check(hip::open_device(asked, &reason) == nullptr, "a device of the runtime '" + driver + "'");
  for (const char* part : parts) check(reason.find(part) != std::string::npos, "why there is no device: " + reason);
}

void test_runtimes() {
  check_refused("devices=0", 0, {"/dev/kfd", "HIP_VISIBLE_DEVICES"});
  check_refused("image=209", 0, {"HIP 6.2", "hipErrorNoBinaryForGpu", "they are for the host", "--device opencl"});
  check_refused("devices=2", 2, {"The HIP runtime has 2 devices"});
  const std::unique_ptr<Device> second = open("devices=2,memory=4194304", 1);
  const DeviceInfo info = second->info();
  check(info.name == "hip:1" && info.kind == DeviceKind::kGpu && info.driver == "HIP 6.2" && info.memory_bytes == 4 << 20, "what a device is");
  const Failure failure = failure_of([&] { second->alloc(8 << 20); });
  check(failure.code == "DEVICE_FAILED" && failure.has("HIP: hipMalloc on") && failure.has("hipErrorOutOfMemory"), failure.message);
}

// Pages are granules of some runtimes: what is mapped is at least kGranule.
void test_memory() {
  for (const char* driver : {"delay=100", "granularity=4096", "granularity=0"}) {
    const std::unique_ptr<Device> device = open(driver);
    check_semantics(*device);
  }
  const std::unique_ptr<Device> device = open("granularity=4096");
  const uint64_t all = device->free_bytes();
  Session session(*device);
  const Range memory = session.reserve(4 * kGranule);
  device->commit(memory.at(1, 1));
  check(all - device->free_bytes() == kGranule, "a byte takes a granule");
  device->discard(memory.at(0, kGranule));
  check(device->free_bytes() == all, "which is free again");
}

// A runtime that lists virtual memory and fails to map any: what is reserved is allocated.
void test_unmappable_memory() {
  const std::unique_ptr<Device> device = open("allocation=1");
  const uint64_t all = device->free_bytes();
  Session session(*device);
  const Range memory = session.reserve(kGranule);
  check(all - device->free_bytes() >= kGranule, "reserved memory that cannot be mapped later");
  device->commit(memory);
  auto* const host = session.alloc_pinned<uint8_t>(2 * kGranule);
  std::fill_n(host, kGranule, uint8_t{7});
  device->upload(session.stream, memory, host);
  device->download(session.stream, host + kGranule, memory);
  session.finish();
  check(std::equal(host, host + kGranule, host + kGranule), "what was written to it");
}

// Runs of the same kernels are launched one by one: HIP's table has no graphs.
void test_runs() {
  const std::unique_ptr<Device> device = open("delay=20");
  Session session(*device);
  const Range memory = session.alloc(4096);
  auto* const host = session.alloc_pinned<float>(1024);
  std::fill_n(host, 1024, 0.0f);
  host[0] = 1024;
  device->upload(session.stream, memory, host);
  const std::vector<Op> halve(30, scale_op(memory.at(0, 4), memory.at(8, 4)));  // by the sigmoid of 0
  for (int run = 0; run < 3; ++run) {
    device->launch(session.stream, halve);
    device->record(session.event, session.stream);
  }
  device->download(session.stream, host, memory);
  session.finish();
  check(host[0] == 0x1p-80f, "ninety halves");
}

void test_lost() {
  {
    const std::unique_ptr<Device> device = open("lose=2");
    Buffer* const buffer = device->alloc(4096);
    Stream* const stream = device->create_stream();
    Event* const event = device->create_event();
    const Op op = scale_op({buffer, 0, 1024}, {buffer, 1024, 4});
    const Failure failure = failure_of([&] {
      for (int i = 0; i < 1000; ++i) {
        device->launch(stream, {&op, 1});
        device->record(event, stream);
        device->synchronize(event);
      }
    });
    check(failure.code == "DEVICE_FAILED" && failure.has("HIP: hip") && failure.has("hipErrorIllegalAddress") && failure.has("The device is lost"),
          failure.message);
    check(code_of([&] { device->alloc(1); }) == "DEVICE_FAILED", "memory of a lost device");
    device->destroy(stream);
    device->destroy(event);
    device->free(buffer);
  }
  check_semantics(*open(""));
}

}  // namespace

int main() {
  const std::vector<ListedDevice> listed = hip::list_devices();
  if (!listed[0].reason.empty() || listed[0].info.kernels.find("of the tests") == std::string::npos) {
    printf("hip_test: skipped: no runtime of the tests: %s\n", listed[0].reason.c_str());
    return 0;
  }
  test_runtimes();
  test_memory();
  test_unmappable_memory();
  test_runs();
  test_lost();
  printf("hip_test: %d checks passed\n", checks.load());
  return 0;
}
