// What the machine can do, measured the way the engine works: the yardsticks of `bench`.
#include <napi.h>

#include <chrono>
#include <cstring>
#include <memory>
#include <vector>

#include "addon.h"
#include "backend/measure.h"
#include "io/reader.h"
#include "platform/error.h"
#include "platform/memory.h"

namespace layerstream {

namespace {

using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point start) { return std::chrono::duration<double>(Clock::now() - start).count(); }

double number_argument(const Napi::CallbackInfo& info, size_t index, double least, double most) {
  const double value = info[index].IsNumber() ? info[index].As<Napi::Number>().DoubleValue() : -1;
  if (value >= least && value <= most) return value;
  throw Error("INVALID_ARGUMENT", "Argument " + std::to_string(index) + " is out of range.");
}

// measureReadRate(paths, seconds): direct reads of one file after the other, over and over, 4 MiB each, four in flight. What
// comes first is not counted: throttled disks let a burst through, and queues have to fill.
Napi::Value measure_read_rate(const Napi::CallbackInfo& info) {
  constexpr uint64_t kReadBytes = uint64_t{4} << 20;
  constexpr uint32_t kDepth = 4;
  constexpr double kUncountedSeconds = 0.3;
  const auto paths = info[0].As<Napi::Array>();
  const double limit = number_argument(info, 1, 0.01, 3600);
  Arena memory(kDepth * kReadBytes);
  memory.touch();
  std::unique_ptr<Reader> reader = make_reader(kDepth);
  std::vector<WeightFile> files;
  std::vector<ReadRequest> requests;
  std::vector<uint64_t> sizes;
  for (uint32_t index = 0; index < paths.Length(); ++index) {
    const auto item = paths.Get(index).As<Napi::Object>();
    sizes.push_back(align_down(static_cast<uint64_t>(item.Get("size").ToNumber().Int64Value()), kPageBytes));
    files.emplace_back(item.Get("path").ToString().Utf8Value(), sizes.back());
  }
  for (size_t index = 0; index < files.size(); ++index) {
    for (uint64_t offset = 0; offset < sizes[index]; offset += kReadBytes) {
      requests.push_back({&files[index], offset, std::min(kReadBytes, sizes[index] - offset), nullptr, 0});
    }
  }
  if (requests.empty()) throw Error("INVALID_ARGUMENT", "There is nothing to read.");
  uint64_t lengths[kDepth] = {};
  size_t next = 0;
  const auto submit = [&](uint64_t slot) {
    ReadRequest request = requests[next++ % requests.size()];
    lengths[slot] = request.length;
    request.destination = memory.data() + slot * kReadBytes;
    request.tag = slot;
    reader->submit(request);
  };
  for (uint64_t slot = 0; slot < kDepth; ++slot) submit(slot);
  const Clock::time_point start = Clock::now();
  Clock::time_point counted = start;
  uint64_t bytes = 0;
  const double uncounted = std::min(kUncountedSeconds, limit / 4);
  while (seconds_since(start) < limit) {
    const uint64_t slot = reader->wait();
    if (std::chrono::duration<double>(counted - start).count() < uncounted) {
      counted = Clock::now();
    } else {
      bytes += lengths[slot];
    }
    submit(slot);
  }
  const double seconds = seconds_since(counted);
  reader->drain();
  return Napi::Number::New(info.Env(), static_cast<double>(bytes) / seconds);
}

// measureMemoryRate(bytes, threads, seconds)
Napi::Value js_measure_memory_rate(const Napi::CallbackInfo& info) {
  const auto bytes = static_cast<size_t>(number_argument(info, 0, 1 << 20, 64e9));
  const auto threads = static_cast<uint32_t>(number_argument(info, 1, 1, 1024));
  const double limit = number_argument(info, 2, 0.01, 3600);
  return Napi::Number::New(info.Env(), measure_host_memory_rate(bytes, threads, limit));
}

// measureDevice(name, seconds, threads): each measurement takes `seconds`.
Napi::Value measure_device(const Napi::CallbackInfo& info) {
  const double seconds = number_argument(info, 1, 0.001, 3600);
  const auto threads = static_cast<uint32_t>(number_argument(info, 2, 1, 1024));
  const std::unique_ptr<Device> device = open_device(info[0].ToString().Utf8Value(), {threads});
  const Napi::Object result = Napi::Object::New(info.Env());
  result.Set("freeBytes", static_cast<double>(device->free_bytes()));
  result.Set("copyBytesPerSecond", measure_copy_rate(*device, seconds));
  result.Set("memoryBytesPerSecond", measure_memory_rate(*device, seconds));
  return result;
}

// measureCopyRate(name, seconds): from pinned memory to the device.
Napi::Value js_measure_copy_rate(const Napi::CallbackInfo& info) {
  const double seconds = number_argument(info, 1, 0.001, 3600);
  const std::unique_ptr<Device> device = open_device(info[0].ToString().Utf8Value(), {});
  return Napi::Number::New(info.Env(), measure_copy_rate(*device, seconds));
}

// measureMatmulRate(format, rows, columns, block, tokens, threads, seconds, exact): through a device, as the engine does.
Napi::Value measure_matmul_rate(const Napi::CallbackInfo& info) {
  const std::string name = info[0].ToString().Utf8Value();
  const std::optional<Format> named = format_named(name);
  if (!named) throw Error("INVALID_ARGUMENT", "Unknown weight format " + name + ".");
  const Format format = *named;
  const auto rows = static_cast<uint32_t>(number_argument(info, 1, 1, 1e6));
  const auto columns = static_cast<uint32_t>(number_argument(info, 2, 1, 1e6));
  const auto block = static_cast<uint32_t>(number_argument(info, 3, 0, 65536));
  if (!block_fits(format, columns, block)) {
    throw Error("INVALID_ARGUMENT", std::to_string(columns) + " columns of " + name + " cannot have blocks of " +
                                        std::to_string(block) + ".");
  }
  const auto tokens = static_cast<uint32_t>(number_argument(info, 4, 1, 65536));
  const auto threads = static_cast<uint32_t>(number_argument(info, 5, 1, 1024));
  const double limit = number_argument(info, 6, 0.01, 3600);

  std::unique_ptr<Device> device = open_device("cpu", {threads});
  MatmulOp op{};
  op.format = format;
  if (!device->supports(op)) throw Error("INVALID_ARGUMENT", "No kernel multiplies " + name + ".");
  Stream* stream = device->create_stream();
  Event* done = device->create_event();
  const uint64_t row_size = row_bytes(format, columns, block);
  const uint64_t matrix_bytes = rows * row_size;
  const uint64_t matrices = std::max<uint64_t>(1, (uint64_t{512} << 20) / matrix_bytes);
  Buffer* weights = device->alloc(matrices * matrix_bytes);
  Buffer* input = device->alloc(uint64_t{tokens} * columns * sizeof(float));
  Buffer* output = device->alloc(uint64_t{tokens} * rows * sizeof(float));
  // Zero weights multiply as fast as others, but their pages must exist.
  std::memset(device->host_address({weights, 0, 0}), 0, matrices * matrix_bytes);
  std::memset(device->host_address({input, 0, 0}), 0, uint64_t{tokens} * columns * sizeof(float));

  op.block = block;
  op.row_bytes = row_size;
  op.rows = rows;
  op.columns = columns;
  op.tokens = tokens;
  op.precision = info[7].ToBoolean() ? Precision::kExact : Precision::kFast;
  op.many_tokens = tokens > 1;
  op.input = {input, 0, uint64_t{tokens} * columns * sizeof(float)};
  op.output = {output, 0, uint64_t{tokens} * rows * sizeof(float)};
  op.input_stride = columns;
  op.output_stride = rows;
  uint64_t next = 0;
  const auto multiply = [&](uint64_t count) {
    for (uint64_t i = 0; i < count; ++i, ++next) {
      op.weight = {weights, next % matrices * matrix_bytes, matrix_bytes};
      const Op launched = op;
      device->launch(stream, {&launched, 1});
    }
    device->record(done, stream);
    device->synchronize(done);
  };
  multiply(1);  // scratch exists from here on
  // Products of one token are too short to wait for each.
  const uint64_t together = tokens > 1 ? 1 : matrices;
  uint64_t multiplied = 0;
  const auto start = Clock::now();
  do {
    multiply(together);
    multiplied += together;
  } while (seconds_since(start) < limit);
  const double rate = static_cast<double>(multiplied * matrix_bytes) / seconds_since(start);
  for (Buffer* buffer : {weights, input, output}) device->free(buffer);
  device->destroy(done);
  device->destroy(stream);
  return Napi::Number::New(info.Env(), rate);
}

// measurePeakRate(kind, threads, seconds): of a device, without memory.
Napi::Value measure_peak_rate(const Napi::CallbackInfo& info) {
  const std::string kind = info[0].ToString().Utf8Value();
  if (kind != "f32" && kind != "bf16") throw Error("INVALID_ARGUMENT", "No peak is measured in " + kind + "; ask for f32 or bf16.");
  const auto threads = static_cast<uint32_t>(number_argument(info, 1, 1, 1024));
  const double seconds = number_argument(info, 2, 0.01, 3600);
  const PeakKind peak = kind == "f32" ? PeakKind::kFloat32 : PeakKind::kBFloat16;
  return Napi::Number::New(info.Env(), open_device("cpu", {threads})->measure_peak(peak, seconds));
}

// cpuKernels()
Napi::Value cpu_kernels(const Napi::CallbackInfo& info) {
  return Napi::String::New(info.Env(), open_device("cpu", {1})->info().kernels);
}

}  // namespace

void register_measure(Napi::Env env, Napi::Object exports) {
  exports.Set("cpuKernels", guarded(env, "cpuKernels", cpu_kernels));
  exports.Set("measureDevice", guarded(env, "measureDevice", measure_device));
  exports.Set("measureCopyRate", guarded(env, "measureCopyRate", js_measure_copy_rate));
  exports.Set("measureReadRate", guarded(env, "measureReadRate", measure_read_rate));
  exports.Set("measureMemoryRate", guarded(env, "measureMemoryRate", js_measure_memory_rate));
  exports.Set("measurePeakRate", guarded(env, "measurePeakRate", measure_peak_rate));
  exports.Set("measureMatmulRate", guarded(env, "measureMatmulRate", measure_matmul_rate));
}

}  // namespace layerstream
