// Reads of a running model that fail, come back short or interrupted, or stall; direct reads and io_uring refused. This
// program's own pread, open and syscall stand before those of the C library, on the systems that have all of them.
#include <cstdio>

#ifdef __linux__

#include <dlfcn.h>
#include <fcntl.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include <cerrno>
#include <cstdarg>
#include <ctime>
#include <functional>
#include <random>

#include "expert_models.h"
#include "loaded_model.h"

using namespace synthetic;

namespace {

std::atomic<bool> refuse_uring = false, refuse_direct_open = false, refuse_direct_read = false;

// What reads from now on come to.
class Faults {
 public:
  // The number of bytes to read of `bytes`, or -errno, for the read with this number.
  using Script = std::function<int64_t(uint64_t number, int64_t bytes)>;

  void set(Script script) {
    std::lock_guard lock(mutex_);
    script_ = std::move(script);
    number_ = 0;
  }
  // Reads from the one with this number on wait until `resume`.
  void stall_from(uint64_t number) {
    std::lock_guard lock(mutex_);
    stall_ = number;
    number_ = 0;
  }
  void resume() {
    std::lock_guard lock(mutex_);
    stall_ = UINT64_MAX;
    changed_.notify_all();
  }
  void wait_until_stalled() {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [this] { return stalled_ > 0; });
  }
  uint32_t stalled() {
    std::lock_guard lock(mutex_);
    return stalled_;
  }
  int64_t answer(int64_t bytes) {
    std::unique_lock lock(mutex_);
    const uint64_t number = number_++;
    if (number >= stall_) {
      ++stalled_;
      changed_.notify_all();
      changed_.wait(lock, [this] { return stall_ == UINT64_MAX; });
      --stalled_;
    }
    return script_ ? script_(number, bytes) : bytes;
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  Script script_;
  uint64_t number_ = 0, stall_ = UINT64_MAX;
  uint32_t stalled_ = 0;
};

Faults faults;

ssize_t faulty_read(int descriptor, void* memory, size_t bytes, off_t offset) {
  const bool direct = (fcntl(descriptor, F_GETFL) & O_DIRECT) != 0;
  const int64_t answer = direct && refuse_direct_read ? -EINVAL : faults.answer(static_cast<int64_t>(bytes));
  if (answer < 0) {
    errno = static_cast<int>(-answer);
    return -1;
  }
  const iovec part{memory, static_cast<size_t>(answer)};
  return preadv(descriptor, &part, 1, offset);
}

int faulty_open(const char* path, int flags) {
  if (refuse_direct_open && (flags & O_DIRECT) != 0) {
    errno = EINVAL;
    return -1;
  }
  return openat(AT_FDCWD, path, flags);
}

}  // namespace

extern "C" {

ssize_t pread(int descriptor, void* memory, size_t bytes, off_t offset) { return faulty_read(descriptor, memory, bytes, offset); }
ssize_t pread64(int descriptor, void* memory, size_t bytes, off64_t offset) { return faulty_read(descriptor, memory, bytes, offset); }

// Files are opened for reading only here: nobody gives a mode.
int open(const char* path, int flags, ...) { return faulty_open(path, flags); }
int open64(const char* path, int flags, ...) { return faulty_open(path, flags); }

long syscall(long number, ...) {
  static const auto real = reinterpret_cast<long (*)(long, ...)>(dlsym(RTLD_NEXT, "syscall"));
  va_list rest;
  va_start(rest, number);
  long arguments[6];
  for (long& argument : arguments) argument = va_arg(rest, long);
  va_end(rest);
  if (number == __NR_io_uring_setup && refuse_uring) {
    errno = EPERM;
    return -1;
  }
  return real(number, arguments[0], arguments[1], arguments[2], arguments[3], arguments[4], arguments[5]);
}

}  // extern "C"

