// Every device that is here beside the device `cpu`, in one run: one token's products in each weight format, prompts, attention,
// and how many small ops a second it takes. LAYERSTREAM_FORMAT measures one format only; LAYERSTREAM_PART one part: vector,
// matrix, attention or launches; LAYERSTREAM_DEVICE one device beside the processor.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <initializer_list>
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
constexpr double kSeconds = 0.1;  // of each time that a device has its turn
constexpr uint32_t kTurns = 3;

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
  // What is measured; nothing if the device has no kernel.
  void set(std::vector<Op> ops) { ops_ = std::move(ops); }
  // For kSeconds.
  void measure() {
    if (ops_.empty()) return;
    const auto run = [&] {
      const auto start = Clock::now();
      for (const Op& op : ops_) device_->launch(stream_, {&op, 1});
      finish();
      return std::chrono::duration<double>(Clock::now() - start).count();
    };
    run();
    const auto start = Clock::now();
    do fastest_ = std::min(fastest_, run());
    while (std::chrono::duration<double>(Clock::now() - start).count() < kSeconds);
  }
  // Seconds of an op at best.
  double seconds() const { return fastest_ / static_cast<double>(ops_.size()); }
  bool measured() const { return !ops_.empty(); }

 private:
  const std::unique_ptr<Device> device_;
  Stream* const stream_;
  Event* const event_;
  std::vector<Buffer*> buffers_;
  std::vector<Op> ops_;
  double fastest_ = 1e9;
};

// By turns, since machines change their speed.
void measure_all(std::initializer_list<Bench*> benches) {
  for (uint32_t turn = 0; turn < kTurns; ++turn) {
    for (Bench* bench : benches) bench->measure();
  }
}

// The product of `tokens` tokens with each of some matrices that together exceed the caches.
void set_product(Bench& bench, Format format, uint32_t tokens, Precision precision) {
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
  if (!bench.supports(op)) return;
  const uint64_t bytes = op.rows * op.row_bytes;
  const uint64_t count = tokens > 1 ? 1 : (kWeightBytes + bytes - 1) / bytes;
  const Range weights = bench.alloc(count * bytes);
  op.input = bench.alloc(uint64_t{tokens} * kColumns * sizeof(float));
  op.output = bench.alloc(uint64_t{tokens} * op.rows * sizeof(float));
  std::vector<uint8_t> rows(16 * op.row_bytes);
  RandomRows random(1);
  for (uint32_t row = 0; row < 16; ++row) random.fill(format, rows.data() + row * op.row_bytes, kColumns, op.block);
  bench.fill(weights, rows);
  bench.fill(op.input, std::vector<uint8_t>(kColumns * sizeof(float)));
  std::vector<Op> ops;
  for (uint64_t i = 0; i < count; ++i) {
    op.weight = weights.at(i * bytes, bytes);
    ops.push_back(op);
  }
  bench.set(std::move(ops));
}

// `work` of one op by each, a second, and the share that the device has of the faster of the processor's ways.
void print_products(const std::string& device, Format format, uint32_t tokens, double work) {
  if (!wanted("LAYERSTREAM_FORMAT", traits_of(format).name)) return;
  Bench exact("cpu"), fast("cpu"), other(device);
  set_product(exact, format, tokens, Precision::kExact);
  set_product(fast, format, tokens, Precision::kFast);
  set_product(other, format, tokens, Precision::kFast);
  measure_all({&exact, &fast, &other});
  printf("%-12s %7.2f %7.2f", traits_of(format).name, work / exact.seconds(), work / fast.seconds());
  if (other.measured()) printf(" %7.2f %6.2f\n", work / other.seconds(), std::min(exact.seconds(), fast.seconds()) / other.seconds());
  else printf("   no kernel\n");
  fflush(stdout);
}

void print_vectors(const std::string& device) {
  printf("one token, GB/s of weights: cpu exact and fast, %s, and its share of the faster\n", device.c_str());
  for (uint32_t index = 0; index < kFormatCount; ++index) {
    const Format format = static_cast<Format>(index);
    print_products(device, format, 1, static_cast<double>(kRows * row_bytes(format, kColumns, usual_block(format))) / 1e9);
  }
}

void print_matrices(const std::string& device) {
  printf("512 tokens, GFLOP/s: cpu exact and fast, %s, and its share of the faster\n", device.c_str());
  for (const Format format : {Format::kF32, Format::kBF16, Format::kQ8, Format::kQ4, Format::kQ4K}) {
    print_products(device, format, 512, 2.0 * 512 * kRows / 4 * kColumns / 1e9);
  }
}

// `tokens` tokens behind `first_position` others.
void set_attention(Bench& bench, KvFormat format, uint32_t tokens, uint32_t first_position) {
  constexpr uint32_t kHeads = 32, kKvHeads = 8, kDim = 128, kPagePositions = 64;
  const uint64_t block = kv_block_bytes(format, kPagePositions, kDim);
  const uint32_t page_count = (first_position + tokens + kPagePositions - 1) / kPagePositions;
  AttentionOp op{};
  op.kv_format = format;
  op.page_bytes = 2 * kKvHeads * block;
  op.page_positions = kPagePositions;
  op.tokens = tokens;
  op.many_tokens = tokens > 1;
  op.first_position = first_position;
  op.heads = kHeads;
  op.kv_heads = kKvHeads;
  op.head_dim = op.value_dim = kDim;
  op.scale = 0.088f;
  op.query_stride = op.output_stride = kHeads * kDim;
  op.key_stride = op.value_stride = kKvHeads * kDim;
  if (!bench.supports(op)) return;
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
  bench.set({op});
}

void print_attention(const std::string& device) {
  printf("attention, 32 heads of 128 on 8, ms: cpu, %s, and its share\n", device.c_str());
  for (const KvFormat format : {KvFormat::kF32, KvFormat::kBF16, KvFormat::kQ8}) {
    for (const auto& [tokens, first_position] : {std::pair{1u, 8191u}, std::pair{512u, 0u}}) {
      Bench cpu("cpu"), other(device);
      set_attention(cpu, format, tokens, first_position);
      set_attention(other, format, tokens, first_position);
      measure_all({&cpu, &other});
      printf("%-5s %3u tokens behind %-5u %9.3f %9.3f %6.2f\n", kKvFormatNames[static_cast<size_t>(format)], tokens, first_position,
             cpu.seconds() * 1e3, other.seconds() * 1e3, cpu.seconds() / other.seconds());
      fflush(stdout);
    }
  }
}

// Products of next to nothing, as they follow one another in a pass.
void print_launches(const std::string& device) {
  constexpr uint32_t kCount = 2000;
  Bench cpu("cpu"), other(device);
  for (Bench* bench : {&cpu, &other}) {
    MatmulOp op{};
    op.format = Format::kBF16;
    op.rows = op.columns = 64;
    op.row_bytes = 128;
    op.tokens = 1;
    op.input_stride = op.output_stride = 64;
    op.weight = bench->alloc(64 * 128);
    op.input = bench->alloc(256);
    op.output = bench->alloc(256);
    bench->fill(op.weight, std::vector<uint8_t>(128));
    bench->fill(op.input, std::vector<uint8_t>(256));
    bench->set(std::vector<Op>(kCount, op));
  }
  measure_all({&cpu, &other});
  printf("small ops, microseconds each: cpu %.2f, %s %.2f\n", cpu.seconds() * 1e6, device.c_str(), other.seconds() * 1e6);
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
