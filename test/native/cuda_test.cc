// What is CUDA's own: which devices and drivers there are, memory that is mapped in granules, what fails and what is lost.
// On the driver of cuda_driver/, which does as LAYERSTREAM_CUDA_DRIVER says.
#include <dlfcn.h>

#include <cstdio>
#include <cstdlib>

#include "../../native/cuda/device.h"
#include "device_semantics.h"

using namespace layerstream;
using namespace layerstream::test;

namespace {

constexpr uint64_t kGranule = 64 << 10;

void set_driver(const std::string& options) { setenv("LAYERSTREAM_CUDA_DRIVER", options.c_str(), 1); }

std::unique_ptr<Device> open(const std::string& options = "", uint32_t index = 0) {
  set_driver(options);
  std::string reason;
  DeviceOptions asked;
  asked.index = index;
  std::unique_ptr<Device> device = cuda::open_device(asked, &reason);
  check(device != nullptr && reason.empty(), "a device of the driver '" + options + "' " + reason);
  return device;
}

bool contains(const std::string& text, const char* part) { return text.find(part) != std::string::npos; }

void check_refused(const std::string& options, uint32_t index, const char* part) {
  set_driver(options);
  std::string reason;
  DeviceOptions asked;
  asked.index = index;
  check(cuda::open_device(asked, &reason) == nullptr && contains(reason, part), "why there is no device: " + reason);
}

void test_drivers() {
  check_refused("devices=0", 0, "CUDA_VISIBLE_DEVICES");
  check_refused("version=11080", 0, "supports CUDA 11.8, and the kernels are for CUDA 12.0");
  check(!cuda::list_devices()[0].reason.empty(), "a driver that is too old is listed with the reason");
  check_refused("image=222", 0, "CUDA_ERROR_UNSUPPORTED_PTX_VERSION");
  check_refused("devices=2", 2, "2 devices");
  const std::unique_ptr<Device> second = open("devices=2,memory=1048576", 1);
  const DeviceInfo info = second->info();
  check(info.name == "cuda:1" && info.kind == DeviceKind::kGpu && info.driver == "CUDA 13.0" && info.memory_bytes == 1 << 20, "what a device is");
  check(cuda::list_devices().size() == 2, "devices are listed while one is open");
}

void test_semantics() {
  for (const char* options : {"delay=100", "granularity=0", "granularity=2097152"}) check_semantics(*open(options));
}

// Memory of a granule is free again when all that was committed in it has been discarded.
void test_granules() {
  const std::unique_ptr<Device> device = open("granularity=65536");
  const uint64_t all = device->free_bytes();
  const auto used = [&] { return (all - device->free_bytes()) / kGranule; };
  {
    Session session(*device);
    const Range memory = session.reserve(16 * kGranule);
    check(used() == 0, "reserved memory costs nothing");
    device->commit(memory.at(kGranule / 2, kGranule));
    device->commit(memory.at(3 * kGranule / 2, kGranule));
    check(used() == 3, "granules of neighbours");
    device->discard(memory.at(kGranule / 2, kGranule));
    check(used() == 2, "a granule that two share stays for one");
    device->discard(memory.at(3 * kGranule / 2, kGranule));
    check(used() == 0, "and goes with the other");
    device->commit(memory);
    device->commit(memory.at(5, 100));
    device->discard(memory.at(2 * kGranule, 4 * kGranule));
    device->discard(memory.at(3 * kGranule, kGranule));
    check(used() == 12, "discarded twice");
    device->discard(memory.at(0, 2 * kGranule - 1));
    check(used() == 11, "a byte keeps its granule");
    device->commit(memory.at(kGranule, 1));
    device->discard(memory.at(0, 2 * kGranule));
    check(used() == 10, "up to a granule's end");
  }
  check(used() == 0, "freed with what is committed");
}

// Whichever allocation fails, what was there stays, and there is room again.
void test_out_of_memory() {
  for (uint64_t failing = 1; failing <= 6; ++failing) {
    const std::unique_ptr<Device> device = open("allocation=" + std::to_string(failing));
    Session session(*device);
    const Range memory = session.reserve(8 * kGranule);
    const auto commit = [&](uint64_t granule, uint64_t granules) {
      return code_of([&] { device->commit(memory.at(granule * kGranule, granules * kGranule)); });
    };
    const uint64_t before = device->free_bytes();
    const std::string first = commit(0, 2);
    check((first == "DEVICE_FAILED") == (failing <= 2), "an allocation that fails");
    if (failing <= 2) check(device->free_bytes() == before && commit(0, 2).empty(), "nothing is left of what failed");
    auto* const host = session.alloc_pinned<uint8_t>(2 * kGranule);
    std::fill_n(host, kGranule, uint8_t{7});
    device->upload(session.stream, memory.at(0, kGranule), host);
    const std::string second = commit(2, 4);
    check((second == "DEVICE_FAILED") == (failing > 2), "a later allocation that fails");
    device->download(session.stream, host + kGranule, memory.at(0, kGranule));
    session.finish();
    check(std::equal(host, host + kGranule, host + kGranule), "memory beside what failed");
    check(commit(2, 4).empty(), "room again");
  }
  const std::unique_ptr<Device> small = open("memory=1048576");
  const Failure failure = failure_of([&] { small->alloc(2 << 20); });
  check(failure.code == "DEVICE_FAILED" && failure.has("2097152 bytes") && failure.has("--vram"), failure.message);
}

// Drivers load kernels when they are first used: for some reasons, they do not.
void test_kernels_that_cannot_be_loaded() {
  const auto launch = [](Device& device) {
    Session session(device);
    const Range memory = session.alloc(4096);
    const Op op = scale_op(memory.at(0, 1024), memory.at(1024, 4));
    return failure_of([&] { device.launch(session.stream, {&op, 1}); });
  };
  const Failure small = launch(*open("function=2"));
  check(small.code == "DEVICE_FAILED" && small.has("cuModuleGetFunction") && small.has("--vram"), small.message);
  const std::unique_ptr<Device> device = open("function=999");
  const Failure lost = launch(*device);
  check(lost.code == "DEVICE_FAILED" && lost.has("The device is lost"), lost.message);
  check(failure_of([&] { device->free_bytes(); }).has("The device is lost"), "every call of a lost device");
}

// A launch that the driver refuses fails its stream and those that wait for it, and nothing else.
void test_refused_launch() {
  const std::unique_ptr<Device> device = open("launch=2");
  Session session(*device);
  Stream *const waiting = session.another_stream(), *const other = session.another_stream();
  Event *const before = session.another_event(), *const behind = session.another_event(), *const of_other = session.another_event();
  const Range memory = session.alloc(4096);
  const Op op = scale_op(memory.at(0, 1024), memory.at(1024, 4));
  device->launch(session.stream, {&op, 1});
  device->record(before, session.stream);
  check(code_of([&] { device->launch(session.stream, {&op, 1}); }) == "DEVICE_FAILED", "a launch that is refused");
  device->synchronize(before);
  check(code_of([&] { session.finish(); }) == "DEVICE_FAILED", "an event behind it");
  device->wait(waiting, session.event);
  device->record(behind, waiting);
  check(code_of([&] { device->synchronize(behind); }) == "DEVICE_FAILED", "a stream that waited for it");
  device->launch(other, {&op, 1});
  device->record(of_other, other);
  device->synchronize(of_other);
}

uint64_t graphs_launched() {
  void* const driver = dlopen("libcuda.so.1", RTLD_NOW | RTLD_NOLOAD);
  const auto count = reinterpret_cast<uint64_t (*)()>(dlsym(driver, "layerstream_cuda_graphs_launched"));
  dlclose(driver);
  return count();
}

// Runs of the same kernels are launched as a graph from the second on, with whatever has changed; the values are those of
// launches one by one.
void test_graphs() {
  constexpr uint32_t kOps = 40, kRuns = 12;
  const std::unique_ptr<Device> device = open("delay=20");
  const uint64_t before = graphs_launched();
  Session session(*device);
  const Range memory = session.alloc((kOps + 1) * sizeof(float));
  const Range factor = memory.at(kOps * sizeof(float), sizeof(float));
  auto* const host = session.alloc_pinned<float>(kOps + 1);
  std::vector<float> expected(kOps);
  for (uint32_t i = 0; i < kOps; ++i) host[i] = expected[i] = static_cast<float>(i + 1);
  host[kOps] = 0;  // whose sigmoid is 1/2
  device->upload(session.stream, memory, host);
  const auto halve = [&](uint32_t first, uint32_t floats) {
    const Op op = scale_op(memory.at(first * sizeof(float), floats * sizeof(float)), factor);
    device->launch(session.stream, {&op, 1});
    for (uint32_t i = first; i < first + floats; ++i) expected[i] /= 2;
  };
  uint64_t graphs = 0;
  for (uint32_t run = 0; run < kRuns; ++run) {
    // The first and one of another length are launched one by one; so is the next, which is compared with that.
    const uint32_t ops = run == 6 ? kOps - 3 : kOps;
    for (uint32_t i = 0; i < ops; ++i) halve((i + run) % kOps, 1 + (i * run) % 3 % (kOps - (i + run) % kOps));
    graphs += run != 0 && run != 6 && run != 7;
    device->record(session.event, session.stream);
    if (run % 3 == 0) halve(run, 1);
    device->record(session.event, session.stream);
  }
  device->download(session.stream, host, memory.at(0, kOps * sizeof(float)));
  session.finish();
  check(std::equal(expected.begin(), expected.end(), host), "values of runs that are graphs");
  check(graphs_launched() - before == graphs, "which runs are graphs: " + std::to_string(graphs_launched() - before));
}

// What the driver refuses of a graph fails what is behind it.
void test_refused_graph() {
  const std::unique_ptr<Device> device = open("launch=70");
  Session session(*device);
  const Range memory = session.alloc(4096);
  const std::vector<Op> ops(30, scale_op(memory.at(0, 1024), memory.at(1024, 4)));
  Event* const first = session.another_event();
  device->launch(session.stream, ops);
  device->record(first, session.stream);
  device->launch(session.stream, ops);
  device->synchronize(first);
  check(code_of([&] { session.finish(); }).empty(), "a graph that is not refused");
  const std::vector<Op> others(30, scale_op(memory.at(0, 512), memory.at(1024, 4)));
  device->launch(session.stream, others);
  check(code_of([&] { session.finish(); }) == "DEVICE_FAILED", "a graph of which a node is refused");
  check(code_of([&] { device->launch(session.stream, ops); }) == "DEVICE_FAILED", "what follows it");
}

void test_lost() {
  for (const char* options : {"lose=3", "lose=3,status=719,delay=300", "lose=3,status=999"}) {
    const std::unique_ptr<Device> device = open(options);
    Buffer* const buffer = device->alloc(4096);
    Buffer* const reserved = device->reserve(4096);
    device->commit({reserved, 0, 4096});
    void* const pinned = device->alloc_pinned(4096);
    Stream* const stream = device->create_stream();
    Event* const event = device->create_event();
    const Op op = scale_op({buffer, 0, 1024}, {buffer, 1024, 4});
    for (int i = 0; i < 2; ++i) device->launch(stream, {&op, 1});
    device->record(event, stream);
    device->synchronize(event);
    std::string code;
    for (int i = 0; i < 1000 && code.empty(); ++i) {
      code = code_of([&] {
        device->launch(stream, {&op, 1});
        device->record(event, stream);
        device->synchronize(event);
      });
    }
    const auto fails = [&](const char* what, const auto& call) {
      const Failure failure = failure_of(call);
      check(failure.code == "DEVICE_FAILED" && failure.has("The device is lost"), std::string(what) + " of a lost device: " + failure.message);
    };
    fails("synchronize", [&] { device->synchronize(event); });
    fails("alloc", [&] { device->alloc(1); });
    fails("alloc_pinned", [&] { device->alloc_pinned(1); });
    fails("commit", [&] { device->commit({reserved, 0, 4096}); });
    fails("upload", [&] { device->upload(stream, {buffer, 0, 4096}, pinned); });
    fails("launch", [&] { device->launch(stream, {&op, 1}); });
    fails("record", [&] { device->record(event, stream); });
    fails("create_stream", [&] { device->create_stream(); });
    fails("free_bytes", [&] { device->free_bytes(); });
    device->destroy(stream);
    device->destroy(event);
    device->free(buffer);
    device->free(reserved);
    device->free_pinned(pinned);
  }
  check_semantics(*open());
}

}  // namespace

int main() {
  std::string reason;
  if (!cuda::open_device({}, &reason)) {
    printf("cuda_test: skipped: %s\n", reason.c_str());
    return 0;
  }
  if (!contains(cuda::list_devices()[0].info.kernels, "of the tests")) {
    printf("cuda_test: skipped: %s is no driver of the tests\n", cuda::list_devices()[0].info.kernels.c_str());
    return 0;
  }
  test_drivers();
  test_semantics();
  test_granules();
  test_out_of_memory();
  test_kernels_that_cannot_be_loaded();
  test_refused_launch();
  test_graphs();
  test_refused_graph();
  test_lost();
  printf("cuda_test: %d checks passed\n", checks.load());
  return 0;
}
