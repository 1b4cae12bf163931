// Every device that is here beside the device `cpu`, in one run: one token's products in each weight format, prompts, attention,
// and how many small ops a second it takes. LAYERSTREAM_FORMAT measures one format only; LAYERSTREAM_PART one part: vector,
// matrix, attention or launches; LAYERSTREAM_DEVICE one device beside the processor.
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "../../native/backend/measure.h"
#include "reference_weights.h"

using namespace layerstream;

namespace {

using Clock = std::chrono::steady_clock;

constexpr uint32_t kRows = 4096, kColumns = 14336;
constexpr uint64_t kWeightBytes = uint64_t{320} << 20;  // more than any cache holds
constexpr uint32_t kThreads = 2;
constexpr double kSeconds = 0.25;

bool wanted(const char* variable, const std::string& value) {
  const char* const only = std::getenv(variable);
  return only == nullptr || value == only;
}

uint32_t usual_block(Format format) {
  const FormatTraits& traits = traits_of(format);
  if (traits.blocks == Blocks::kMultiple) return 128;
  if (traits.blocks == Blocks::kEscapes) return kColumns / 40;
  return traits.block == 0 ? 64 : traits.block;
}

// A device with a stream; what is allocated lives as long.
class Bench {
 public:
  explicit Bench(const std::string& name)
      : device_(open_device(name, {.threads = kThreads})), stream_(device_->create_stream()), event_(device_->create_event()) {}
  ~Bench() {
    device_->destroy(stream_);
    device_->destroy(event_);
    for (Buffer* buffer : buffers_) device_->free(buffer);
  }
  Bench(const Bench&) = delete;
  Bench& operator=(const Bench&) = delete;

  bool supports(const Op& op) const { return device_->supports(op); }
  Range alloc(uint64_t bytes) {
    buffers_.push_back(device_->alloc(bytes));
    return {buffers_.back(), 0, bytes};
  }
  // The range becomes `content`, over and over.
  void fill(Range range, const std::vector<uint8_t>& content) {
    uint8_t* const pinned = static_cast<uint8_t*>(device_->alloc_pinned(content.size()));
    std::memcpy(pinned, content.data(), content.size());
    for (uint64_t offset = 0; offset < range.size; offset += content.size()) {
      const uint64_t bytes = std::min<uint64_t>(content.size(), range.size - offset);
      device_->upload(stream_, range.at(offset, bytes), pinned);
    }
    finish();
    device_->free_pinned(pinned);
  }
  void finish() {
    device_->record(event_, stream_);
    device_->synchronize(event_);
  }
  // Seconds of the ops, the fastest time.
  double seconds(const std::vector<Op>& ops) {
    double fastest = 1e9;
    const auto run = [&] {
      const auto start = Clock::now();
      for (const Op& op : ops) device_->launch(stream_, {&op, 1});
      finish();
      return std::chrono::duration<double>(Clock::now() - start).count();
    };
    run();
    const auto start = Clock::now();
    do fastest = std::min(fastest, run());
    while (std::chrono::duration<double>(Clock::now() - start).count() < kSeconds);
    return fastest;
  }

