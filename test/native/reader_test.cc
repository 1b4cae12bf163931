// Readers: the same bytes by io_uring and by pread, short and interrupted reads continued, errors that say where.
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <functional>
#include <random>
#include <string>
#include <vector>

#include "../../native/io/reader.h"
#include "../../native/platform/error.h"
#include "../../native/platform/memory.h"
#include "failure.h"
#include "temporary_directory.h"

using namespace layerstream;
namespace filesystem = std::filesystem;

namespace {

int checks = 0;

void check(bool condition, const std::string& what, size_t where = 0) {
  checks++;
  if (condition) return;
  fprintf(stderr, "reader_test: %s (at %zu)\n", what.c_str(), where);
  exit(1);
}

std::vector<uint8_t> random_bytes(size_t count) {
  std::mt19937_64 random(7);
  std::vector<uint8_t> bytes(count);
  for (uint8_t& byte : bytes) byte = static_cast<uint8_t>(random());
  return bytes;
}

void write_file(const std::string& path, const std::vector<uint8_t>& bytes) {
  std::ofstream stream(path, std::ios::binary);
  stream.write(reinterpret_cast<const char*>(bytes.data()), static_cast<std::streamsize>(bytes.size()));
  check(stream.good(), "writing " + path);
}

std::vector<std::pair<const char*, std::unique_ptr<Reader>>> readers(uint32_t depth) {
  std::vector<std::pair<const char*, std::unique_ptr<Reader>>> list;
  std::string reason;
  list.emplace_back("pread", make_pread_reader(depth));
  list.emplace_back("io_uring", make_uring_reader(depth, &reason));
  check((list.back().second == nullptr) == !reason.empty(), "a missing io_uring has a reason, a present one none");
  if (!list.back().second) {
    printf("reader_test: without io_uring: %s\n", reason.c_str());
    list.pop_back();
  }
  return list;
}

// Many reads in flight, of any page-aligned place and length.
void test_same_bytes(const TemporaryDirectory& directory) {
  const std::vector<uint8_t> content = random_bytes(513 * kPageBytes);
  const std::string path = directory.file("content");
  write_file(path, content);
  const WeightFile file(path, content.size());
  check(file.direct() == file.buffered_reason().empty(), "a reason for buffered reads");
  constexpr uint32_t kDepth = 5;
  for (auto& [name, reader] : readers(kDepth)) {
    std::mt19937 random(3);
    Arena memory(kDepth * 64 * kPageBytes);
    struct Read {
      uint64_t offset = 0, length = 0;
    };
    std::vector<Read> flying(kDepth);
    std::vector<uint64_t> places;
    for (uint64_t place = 0; place < kDepth; ++place) places.push_back(place);
    const auto finish_one = [&] {
      const uint64_t place = reader->wait();
      const Read& read = flying[place];
      check(std::memcmp(memory.data() + place * 64 * kPageBytes, content.data() + read.offset, read.length) == 0, name, read.offset);
      places.push_back(place);
    };
    for (int i = 0; i < 400; ++i) {
      while (reader->full() || (!reader->idle() && random() % 3 == 0)) finish_one();
      const uint64_t place = places.back();
      places.pop_back();
      const uint64_t pages = 1 + random() % 64;
      flying[place] = {random() % (513 - pages + 1) * kPageBytes, pages * kPageBytes};
      uint8_t* destination = memory.data() + place * 64 * kPageBytes;
      std::memset(destination, 0xee, pages * kPageBytes);
      reader->submit({&file, flying[place].offset, flying[place].length, destination, place});
    }
    while (!reader->idle()) finish_one();
  }
}

// A file that became shorter, by pages or by part of one: an error that names it and the byte where it ends.
void test_truncated(const TemporaryDirectory& directory) {
  const uint64_t pages = 16;
  for (const uint64_t length : {uint64_t{0}, 4 * kPageBytes, 4 * kPageBytes + 1, 5 * kPageBytes - 1, 4 * kPageBytes + 512}) {
    const std::string path = directory.file("truncated");
    write_file(path, random_bytes(pages * kPageBytes));
    const WeightFile file(path, pages * kPageBytes);
    filesystem::resize_file(path, length);
    Arena memory(3 * pages * kPageBytes);
    for (auto& [name, reader] : readers(3)) {
      reader->submit({&file, 0, pages * kPageBytes, memory.data(), 1});
      const Failure failure = failure_of([&reader = reader] { reader->wait(); });
      check(failure.code == "IO_ERROR", std::string(name) + ": reading past the end", length);
      check(failure.has(path + " at byte " + std::to_string(length)), failure.message, length);
      check(reader->idle(), "the failed request is over");
      for (uint64_t i = 0; i < 3 && !reader->full(); ++i) {
        reader->submit({&file, 8 * kPageBytes, kPageBytes, memory.data() + i * kPageBytes, i});
      }
      reader->drain();
      check(reader->idle(), "drained");
      if (length < 4 * kPageBytes) continue;
      reader->submit({&file, 0, 4 * kPageBytes, memory.data(), 9});
      check(reader->wait() == 9, "usable after errors");
    }
  }
}

// Serves reads from memory as a script says, and records how it was asked.
class ScriptedReader final : public Reader {
 public:
  struct Call {
    uint64_t offset, length;
    uint8_t* destination;
  };
  ScriptedReader(uint32_t depth, std::vector<int64_t> script) : Reader(depth), script_(std::move(script)) {}
  std::vector<Call> calls;
  static uint8_t byte_at(uint64_t offset) { return static_cast<uint8_t>(offset ^ (offset >> 8)); }

