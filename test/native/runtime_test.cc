// The streaming runtime on a small model: the same bits wherever the weights live, and what happens when a pass is
// aborted, a file shrinks, or the runtime goes away.
#include <cstdio>
#include <string>

#include "loaded_model.h"
#include "synthetic_model.h"

using namespace synthetic;
namespace filesystem = std::filesystem;

namespace {

const std::vector<uint32_t> kPrompt = {3, 500, 17, 17, 0, 508, 42, 250, 99, 1, 77};

// A prompt, a pass whose logits nobody wants, and decoding.
std::vector<float> conversation(Loaded& model) {
  std::vector<float> all = model.logits(make_request(kPrompt, 0, 0), true);
  model.player.run(make_request({5, 6, 7}, 11, 0));
  for (uint32_t position = 14; position < 17; ++position) {
    const std::vector<float> next = model.logits(make_request({position * 29}, position, 0), false);
    all.insert(all.end(), next.begin(), next.end());
  }
  return all;
}

void hold_mask(RuntimeDescription& description, uint32_t mask) {
  for (uint32_t index = 0; index < description.stages.size(); ++index) hold(description, description.stages[index], (mask >> index & 1) != 0);
}

std::string name_of(const RuntimeDescription& description, uint32_t mask) {
  return description.device + ", held " + std::to_string(mask) + ", ring " + std::to_string(description.ring_bytes) + ", chunks of " +
         std::to_string(description.chunk_bytes) + ", threads " + std::to_string(description.threads);
}

// Every row of every matrix is in exactly one piece, in order, inside whole pages of its chunk.
void check_chunks(Stage stage, uint64_t chunk_bytes) {
  cut_into_chunks(stage, chunk_bytes);
  uint32_t matrix = 0, row = 0;
  uint64_t known_end = 0;
  for (const Chunk& chunk : stage.chunks) {
    check(chunk.offset % kPageBytes == 0 && chunk.length % kPageBytes == 0 && chunk.length > 0, "whole pages");
    check(chunk.shared == (known_end > chunk.offset ? known_end - chunk.offset : 0) && chunk.shared < chunk.length, "shared page");
    known_end = chunk.offset + chunk.length;
    uint64_t largest_row = 0;
    for (const Piece& piece : chunk.pieces) {
      const Matrix& source = stage.matrices[piece.matrix];
      check(piece.matrix == matrix && piece.row_begin == row && piece.row_end > row, "rows in order");
      check(chunk.offset + piece.offset == source.offset + row * source.row_bytes, "place of a row");
      check(piece.offset + (piece.row_end - row) * source.row_bytes <= chunk.length, "rows inside the chunk");
      largest_row = std::max(largest_row, source.row_bytes);
      row = piece.row_end;
      if (row < source.rows) continue;
      row = 0;
      ++matrix;
    }
    check(chunk.length <= std::max(chunk_bytes, largest_row) + 2 * kPageBytes, "size of a chunk");
  }
  check(matrix == stage.matrices.size() && row == 0, "all rows");
  check(stage.extent_offset + stage.extent_bytes == known_end, "extent");
}

void test_chunks() {
  std::mt19937 random(5);
  for (int round = 0; round < 2000; ++round) {
    Stage stage;
    uint64_t offset = kPageBytes * (1 + random() % 3);
    for (uint32_t count = 1 + random() % 5; count > 0; --count) {
      const uint32_t columns = 1 + random() % (random() % 4 == 0 ? 9000 : 300);
      const uint32_t rows = 1 + random() % (random() % 4 == 0 ? 3000 : 40);
      stage.matrices.push_back({.format = Format::kBF16, .rows = rows, .columns = columns, .row_bytes = 2 * columns, .offset = offset});
      offset += uint64_t{rows} * 2 * columns + random() % 2 * (random() % 5000);
    }
    check_chunks(stage, kPageBytes << (random() % 8));
  }
  Stage tall;
  tall.matrices.push_back({.format = Format::kF32, .rows = UINT32_MAX, .columns = 1, .row_bytes = 4, .offset = kPageBytes});
  check_chunks(tall, uint64_t{3} << 30);
  check_chunks(tall, uint64_t{1} << 50);
}

std::vector<float> reference(RuntimeDescription description) {
  hold_mask(description, UINT32_MAX);
  Loaded model(description);
  const std::vector<float> logits = conversation(model);
  for (const float logit : logits) check(std::isfinite(logit) && logit != -1.0f, "a logit was not written");
  check(!equal({logits.begin(), logits.begin() + kVocab}, {logits.begin() + kVocab, logits.begin() + 2 * kVocab}), "tokens matter");
  return logits;
}

// The thread sanitizer takes minutes for small chunks, and sees the same threads meet with others.
#if defined(__SANITIZE_THREAD__)
const std::vector<uint64_t> kChunkBytes = {10000, 1 << 20};
#else
const std::vector<uint64_t> kChunkBytes = {4096, 10000, 65536, 1 << 20};
#endif

void test_same_bits(const RuntimeDescription& base, const std::vector<float>& expected) {
  uint32_t number = 0;
  for (const char* device : {"cpu", "cpu-discrete"}) {
    for (const uint64_t chunk_bytes : kChunkBytes) {
      for (const uint32_t mask : {0u, UINT32_MAX, 0b01010101u, 0b00000110u, 0b10000001u, 0b01111110u}) {
        RuntimeDescription description = base;
        description.device = device;
        description.chunk_bytes = chunk_bytes;
        hold_mask(description, mask);
        description.threads = 1 + number % 3;
        const uint64_t chunk = largest_chunk(description);
        const uint64_t rings[] = {chunk, chunk + 4096, 2 * chunk + 100, 3 * chunk, 5 * chunk + 4096, 4 << 20};
        give_ring(description, rings[number++ % std::size(rings)]);
        Loaded model(description);
        check(equal(conversation(model), expected), "other bits: " + name_of(description, mask));
        check(equal(conversation(model), expected), "other bits the second time: " + name_of(description, mask));

        PassResult result;
        model.logits(make_request({1}, 0, 0), false, &result);
        check(result.bytes_taken == streamed_bytes(description), "bytes of a pass: " + name_of(description, mask));
        for (uint32_t stage = 0; stage < description.stages.size(); ++stage) {
          check(model.runtime.loaded(stage), "held stages are loaded");
        }
      }
    }
  }
}

// A tier for each chunk: `percent` of them are held, in one of the tiers that the device has.
std::vector<std::vector<uint8_t>> random_tiers(const RuntimeDescription& description, uint32_t percent, std::mt19937& random) {
  const bool unified = description.device == "cpu";
  std::vector<std::vector<uint8_t>> tiers;
  for (size_t index = 0; index < description.stages.size(); ++index) {
    Stage stage = description.stages[index];
    cut_into_chunks(stage, description.chunk_bytes);
    tiers.emplace_back(stage.chunks.size());
    const auto draw = [&] { return static_cast<uint8_t>(draw_tier(random, percent, unified)); };
    if (gathered(description, index)) std::ranges::fill(tiers.back(), draw());
    else std::ranges::generate(tiers.back(), draw);
  }
  return tiers;
}

// Chunks are held one by one, and what is held changes between passes: the same bits, and no byte read in vain.
void test_held_chunks(const RuntimeDescription& base, const std::vector<float>& expected) {
  std::mt19937 random(11);
  for (const char* device : {"cpu", "cpu-discrete"}) {
    for (const uint64_t chunk_bytes : {4096u, 10000u, 40000u}) {
      RuntimeDescription description = base;
      description.device = device;
      description.chunk_bytes = chunk_bytes;
      give_ring(description, 3 * largest_chunk(description));
      Loaded model(description);
      for (const uint32_t percent : {50, 20, 90, 0, 70, 100, 0, 50}) {
        const std::vector<std::vector<uint8_t>> tiers = random_tiers(description, percent, random);
        for (size_t stage = 0; stage < tiers.size(); ++stage) description.stages[stage].held_chunks = tiers[stage];
        const bool ring = percent < 100 || !model.runtime.unified();
        const uint64_t chunk = largest_chunk(description);
        model.player.set_held(tiers, {.staging = ring ? (1 + random() % 3) * chunk : 0, .slots = (1 + random() % 3) * chunk});
        const std::string name = name_of(description, percent);
        check(equal(conversation(model), expected), "other bits, percent: " + name);
        PassResult result;
        model.logits(make_request({1}, 0, 0), false, &result);
        check(result.bytes_taken == streamed_bytes(description), "bytes of a pass, percent: " + name);
        for (uint32_t stage = 0; stage < tiers.size(); ++stage) check(model.runtime.loaded(stage), "held chunks are loaded");
      }
      const std::vector<std::vector<uint8_t>> none(description.stages.size());
      const std::vector<uint8_t> no_tier(description.stages[2].held_chunks.size(), model.runtime.unified() ? 2 : 3);
      for (const std::vector<uint8_t>& wrong : {std::vector<uint8_t>{1}, std::vector<uint8_t>(1000, 1), no_tier}) {
        std::vector<std::vector<uint8_t>> tiers = none;
        tiers[2] = wrong;
        check(failure_of([&] { model.player.set_held(tiers, {.staging = 1 << 20}); }).code == "INTERNAL", "tiers that do not fit");
        model.player.recover();
      }
      check(equal(conversation(model), expected), "other bits after tiers that were refused");
    }
  }
}

// Registers and pages of the cache are committed for what passes need, and given back between them: the same bits.
void test_working_memory(const RuntimeDescription& base, const std::vector<float>& expected) {
  const auto tokens = static_cast<uint32_t>(kPrompt.size());
  for (const char* device : {"cpu", "cpu-discrete"}) {
    RuntimeDescription description = base;
    description.device = device;
    give_ring(description, 3 * largest_chunk(description));
    Loaded model(description);
    std::vector<uint8_t> pages(description.page_count, 0);
    for (uint32_t page = 0; page * description.page_positions < 20; ++page) pages[page] = 1;
    const std::vector<uint8_t> none(description.page_count, 0), all(description.page_count, 1);
    for (const uint32_t most : {tokens, description.max_tokens, tokens + 1}) {
      model.runtime.set_working_memory(1, none, description.kv_layers);
      check(failure_of([&] { model.player.run(make_request({5, 6}, 0, 0)); }).code == "INTERNAL", "a pass that has no room");
      model.player.recover();
      model.runtime.set_working_memory(most, most == tokens ? pages : all, description.kv_layers);
      check(equal(conversation(model), expected), "other bits with room for " + std::to_string(most) + " tokens");
    }
    for (const uint32_t wrong : {0u, description.max_tokens + 1}) {
      const Failure failure = failure_of([&] { model.runtime.set_working_memory(wrong, all, description.kv_layers); });
      check(failure.code == "INTERNAL", "room for that many tokens");
    }
    check(failure_of([&] { model.runtime.set_working_memory(1, {}, description.kv_layers); }).code == "INTERNAL", "flags of no pages");
  }
}

// Several sequences in one pass: each as if it were alone.
void test_segments(RuntimeDescription description) {
  give_ring(description, 3 * largest_chunk(description));
  Loaded model(description);
  const std::vector<float> first = model.logits(make_request({9, 8, 7, 6}, 0, 0), false);
  const std::vector<float> second = model.logits(make_request({100, 200, 300}, 0, 4), false);
  PassRequest both = make_request({9, 8, 7, 6}, 0, 2);
  const PassRequest other = make_request({100, 200, 300}, 0, 6);
  both.tokens.insert(both.tokens.end(), other.tokens.begin(), other.tokens.end());
  both.segments.push_back(other.segments[0]);
  const std::vector<float> together = model.logits(both, false);
  check(equal({together.begin(), together.begin() + kVocab}, first), "first of two sequences");
  check(equal({together.begin() + kVocab, together.end()}, second), "second of two sequences");
}

// An abort at any moment: the pass ends, and after a reset everything is as new.
void test_cancel(RuntimeDescription description, const std::vector<float>& expected) {
  hold_mask(description, 0b00100010);
  give_ring(description, 2 * largest_chunk(description));
  Loaded model(description);
  for (int round = 0; round < 40; ++round) {
    model.abort(make_request(kPrompt, 0, 0), std::chrono::microseconds(round * round * 5));
    if (round % 8 == 0) check(equal(conversation(model), expected), "other bits after an abort");
  }
  check(equal(conversation(model), expected), "other bits after many aborts");
}

// A pass that waits for data that nobody reads: only the abort can end it.
void test_cancel_while_waiting(RuntimeDescription description) {
  give_ring(description, 4 * largest_chunk(description));
  Runtime runtime(description);
  use_all_memory(runtime, description);
  runtime.set_idle(false);
  std::promise<std::string> code;
  std::vector<float> logits(kVocab);
  PassRequest request = make_request({1, 2}, 0, 0);
  request.logits = logits.data();
  runtime.run_pass(request, [&](PassResult, std::exception_ptr error) {
    code.set_value(failure_of([&] {
      if (error) std::rethrow_exception(error);
    }).code);
  });
  check(failure_of([&] { runtime.run_pass(request, nullptr); }).code == "INTERNAL", "two passes at once");
  runtime.cancel();
  check(code.get_future().get() == "ABORTED", "the pass that waited");
  check(runtime.read_tape() == Tape::Status::kCancelled, "reads after an abort");
}

void test_truncated_file(const filesystem::path& directory, const RuntimeDescription& base, const std::vector<float>& expected) {
  const filesystem::path file = directory / "layer-1";
  const uint64_t size = filesystem::file_size(file);
  for (const uint32_t mask : {0u, 0b00011000u}) {
    for (const uint64_t length : {size / 2 / kPageBytes * kPageBytes, size / 2 | 1, uint64_t{0}}) {
      RuntimeDescription description = base;
      hold_mask(description, mask);
      give_ring(description, 3 * largest_chunk(description));
      filesystem::copy_file(file, directory / "copy", filesystem::copy_options::overwrite_existing);
      Loaded model(description);
      if (mask == 0) check(equal(conversation(model), expected), "before the file shrinks");
      filesystem::resize_file(file, length);
      // What was read ahead is still good: one pass may succeed, the next cannot.
      const Failure failure = failure_of([&] {
        for (int pass = 0; pass < 2; ++pass) model.logits(make_request({1}, 0, 0), false);
      });
      check(failure.code == "IO_ERROR" && failure.message.find(file.string()) != std::string::npos, "shrunk: " + failure.message);
      // The same file, not another of that name: it is still open.
      {
        std::ifstream source(directory / "copy", std::ios::binary);
        std::ofstream(file, std::ios::binary | std::ios::in) << source.rdbuf();
      }
      // What was read meanwhile is not known: the model must be loaded again.
      const Failure changed = failure_of([&] { model.logits(make_request({1}, 0, 0), false); });
      check(changed.code == "STORE_CORRUPT" && changed.message.find(file.string()) != std::string::npos, "changed: " + changed.message);
      Loaded again(description);
      check(equal(conversation(again), expected), "after the file is whole again");
    }
  }
  RuntimeDescription description = base;
  give_ring(description, 3 * largest_chunk(description));
  Loaded model(description);
  filesystem::resize_file(directory / "embed", kPageBytes);
  const Failure failure = failure_of([&] { model.logits(make_request({508}, 0, 0), false); });
  check(failure.code == "IO_ERROR" && failure.message.find("embed") != std::string::npos, "shrunk embedding: " + failure.message);
}

void test_many_passes(RuntimeDescription description) {
  hold_mask(description, 0b00001000);
  give_ring(description, largest_chunk(description) + 4096);
  Loaded model(description);
  const std::vector<float> expected = model.logits(make_request({33}, 0, 0), false);
  for (int pass = 0; pass < 150; ++pass) {
    check(equal(model.logits(make_request({33}, 0, pass % kPages), false), expected), "other bits in pass " + std::to_string(pass));
    // Now and then the readers have the time to fill the ring and pause.
    if (pass % 10 == 0) std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
}

// A reader that is ahead of the pass does not outlast it, although nobody tells the tape that it is idle.
void test_end_of_pass(RuntimeDescription description) {
  for (const bool read_ahead : {true, false}) {
    give_ring(description, 2 * largest_chunk(description));
    description.read_ahead = read_ahead;
    Runtime runtime(description);
    use_all_memory(runtime, description);
    for (int pass = 0; pass < 3; ++pass) {
      runtime.set_idle(false);
      std::promise<bool> good;
      runtime.run_pass(make_request({1}, 0, 0), [&](PassResult, std::exception_ptr error) { good.set_value(error == nullptr); });
      Tape::Status status;
      std::future<bool> done = good.get_future();
      // It may also have found the tape still idle.
      do status = runtime.read_tape();
      while (status == Tape::Status::kPaused && done.wait_for(std::chrono::seconds(0)) != std::future_status::ready);
      check(status == Tape::Status::kPaused && done.get(), "the pass");
    }
    const uint64_t ahead = runtime.stats().reads.bytes_read;
    check(runtime.read_tape() == Tape::Status::kPaused && runtime.stats().reads.bytes_read == ahead, "a full ring");
  }
}

// As in the addon: whoever leaves last destroys, and that may be the reader.
void test_destroy(RuntimeDescription description) {
  give_ring(description, largest_chunk(description));
  for (int round = 0; round < 20; ++round) {
    auto runtime = std::make_shared<Runtime>(description);
    runtime->set_idle(round % 2 == 0);
    std::thread reader([runtime]() mutable {
      const Tape::Status status = runtime->read_tape();
      check(status != Tape::Status::kDone, "a reader that cannot end but by an abort or a pause");
      runtime.reset();
    });
    for (int i = 0; i < round * 10; ++i) std::this_thread::yield();
    runtime->cancel();
    runtime.reset();
    reader.join();
  }
}

// Who reads a tape reads it alone.
void test_one_reader(RuntimeDescription description) {
  give_ring(description, largest_chunk(description));
  Runtime runtime(description);
  runtime.set_idle(false);
  std::atomic<int> refused = 0;
  std::vector<std::thread> readers;
  for (int reader = 0; reader < 3; ++reader) {
    readers.emplace_back([&] {
      if (failure_of([&] { runtime.read_tape(); }).code != "INTERNAL") return;
      if (++refused == 2) runtime.cancel();
    });
  }
  for (std::thread& reader : readers) reader.join();
  check(refused == 2, "two of three readers are refused");
}

size_t open_descriptors() {
#ifdef __linux__
  return static_cast<size_t>(std::distance(filesystem::directory_iterator("/proc/self/fd"), filesystem::directory_iterator()));
#else
  return 0;
#endif
}

// What fails half-way leaves nothing behind. The address sanitizer looks for memory, this for descriptors.
void test_constructor_failures(const RuntimeDescription& base) {
  const size_t descriptors = open_descriptors();
  const auto code = [](const RuntimeDescription& description) { return failure_of([&] { Runtime runtime(description); }).code; };
  for (const char* device : {"cpu", "cpu-discrete"}) {
    RuntimeDescription description = base;
    description.device = device;
    give_ring(description, 1 << 20);
    RuntimeDescription missing = description;
    missing.files.back().path += ".missing";
    check(code(missing) == "IO_ERROR", "a missing file");
    RuntimeDescription longer = description;
    longer.files.back().size += kPageBytes;
    check(code(longer) == "STORE_CORRUPT", "a file that is shorter than its manifest says");
    RuntimeDescription outside = description;
    outside.stages.back().vectors.back().offset = outside.files.back().size;
    check(code(outside) == "STORE_INVALID", "a vector behind the end of its file");
    RuntimeDescription huge = description;
    huge.page_count = UINT32_MAX;
    huge.page_positions = 1 << 16;
    check(code(huge) == "DEVICE_FAILED", "a cache that no memory holds");
    RuntimeDescription disorder = description;
    std::swap(disorder.plans[3], disorder.plans[0]);
    std::get<MatmulStep>(disorder.plans[0][1]).matrix = 1;
    check(code(disorder) == "INTERNAL", "a plan out of order");
  }
  RuntimeDescription unknown = base;
  unknown.device = "abacus";
  check(code(unknown) == "DEVICE_UNAVAILABLE", "an unknown device");
  check(open_descriptors() == descriptors, "descriptors are left open");
}

void test_ring_too_small(RuntimeDescription description) {
  for (const uint64_t ring_bytes : {uint64_t{0}, largest_chunk(description) - 1}) {
    give_ring(description, ring_bytes);
    Loaded model(description);
    const Failure failure = failure_of([&] { model.logits(make_request({1}, 0, 0), false); });
    check(failure.code == "INTERNAL", "a ring of " + std::to_string(ring_bytes) + " bytes: " + failure.code);
  }
}

}  // namespace

int main() {
  test_chunks();
  const TemporaryDirectory tied_directory;
  const RuntimeDescription tied = write_model(tied_directory.path(), true);
  test_same_bits(tied, reference(tied));

  const TemporaryDirectory directory;
  const RuntimeDescription description = write_model(directory.path(), false);
  const std::vector<float> expected = reference(description);
  test_same_bits(description, expected);
  test_held_chunks(tied, reference(tied));
  test_held_chunks(description, expected);
  test_working_memory(description, expected);
  test_segments(description);
  test_cancel(description, expected);
  test_cancel_while_waiting(description);
  test_many_passes(description);
  test_end_of_pass(description);
  test_destroy(description);
  test_one_reader(description);
  test_constructor_failures(description);
  test_ring_too_small(description);
  test_truncated_file(directory.path(), description, expected);
  printf("runtime_test: %d checks passed\n", checks.load());
}
