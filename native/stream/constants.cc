#include "constants.h"

#include <algorithm>
#include <cstring>

#include "../platform/error.h"
#include "../platform/memory.h"

namespace layerstream {

namespace {

constexpr uint64_t kStagingBytes = 1 << 20;

uint64_t order_bytes(const Matrix& matrix) { return matrix.permuted() ? uint64_t{matrix.columns} * sizeof(uint32_t) : 0; }

class Loader {
 public:
  // The object is complete once the other constructor returns: what fails here is undone by the destructor.
  Loader(Range memory, Device& device, Stream* stream, Reader& reader) : Loader(memory, device, stream, reader, device.info().unified) {
    if (unified_) return;
    staging_ = static_cast<uint8_t*>(device_.alloc_pinned(kStagingBytes));
    copied_ = device_.create_event();
  }
  ~Loader() {
    if (copied_ != nullptr) device_.destroy(copied_);
    if (staging_ != nullptr) device_.free_pinned(staging_);
  }
  Loader(const Loader&) = delete;
  Loader& operator=(const Loader&) = delete;

  // Bytes of a file, in memory that the next read reuses.
  const uint8_t* read(const WeightFile& file, uint64_t offset, uint64_t bytes) {
    const uint64_t begin = align_down(offset, kPageBytes);
    const uint64_t length = align_up(offset + bytes, kPageBytes) - begin;
    if (raw_.size() < length) raw_ = Arena(length);
    reader_.submit({&file, begin, length, raw_.data(), 0});
    reader_.wait();
    return raw_.data() + (offset - begin);
  }

  // The next bytes of device memory, filled.
  Range put(const void* source, uint64_t bytes) {
    const Range range = memory_.at(used_, bytes);
    used_ += bytes;
    if (unified_) {
      std::memcpy(device_.host_address(range), source, bytes);
      return range;
    }
    for (uint64_t done = 0; done < bytes; done += kStagingBytes) {
      const uint64_t size = std::min(kStagingBytes, bytes - done);
      std::memcpy(staging_, static_cast<const uint8_t*>(source) + done, size);
      device_.upload(stream_, range.at(done, size), staging_);
      device_.record(copied_, stream_);
      device_.synchronize(copied_);
    }
    return range;
  }
  Range put(const std::vector<float>& values) { return put(values.data(), values.size() * sizeof(float)); }

 private:
  Loader(Range memory, Device& device, Stream* stream, Reader& reader, bool unified)
      : memory_(memory), device_(device), stream_(stream), reader_(reader), unified_(unified) {}

  Range memory_;
  Device& device_;
  Stream* stream_;
  Reader& reader_;
  const bool unified_;
  uint64_t used_ = 0;
  Arena raw_;
  uint8_t* staging_ = nullptr;
  Event* copied_ = nullptr;
};

void load_order(Loader& loader, Matrix& matrix, const WeightFile& file) {
  std::vector<uint32_t> order(matrix.columns);
  std::memcpy(order.data(), loader.read(file, matrix.column_order, order_bytes(matrix)), order_bytes(matrix));
  const auto wrong = std::ranges::find_if(order, [&](uint32_t column) { return column >= matrix.columns; });
  if (wrong != order.end()) {
    throw Error("STORE_INVALID", "The column order at byte " + std::to_string(matrix.column_order) + " of " + file.path() +
                                     " names column " + std::to_string(*wrong) + " of " + std::to_string(matrix.columns) +
                                     ". Decompose the checkpoint again.");
  }
  matrix.order = loader.put(order.data(), order_bytes(matrix));
}

void load_adapter(Loader& loader, Adapter& adapter) {
  adapter.a_memory = loader.put(adapter.a);
  adapter.b_memory = loader.put(adapter.b);
  adapter.a = {};
  adapter.b = {};
}

}  // namespace

uint64_t constant_bytes(const RuntimeDescription& description) {
  uint64_t bytes = 0;
  for (const Plan& plan : description.plans) {
    for (const Step& step : plan) {
      if (const auto* attention = std::get_if<AttentionStep>(&step)) bytes += attention->alibi_slopes.size() * sizeof(float);
    }
  }
  for (const Stage& stage : description.stages) {
    for (const Vector& vector : stage.vectors) bytes += vector.length * sizeof(float);
    for (const Matrix& matrix : stage.matrices) {
      bytes += order_bytes(matrix);
      for (const Adapter& adapter : matrix.adapters) bytes += (adapter.a.size() + adapter.b.size()) * sizeof(float);
    }
  }
  return bytes;
}

void load_constants(RuntimeDescription& description, Range memory, Device& device, Stream* stream, Reader& reader,
                    std::span<const WeightFile> files, Processor* processor) {
  Loader loader(memory, device, stream, reader);
  for (Plan& plan : description.plans) {
    for (Step& step : plan) {
      auto* attention = std::get_if<AttentionStep>(&step);
      if (attention != nullptr && !attention->alibi_slopes.empty()) attention->slopes = loader.put(attention->alibi_slopes);
    }
  }
  std::vector<float> values;
  for (Stage& stage : description.stages) {
    const WeightFile& file = files[stage.file];
    const auto route = std::ranges::find_if(description.plans[stage.kind], [](const Step& step) { return std::holds_alternative<RouteStep>(step); });
    const uint32_t correction = route == description.plans[stage.kind].end() ? kNone : std::get<RouteStep>(*route).correction_vector;
    for (uint32_t index = 0; index < stage.vectors.size(); ++index) {
      Vector& vector = stage.vectors[index];
      values.resize(vector.length);
      to_float32(vector.format, loader.read(file, vector.offset, row_bytes(vector.format, vector.length, 0)), vector.length, values.data());
      for (float& value : values) value += vector.add;
      vector.memory = loader.put(values);
      if (stage.on_processor && processor != nullptr) vector.on_processor = processor->put(values);
      if (index == correction) stage.correction = values;
    }
    for (Matrix& matrix : stage.matrices) {
      if (matrix.permuted()) load_order(loader, matrix, file);
      for (Adapter& adapter : matrix.adapters) load_adapter(loader, adapter);
    }
  }
}

}  // namespace layerstream
