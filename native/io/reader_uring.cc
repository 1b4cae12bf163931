// io_uring by system calls: no library is needed at build or run time.
#include "reader.h"

#ifdef __linux__

#include <linux/io_uring.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstring>

namespace layerstream {

namespace {

// Lengths have 32 bits here; longer reads come back short and are continued.
constexpr uint64_t kLargestRead = uint64_t{1} << 30;

struct Mapping {
  void* data = MAP_FAILED;
  size_t bytes = 0;
  ~Mapping() {
    if (data != MAP_FAILED) munmap(data, bytes);
  }
  bool map(int descriptor, size_t size, off_t offset) {
    bytes = size;
    data = mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, descriptor, offset);
    return data != MAP_FAILED;
  }
  template <typename T>
  T* at(uint32_t offset) const {
    return reinterpret_cast<T*>(static_cast<uint8_t*>(data) + offset);
  }
};

class UringReader final : public Reader {
 public:
  explicit UringReader(uint32_t depth) : Reader(depth) {}
  ~UringReader() override {
    drain();
    if (descriptor_ >= 0) close(descriptor_);
  }

  bool open(uint32_t depth, std::string* reason) {
    io_uring_params params{};
    descriptor_ = static_cast<int>(syscall(__NR_io_uring_setup, depth, &params));
    if (descriptor_ < 0) {
      if (reason != nullptr) *reason = "io_uring_setup was refused: " + describe_errno(errno);
      return false;
    }
    // Came with Linux 5.6, as IORING_OP_READ did.
    if ((params.features & IORING_FEAT_RW_CUR_POS) == 0) {
      if (reason != nullptr) *reason = "io_uring of this kernel is too old";
      return false;
    }
    const size_t submission_bytes = params.sq_off.array + params.sq_entries * sizeof(uint32_t);
    const size_t completion_bytes = params.cq_off.cqes + params.cq_entries * sizeof(io_uring_cqe);
    if (!submission_.map(descriptor_, submission_bytes, IORING_OFF_SQ_RING) ||
        !completion_.map(descriptor_, completion_bytes, IORING_OFF_CQ_RING) ||
        !entries_.map(descriptor_, params.sq_entries * sizeof(io_uring_sqe), IORING_OFF_SQES)) {
      if (reason != nullptr) *reason = "mapping the io_uring failed: " + describe_errno(errno);
      return false;
    }
    offsets_ = params;
    return true;
  }

 protected:
  void start(uint32_t slot, int descriptor, uint64_t offset, uint64_t length, uint8_t* destination) override {
    std::atomic_ref<uint32_t> tail(*submission_.at<uint32_t>(offsets_.sq_off.tail));
    const uint32_t index = tail.load(std::memory_order_relaxed) & *submission_.at<uint32_t>(offsets_.sq_off.ring_mask);
    io_uring_sqe& entry = entries_.at<io_uring_sqe>(0)[index];
    std::memset(&entry, 0, sizeof entry);
    entry.opcode = IORING_OP_READ;
    entry.fd = descriptor;
    entry.off = offset;
    entry.addr = reinterpret_cast<uint64_t>(destination);
    entry.len = static_cast<uint32_t>(std::min(length, kLargestRead));
    entry.user_data = slot;
    submission_.at<uint32_t>(offsets_.sq_off.array)[index] = index;
    const uint32_t before = tail.load(std::memory_order_relaxed);
    tail.store(before + 1, std::memory_order_release);
    const int error = enter(1, 0);
    if (error == 0) return;
    // The kernel took nothing: this is the read's result, and waiting for another would never end.
    tail.store(before, std::memory_order_release);
    refused_.push_back({slot, -error});
  }

  Completion complete() override {
    if (!refused_.empty()) {
      const Completion completion = refused_.back();
      refused_.pop_back();
      return completion;
    }
    std::atomic_ref<uint32_t> head(*completion_.at<uint32_t>(offsets_.cq_off.head));
    std::atomic_ref<uint32_t> tail(*completion_.at<uint32_t>(offsets_.cq_off.tail));
    const uint32_t next = head.load(std::memory_order_relaxed);
    while (tail.load(std::memory_order_acquire) == next) enter(0, 1);
    const uint32_t mask = *completion_.at<uint32_t>(offsets_.cq_off.ring_mask);
    const io_uring_cqe& entry = completion_.at<io_uring_cqe>(offsets_.cq_off.cqes)[next & mask];
    const Completion completion{static_cast<uint32_t>(entry.user_data), entry.res};
    head.store(next + 1, std::memory_order_release);
    return completion;
  }

 private:
  // 0 or an errno.
  int enter(uint32_t submit, uint32_t wait) {
    for (;;) {
      const long result = syscall(__NR_io_uring_enter, descriptor_, submit, wait, wait > 0 ? IORING_ENTER_GETEVENTS : 0, nullptr, 0);
      if (result >= 0) return 0;
      if (errno != EINTR && errno != EAGAIN && errno != EBUSY) return errno;
    }
  }

  int descriptor_ = -1;
  Mapping submission_, completion_, entries_;
  std::vector<Completion> refused_;
  io_uring_params offsets_{};
};

}  // namespace

std::unique_ptr<Reader> make_uring_reader(uint32_t depth, std::string* reason) {
  auto reader = std::make_unique<UringReader>(depth);
  if (!reader->open(depth, reason)) return nullptr;
  return reader;
}

}  // namespace layerstream

#else

namespace layerstream {

std::unique_ptr<Reader> make_uring_reader(uint32_t, std::string* reason) {
  if (reason != nullptr) *reason = "io_uring exists on Linux only";
  return nullptr;
}

}  // namespace layerstream

#endif