 private:
  const std::unique_ptr<Device> device_;
  Stream* const stream_;
  Event* const event_;
  std::vector<Buffer*> buffers_;
};

// Seconds of the product of `tokens` tokens with each of some matrices that together exceed the caches; 0 where the device
// has no kernel.
double multiply_seconds(const std::string& device, Format format, uint32_t tokens, Precision precision) {
  Bench bench(device);
  MatmulOp op{};
  op.format = format;
  op.block = usual_block(format);
  op.row_bytes = row_bytes(format, kColumns, op.block);
  op.rows = tokens > 1 ? kRows / 4 : kRows;
  op.columns = kColumns;
  op.tokens = tokens;
  op.input_stride = kColumns;
  op.output_stride = op.rows;
  op.precision = precision;
  op.many_tokens = tokens > 1;
  if (!bench.supports(op)) return 0;
  const uint64_t bytes = op.rows * op.row_bytes;
  const uint64_t count = tokens > 1 ? 1 : (kWeightBytes + bytes - 1) / bytes;
  const Range weights = bench.alloc(count * bytes);
  op.input = bench.alloc(uint64_t{tokens} * kColumns * sizeof(float));
  op.output = bench.alloc(uint64_t{tokens} * op.rows * sizeof(float));
  std::vector<uint8_t> rows(16 * op.row_bytes);
  reference::RandomRows random(1);
  for (uint32_t row = 0; row < 16; ++row) random.fill(format, rows.data() + row * op.row_bytes, kColumns, op.block);
  bench.fill(weights, rows);
  bench.fill(op.input, std::vector<uint8_t>(kColumns * sizeof(float)));
  std::vector<Op> ops;
  for (uint64_t i = 0; i < count; ++i) {
    op.weight = weights.at(i * bytes, bytes);
    ops.push_back(op);
  }
  return bench.seconds(ops) / static_cast<double>(count);
}

void print_vectors(const std::string& device) {
  printf("one token, GB/s of weights: cpu exact and fast, %s, and its share of the faster\n", device.c_str());
  for (uint32_t index = 0; index < kFormatCount; ++index) {
    const Format format = static_cast<Format>(index);
    if (!wanted("LAYERSTREAM_FORMAT", traits_of(format).name)) continue;
    const double gigabytes = static_cast<double>(kRows * row_bytes(format, kColumns, usual_block(format))) / 1e9;
    const double exact = gigabytes / multiply_seconds("cpu", format, 1, Precision::kExact);
    const double fast = gigabytes / multiply_seconds("cpu", format, 1, Precision::kFast);
    const double seconds = multiply_seconds(device, format, 1, Precision::kFast);
    printf("%-12s %6.2f %6.2f", traits_of(format).name, exact, fast);
    if (seconds == 0) printf("   no kernel\n");
    else printf(" %6.2f %6.2f\n", gigabytes / seconds, gigabytes / seconds / std::max(exact, fast));
    fflush(stdout);
  }
}

void print_matrices(const std::string& device) {
  printf("512 tokens, GFLOP/s: cpu exact and fast, %s\n", device.c_str());
  for (const Format format : {Format::kF32, Format::kBF16, Format::kQ8, Format::kQ4, Format::kQ4K}) {
    if (!wanted("LAYERSTREAM_FORMAT", traits_of(format).name)) continue;
    const double operations = 2.0 * 512 * kRows / 4 * kColumns / 1e9;
    printf("%-12s", traits_of(format).name);
    for (const Precision precision : {Precision::kExact, Precision::kFast}) {
      printf(" %6.1f", operations / multiply_seconds("cpu", format, 512, precision));
    }
    const double seconds = multiply_seconds(device, format, 512, Precision::kFast);
    if (seconds == 0) printf("   no kernel\n");
    else printf(" %6.1f\n", operations / seconds);
    fflush(stdout);
  }
}

// Seconds of `tokens` tokens behind `first_position` others.
double attention_seconds(const std::string& device, KvFormat format, uint32_t tokens, uint32_t first_position) {
  constexpr uint32_t kHeads = 32, kKvHeads = 8, kDim = 128, kPagePositions = 64;
  Bench bench(device);
  const uint64_t block = kv_block_bytes(format, kPagePositions, kDim);
  const uint32_t page_count = (first_position + tokens + kPagePositions - 1) / kPagePositions;
  AttentionOp op{};
  op.kv_format = format;
  op.page_bytes = 2 * kKvHeads * block;
  op.page_positions = kPagePositions;
  op.tokens = tokens;
  op.first_position = first_position;
  op.heads = kHeads;
  op.kv_heads = kKvHeads;
  op.head_dim = op.value_dim = kDim;
  op.scale = 0.088f;
  op.query_stride = op.output_stride = kHeads * kDim;
  op.key_stride = op.value_stride = kKvHeads * kDim;
  if (!bench.supports(op)) return 0;
  const Range cache = bench.alloc(page_count * op.page_bytes);
  bench.fill(cache, std::vector<uint8_t>(op.page_bytes));
  op.key_cache = cache;
  op.value_cache = cache.at(kKvHeads * block, cache.size - kKvHeads * block);
  std::vector<uint8_t> numbers(page_count * sizeof(uint32_t));
  for (uint32_t page = 0; page < page_count; ++page) std::memcpy(numbers.data() + page * sizeof page, &page, sizeof page);
  op.pages = bench.alloc(numbers.size());
  bench.fill(op.pages, numbers);
  const auto rows = [&](uint32_t stride) {
    const Range range = bench.alloc(uint64_t{tokens} * stride * sizeof(float));
    bench.fill(range, std::vector<uint8_t>(stride * sizeof(float)));
    return range;
  };
  op.query = rows(op.query_stride);
  op.output = rows(op.output_stride);
  op.key = rows(op.key_stride);
  op.value = rows(op.value_stride);
  return bench.seconds({op});
}

void print_attention(const std::string& device) {
  printf("attention, 32 heads of 128 on 8, ms: cpu, %s\n", device.c_str());
  for (const KvFormat format : {KvFormat::kF32, KvFormat::kBF16, KvFormat::kQ8}) {
    for (const auto& [tokens, first_position] : {std::pair{1u, 8191u}, std::pair{512u, 0u}}) {
      const double cpu = attention_seconds("cpu", format, tokens, first_position) * 1e3;
      const double other = attention_seconds(device, format, tokens, first_position) * 1e3;
      printf("%-5s %3u tokens behind %-5u %9.3f %9.3f\n", kKvFormatNames[static_cast<size_t>(format)], tokens, first_position, cpu, other);
      fflush(stdout);
    }
  }
}

// Products of next to nothing, as they follow one another in a pass.
void print_launches(const std::string& device) {
  constexpr uint32_t kCount = 2000;
  for (const std::string& name : {std::string("cpu"), device}) {
    Bench bench(name);
    MatmulOp op{};
    op.format = Format::kBF16;
    op.rows = op.columns = 64;
    op.row_bytes = 128;
    op.tokens = 1;
    op.input_stride = op.output_stride = 64;
    op.weight = bench.alloc(64 * 128);
    op.input = bench.alloc(256);
    op.output = bench.alloc(256);
    bench.fill(op.weight, std::vector<uint8_t>(128));
    bench.fill(op.input, std::vector<uint8_t>(256));
    printf("%s: %.2f microseconds an op\n", name.c_str(), bench.seconds(std::vector<Op>(kCount, op)) / kCount * 1e6);
  }
}

}  // namespace

int main() {
  for (const Backend& backend : backends()) {
    if (backend.name == std::string("cpu") || backend.name == std::string("cpu-discrete")) continue;
    for (const auto& [info, reason] : backend.list()) {
      if (!wanted("LAYERSTREAM_DEVICE", info.name)) continue;
      if (!reason.empty()) {
        printf("%s: skipped: %s\n", info.name.c_str(), reason.c_str());
        continue;
      }
      const std::unique_ptr<Device> device = open_device(info.name, {.threads = kThreads});
      printf("%s, %s: memory %.1f GB/s, cpu %.1f GB/s\n", info.name.c_str(), info.kernels.c_str(), measure_memory_rate(*device, kSeconds) / 1e9,
             measure_host_memory_rate(kWeightBytes, kThreads, kSeconds) / 1e9);
      if (wanted("LAYERSTREAM_PART", "vector")) print_vectors(info.name);
      if (wanted("LAYERSTREAM_PART", "matrix")) print_matrices(info.name);
      if (wanted("LAYERSTREAM_PART", "attention")) print_attention(info.name);
      if (wanted("LAYERSTREAM_PART", "launches")) print_launches(info.name);
    }
  }
  return 0;
}
