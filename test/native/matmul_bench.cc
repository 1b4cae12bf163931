// Rates of the matrix products: one token against the memory bandwidth measured around it, prompts in GFLOP/s.
// LAYERSTREAM_SIMD picks the instruction set; LAYERSTREAM_FORMAT measures one format only, LAYERSTREAM_ONE_TOKEN=1 no
// prompts.
#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <thread>
#include <vector>

#if defined(__linux__)
#include <sys/mman.h>
#endif

#include "../../native/cpu/kernels.h"
#include "reference_weights.h"

using namespace layerstream;
using namespace layerstream::cpu;

namespace {

constexpr size_t kBufferBytes = size_t{640} << 20;  // far more than any cache
constexpr uint32_t kRows = 4096;
constexpr uint32_t kColumns = 14336;

uint8_t* allocate_huge(size_t bytes) {
  constexpr size_t kHugePage = size_t{2} << 20;
  void* memory = std::aligned_alloc(kHugePage, (bytes + kHugePage - 1) / kHugePage * kHugePage);
  if (memory == nullptr) exit(1);
#if defined(__linux__)
  madvise(memory, bytes, MADV_HUGEPAGE);
#endif
  return static_cast<uint8_t*>(memory);
}

// Seconds of `work(thread)` run by all threads at once: the fastest of `repeats`, because machines are rarely idle.
double seconds(uint32_t threads, int repeats, const std::function<void(uint32_t)>& work) {
  double fastest = 1e9;
  for (int i = 0; i < repeats; ++i) {
    std::atomic<uint32_t> ready{0};
    std::chrono::steady_clock::time_point start;
    std::vector<std::thread> workers;
    for (uint32_t t = 0; t < threads; ++t) {
      workers.emplace_back([&, t] {
        if (ready.fetch_add(1) + 1 == threads) start = std::chrono::steady_clock::now();
        while (ready.load() < threads) {
        }
        work(t);
      });
    }
    for (std::thread& worker : workers) worker.join();
    fastest = std::min(fastest, std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count());
  }
  return fastest;
}

std::atomic<uint64_t> sink;

double read_rate(const uint8_t* buffer, uint32_t threads) {
  const size_t words = kBufferBytes / sizeof(uint64_t) / threads;
  const double time = seconds(threads, 9, [&](uint32_t thread) {
    const uint64_t* data = reinterpret_cast<const uint64_t*>(buffer) + thread * words;
    uint64_t sums[16] = {};
    for (size_t i = 0; i < words; i += 16) {
      for (size_t k = 0; k < 16; ++k) sums[k] += data[i + k];
    }
    uint64_t total = 0;
    for (const uint64_t value : sums) total += value;
    sink += total;
  });
  return static_cast<double>(words * threads * sizeof(uint64_t)) / time / 1e9;
}

// The usual number of columns that share a scale.
uint32_t usual_block(Format format) {
  const FormatTraits& traits = traits_of(format);
  if (traits.blocks == Blocks::kMultiple) return 128;
  if (traits.blocks == Blocks::kEscapes) return kColumns / 40;
  return traits.block == 0 ? 64 : traits.block;
}

// As many copies of a matrix of random rows as the buffer holds.
size_t fill(uint8_t* buffer, Format format) {
  const size_t bytes = row_bytes(format, kColumns, usual_block(format));
  const size_t rows = kBufferBytes / bytes / kRows * kRows;
  RandomRows random(1);
  std::vector<uint8_t> row(bytes);
  random.fill(format, row.data(), kColumns, usual_block(format));
  for (size_t r = 0; r < rows; ++r) std::memcpy(buffer + r * bytes, row.data(), bytes);
  return rows;
}

struct Worker {
  std::vector<float> output, scratch;
};

// The input as a fast kernel wants it.
struct Prepared {
  const FastKernels* kernels;  // null: exact
  uint8_t* input = nullptr;