 protected:
  void start(uint32_t slot, int, uint64_t offset, uint64_t length, uint8_t* destination) override {
    calls.push_back({offset, length, destination});
    int64_t result = calls.size() <= script_.size() ? script_[calls.size() - 1] : static_cast<int64_t>(length);
    result = std::min(result, static_cast<int64_t>(length));
    for (int64_t i = 0; i < result; ++i) destination[i] = byte_at(offset + i);
    started_.push_back({slot, result});
  }
  // The last started comes first: completions have no order.
  Completion complete() override {
    check(!started_.empty(), "waiting for a read that was not started");
    const Completion completion = started_.back();
    started_.pop_back();
    return completion;
  }

 private:
  std::vector<int64_t> script_;
  std::vector<Completion> started_;
};

void check_continues(const WeightFile& file) {
  const uint64_t pages = 8;
  const int64_t page = kPageBytes;
  Arena memory(pages * kPageBytes);
  ScriptedReader reader(1, {page + 1, -EINTR, 2 * page - 1, -EAGAIN, 2 * page, page + 4095});
  reader.submit({&file, 3 * kPageBytes, pages * kPageBytes, memory.data(), 42});
  check(reader.full() && reader.wait() == 42 && reader.idle(), "a read in pieces");
  for (uint64_t i = 0; i < pages * kPageBytes; ++i) {
    check(memory.data()[i] == ScriptedReader::byte_at(3 * kPageBytes + i), "bytes of a read in pieces", i);
  }
  for (const ScriptedReader::Call& call : reader.calls) {
    check(call.offset + call.length == (3 + pages) * kPageBytes, "the rest is asked for", call.offset);
    check(call.destination == memory.data() + (call.offset - 3 * kPageBytes), "its place", call.offset);
    if (file.direct()) check(call.offset % kPageBytes == 0, "a direct read must start on a page", call.offset);
  }
  check(reader.calls.size() > 5, "continued", reader.calls.size());

  ScriptedReader failing(2, {page, 2 * page, -EIO});
  failing.submit({&file, 0, 4 * kPageBytes, memory.data(), 1});
  failing.submit({&file, 4 * kPageBytes, 4 * kPageBytes, memory.data() + 4 * kPageBytes, 2});
  // The second request comes first, with two of its four pages, and then fails.
  const Failure failure = failure_of([&] { failing.wait(); });
  check(failure.code == "IO_ERROR" && failure.has(file.path() + " at byte " + std::to_string(6 * kPageBytes)), failure.message);
  check(failure.has("errno 5"), failure.message);
  check(!failing.idle() && !failing.full() && failing.wait() == 1 && failing.idle(), "the other request goes on");

  ScriptedReader ending(1, {2 * page, 0});
  ending.submit({&file, kPageBytes, 4 * kPageBytes, memory.data(), 1});
  const Failure end = failure_of([&] { ending.wait(); });
  check(end.code == "IO_ERROR" && end.has("ends too early") && end.has("at byte " + std::to_string(3 * kPageBytes)), end.message);
}

void test_files(const TemporaryDirectory& directory) {
  const std::string path = directory.file("short");
  write_file(path, std::vector<uint8_t>(100));
  check(WeightFile(path, 100).path() == path, "path");
  const Failure too_short = failure_of([&] { WeightFile(path, 101); });
  check(too_short.code == "STORE_CORRUPT" && too_short.has(path) && too_short.has("100") && too_short.has("101"), too_short.message);
  const Failure missing = failure_of([&] { WeightFile(directory.file("missing"), 0); });
  check(missing.code == "IO_ERROR" && missing.has(directory.file("missing")), missing.message);
  WeightFile first(path, 100);
  const int descriptor = first.descriptor();
  const WeightFile second(std::move(first));
  check(second.descriptor() == descriptor && first.descriptor() == -1, "a file is closed once");
}

void test_directory(const filesystem::path& parent) {
  const TemporaryDirectory directory(parent);
  test_same_bytes(directory);
  test_truncated(directory);
  test_files(directory);
  write_file(directory.file("any"), std::vector<uint8_t>(kPageBytes));
  const WeightFile file(directory.file("any"), kPageBytes);
  check_continues(file);
  printf("reader_test: %s: %s\n", parent.c_str(), file.direct() ? "direct" : file.buffered_reason().c_str());
}

}  // namespace

int main() {
  test_directory(filesystem::temp_directory_path());
#ifdef __linux__
  if (filesystem::exists("/dev/shm")) test_directory("/dev/shm");
  // No file system that is made up on the fly takes direct reads.
  const WeightFile buffered("/proc/version", 0);
  check(!buffered.direct() && !buffered.buffered_reason().empty(), "procfs read directly");
  check_continues(buffered);
#endif
  printf("reader_test: %d checks passed\n", checks);
}