namespace {

PassRequest request_of(const RuntimeDescription& description, const std::vector<uint32_t>& tokens, uint32_t position) {
  PassRequest request = make_request(tokens, position, 0);
  request.ropes.clear();
  for (const uint32_t dim : description.rope_dims) {
    RopeTable& rope = request.ropes.emplace_back();
    for (uint32_t i = 0; i < dim / 2; ++i) rope.inverse_frequencies.push_back(std::pow(1e4f, -2.0f * i / dim));
  }
  return request;
}

PassRequest prompt_of(const RuntimeDescription& description) {
  return request_of(description, {3, 100, 17, 17, 0, 108, 42, 50, 99, 1, 77}, 0);
}

std::vector<float> conversation(Loaded& model, const RuntimeDescription& description) {
  std::vector<float> all = model.logits(prompt_of(description), true);
  for (uint32_t position = 11; position < 14; ++position) {
    const std::vector<float> next = model.logits(request_of(description, {position * 7}, position), false);
    all.insert(all.end(), next.begin(), next.end());
  }
  return all;
}

// What a system or a sandbox refuses is done another way, and the reason is told.
void test_refusals(const RuntimeDescription& description, const std::vector<float>& expected) {
  {
    Loaded model(description);
    check(equal(conversation(model, description), expected), "other bits by pread");
    const RuntimeStats stats = model.runtime.stats();
    check(stats.reader == "pread" && stats.reader_reason.find("io_uring_setup was refused") == 0, "reader: " + stats.reader_reason);
    check(stats.reader_reason.find("errno " + std::to_string(EPERM)) != std::string::npos, "the kernel's reason: " + stats.reader_reason);
  }
  for (const bool at_open : {true, false}) {
    (at_open ? refuse_direct_open : refuse_direct_read) = true;
    Loaded model(description);
    check(equal(conversation(model, description), expected), "other bits through the page cache");
    const std::string reason = model.runtime.stats().buffered_reason;
    const std::string what = at_open ? "refuses O_DIRECT" : "a direct read of " + description.files.back().path + " failed";
    check(reason.find(what) != std::string::npos && reason.find(description.files.back().path) != std::string::npos, "reason: " + reason);
    refuse_direct_open = refuse_direct_read = false;
  }
}

// Reads come back with less than was asked for, are interrupted, or are asked to come again.
void test_short_reads(const RuntimeDescription& description, const std::vector<float>& expected, bool direct) {
  refuse_direct_open = !direct;
  Loaded model(description);
  std::mt19937 random(5);
  faults.set([&](uint64_t number, int64_t bytes) -> int64_t {
    if (number % 7 == 3) return -EINTR;
    if (number % 11 == 5) return -EAGAIN;
    const int64_t unit = direct ? static_cast<int64_t>(kPageBytes) : 1;
    return std::max(unit, static_cast<int64_t>(random()) % (bytes / unit + 1) * unit);
  });
  for (int round = 0; round < 3; ++round) check(equal(conversation(model, description), expected), "other bits by short reads");
  faults.set(nullptr);
  refuse_direct_open = false;
}

// A read fails, of any stage: the pass says so, and the next one is as if it had never been.
void test_failing_reads(const RuntimeDescription& description, const std::vector<float>& expected) {
  Loaded model(description);
  uint64_t failing = 0;
  for (bool reached = true; reached; failing = failing * 5 / 4 + 1) {
    reached = false;
    faults.set([&](uint64_t number, int64_t bytes) -> int64_t {
      if (number != failing) return bytes;
      reached = true;
      return -EIO;
    });
    const Failure failure = failure_of([&] { conversation(model, description); });
    faults.set(nullptr);
    // It may also have been one of the next pass, ahead of its time.
    if (failure.code.empty()) model.player.recover();
    check(failure.code.empty() || (failure.code == "IO_ERROR" && failure.has("errno 5") && failure.has(" at byte ")), failure.message);
    check(reached || failure.code.empty(), "no read failed");
    check(equal(conversation(model, description), expected), "other bits after a read that failed");
  }
  check(failing > 20, "reads of a conversation");
}

double processor_seconds() {
  timespec time{};
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &time);
  return static_cast<double>(time.tv_sec) + 1e-9 * static_cast<double>(time.tv_nsec);
}

// Reads stall: everybody sleeps meanwhile, and the logits are right.
void test_stall(const RuntimeDescription& description, const std::vector<float>& expected) {
  Loaded model(description);
  for (const uint64_t number : {0, 5}) {
    faults.stall_from(number);
    std::future<std::vector<float>> logits = std::async(std::launch::async, [&] { return conversation(model, description); });
    faults.wait_until_stalled();
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
    const double before = processor_seconds();
    std::this_thread::sleep_for(std::chrono::milliseconds(600));
    check(processor_seconds() - before < 0.3, "somebody looks again and again");
    faults.resume();
    check(equal(logits.get(), expected), "other bits after a stall");
  }
}

// The pass ends although the read of its data does not; once that returns, the next pass is as on a new model.
void test_cancelled_stall(RuntimeDescription description, const std::vector<float>& expected) {
  // Rows of the embedding would be read by the pass itself.
  hold(description, description.stages.back(), true);
  Loaded model(description);
  check(equal(conversation(model, description), expected), "other bits before a stall");
  for (const bool destroyed : {false, true}) {
    faults.stall_from(destroyed ? 0 : 3);
    std::vector<float> logits(description.vocab_size);
    PassRequest request = prompt_of(description);
    request.logits = logits.data();
    std::future<PassResult> pass = model.player.start(request);
    faults.wait_until_stalled();
    model.runtime.cancel();
    pass.wait();
    check(faults.stalled() > 0, "the pass ended before the stall did");
    std::thread later([] {
      std::this_thread::sleep_for(std::chrono::milliseconds(50));
      faults.resume();
    });
    if (destroyed) {
      later.detach();
      return;
    }
    check(failure_of([&] { model.player.finish(std::move(pass)); }).code == "ABORTED", "the pass that was aborted");
    later.join();
    check(equal(conversation(model, description), expected), "other bits after an abort in a stall");
  }
}

void test_model(RuntimeDescription description, bool routed) {
  give_ring(description, 2 * largest_chunk(description));
  description.expert_ring_bytes = 2 * largest_chunk(description, true);
  refuse_uring = false;
  std::vector<float> expected;
  {
    Loaded model(description);
    expected = conversation(model, description);
  }
  refuse_uring = true;
  test_refusals(description, expected);
  for (const bool direct : {true, false}) test_short_reads(description, expected, direct);
  test_failing_reads(description, expected);
  test_stall(description, expected);
  // Experts are read by the pass itself.
  if (!routed) test_cancelled_stall(description, expected);
}

}  // namespace

int main() {
  const TemporaryDirectory tied, latent;
  test_model(write_model(tied.path(), true), false);
  test_model(write_latent(latent.path()), true);
  printf("read_faults_test: %d checks passed\n", checks.load());
}

#else

int main() { printf("read_faults_test: only on Linux\n"); }

#endif