  Prepared(const FastKernels* fast, Format format, const std::vector<float>& values, uint32_t tokens) : kernels(fast) {
    if (kernels == nullptr) return;
    const uint32_t block = usual_block(format);
    input = allocate_huge(kernels->prepared_bytes(format, block, kColumns, tokens));
    MatmulArgs args{};
    args.columns = kColumns;
    args.block = block;
    args.input = values.data();
    args.input_stride = kColumns;
    args.tokens = tokens;
    kernels->prepare(format, args, 0, tokens, input);
  }
  ~Prepared() { std::free(input); }
  Prepared(const Prepared&) = delete;
  Prepared& operator=(const Prepared&) = delete;
};

// Multiplies `rows` rows of the buffer, in parts that threads take in turn.
double multiply_seconds(const KernelTable& kernels, Format format, const uint8_t* buffer, size_t rows,
                        const std::vector<float>& input, uint32_t tokens, uint32_t threads, int repeats,
                        const FastKernels* fast) {
  const Prepared prepared(fast, format, input, tokens);
  constexpr uint32_t kPartRows = 512;
  const size_t bytes = row_bytes(format, kColumns, usual_block(format));
  std::vector<Worker> workers(threads);
  for (Worker& worker : workers) {
    worker.output.resize(size_t{kPartRows} * tokens);
    const size_t fast_floats = fast == nullptr ? 0 : fast->scratch_bytes(format, usual_block(format), kColumns, tokens) / sizeof(float);
    worker.scratch.resize(std::max(matmul_scratch_floats(kColumns, tokens), fast_floats) + 16);
  }
  std::atomic<size_t> next{0};
  std::atomic<uint32_t> finished{0};
  return seconds(threads, repeats, [&](uint32_t thread) {
    Worker& worker = workers[thread];
    for (size_t row = next.fetch_add(kPartRows); row < rows; row = next.fetch_add(kPartRows)) {
      MatmulArgs args{};
      args.weight = buffer + row * bytes;
      args.row_bytes = bytes;
      args.rows = kPartRows;
      args.columns = kColumns;
      args.block = usual_block(format);
      args.input = input.data();
      args.input_stride = kColumns;
      args.output = worker.output.data();
      args.output_stride = kPartRows;
      args.tokens = tokens;
      args.scratch = worker.scratch.data();
      if (fast != nullptr) {
        fast->multiply(format, args, prepared.input);
      } else {
        kernels.matmul[static_cast<size_t>(format)](args);
      }
    }
    if (finished.fetch_add(1) + 1 == threads) {
      finished = 0;
      next = 0;
    }
  });
}

}  // namespace

int main() {
  const KernelTable& kernels = best_kernels();
  const char* const only = std::getenv("LAYERSTREAM_FORMAT");
  const auto skipped = [&](Format format) { return only != nullptr && traits_of(format).name != std::string_view(only); };
  uint8_t* const buffer = allocate_huge(kBufferBytes);
  std::vector<float> input(size_t{512} * kColumns);
  for (size_t i = 0; i < input.size(); ++i) input[i] = static_cast<float>(i % 17) * 0.125f - 1.0f;
  std::memset(buffer, 1, kBufferBytes);

  const auto ways = [](const FastKernels* fast, Format format) {
    std::vector<const FastKernels*> ways = {nullptr};
    if (fast != nullptr && fast->supports(format, usual_block(format), kColumns)) ways.push_back(fast);
    return ways;
  };
  printf("%s, %u x %u weights\n", kernels.name, kRows, kColumns);
  printf("one token    precision threads  weights GB/s  read GB/s before/after  fraction\n");
  for (uint32_t f = 0; f < kFormatCount; ++f) {
    const Format format = static_cast<Format>(f);
    if (skipped(format)) continue;
    const size_t rows = fill(buffer, format);
    for (const FastKernels* fast : ways(kernels.fast.vector, format)) {
      for (uint32_t threads = 1; threads <= 2; ++threads) {
        const double before = read_rate(buffer, threads);
        const double time = multiply_seconds(kernels, format, buffer, rows, input, 1, threads, 9, fast);
        const double after = read_rate(buffer, threads);
        const double rate = static_cast<double>(rows * row_bytes(format, kColumns, usual_block(format))) / time / 1e9;
        printf("%-12s %-9s %7u  %12.1f  %10.1f / %-10.1f  %8.2f\n", traits_of(format).name, fast ? "fast" : "exact", threads,
               rate, before, after, rate / std::max(before, after));
      }
    }
  }
  if (std::getenv("LAYERSTREAM_ONE_TOKEN") != nullptr) return 0;
  printf("prompts      precision threads  GFLOP/s of 2, 8, 64 and 512 tokens\n");
  for (uint32_t f = 0; f < kFormatCount; ++f) {
    const Format format = static_cast<Format>(f);
    if (skipped(format)) continue;
    fill(buffer, format);
    for (const FastKernels* fast : ways(kernels.fast.matrix, format)) {
      for (uint32_t threads = 1; threads <= 2; ++threads) {
        printf("%-12s %-9s %7u", traits_of(format).name, fast ? "fast" : "exact", threads);
        for (const uint32_t tokens : {2u, 8u, 64u, 512u}) {
          const uint32_t rows = tokens == 512 ? kRows / 4 : kRows;
          const double time = multiply_seconds(kernels, format, buffer, rows, input, tokens, threads, 3, fast);
          printf("  %6.1f", 2.0 * rows * kColumns * tokens / time / 1e9);
        }
        printf("\n");
      }
    }
  }
  std::free(buffer);
  return 0;
}
