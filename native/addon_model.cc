// The streaming engine for JavaScript. Models live in a process-wide table and are named by number, so that the main
// thread and piscina workers, each with a copy of this addon's bindings, speak of the same one.
#include <napi.h>

#include <algorithm>
#include <functional>
#include <iterator>
#include <map>
#include <memory>
#include <mutex>

#include "addon.h"
#include "addon_description.h"
#include "addon_pass.h"
#include "addon_trace.h"
#include "addon_values.h"
#include "platform/error.h"
#include "platform/memory.h"
#include "stream/first_maximum.h"
#include "stream/runtime.h"
#include "stream/top_candidates.h"

namespace layerstream {

namespace {

std::mutex table_mutex;
// Never destroyed: at process exit, threads of a model may still run.
auto& table = *new std::map<uint32_t, std::shared_ptr<LoadedModel>>();
uint32_t next_id = 1;

std::shared_ptr<LoadedModel> find(const Napi::Value& id) {
  const std::lock_guard lock(table_mutex);
  const auto found = table.find(id.ToNumber().Uint32Value());
  if (found == table.end()) throw Error("MODEL_DISPOSED", "The model has been disposed.");
  return found->second;
}

// Opening a device, what it computes for its check and the memory of a model take up to seconds: beside JavaScript.
class ModelLoad final : public Napi::AsyncWorker {
 public:
  ModelLoad(Napi::Env env, std::shared_ptr<LoadedModel> model, RuntimeDescription description)
      : AsyncWorker(env, "layerstream load"), deferred_(Napi::Promise::Deferred::New(env)), model_(std::move(model)), description_(std::move(description)) {}

  Napi::Promise promise() const { return deferred_.Promise(); }

 private:
  void Execute() override {
    try {
      model_->runtime = std::make_unique<Runtime>(std::move(description_));
    } catch (...) {
      error_ = std::current_exception();
    }
  }

  void OnOK() override {
    if (error_) return deferred_.Reject(to_js_error(Env(), error_).Value());
    const std::lock_guard lock(table_mutex);
    table.emplace(next_id, std::move(model_));
    deferred_.Resolve(Napi::Number::New(Env(), next_id++));
  }

  const Napi::Promise::Deferred deferred_;
  std::shared_ptr<LoadedModel> model_;
  RuntimeDescription description_;
  std::exception_ptr error_;
};

// createModel(description): a promise of its number.
Napi::Value create_model(const Napi::CallbackInfo& info) {
  auto entry = std::make_shared<LoadedModel>();
  RuntimeDescription description = read_description(info[0].As<Napi::Object>());
  entry->embedding_rows = description.stages.at(description.embedding.stage).matrices.at(description.embedding.matrix).rows;
  entry->limits.rope_dims = description.rope_dims;
  entry->limits.max_tokens = description.max_tokens;
  entry->limits.vocab_size = description.vocab_size;
  entry->limits.page_count = description.page_count;
  entry->limits.page_positions = description.page_positions;
  auto* const load = new ModelLoad(info.Env(), std::move(entry), std::move(description));
  const Napi::Promise promise = load->promise();
  load->Queue();
  return promise;
}

Napi::Value destroy_model(const Napi::CallbackInfo& info) {
  std::shared_ptr<LoadedModel> entry;
  {
    const std::lock_guard lock(table_mutex);
    const auto found = table.find(info[0].ToNumber().Uint32Value());
    if (found == table.end()) return info.Env().Undefined();
    entry = std::move(found->second);
    table.erase(found);
  }
  entry->runtime->cancel();
  return info.Env().Undefined();
}

Napi::Value read_tape(const Napi::CallbackInfo& info) {
  return Napi::Number::New(info.Env(), static_cast<int>(find(info[0])->runtime->read_tape()));
}

Napi::Value run_pass(const Napi::CallbackInfo& info) {
  return start_pass(info.Env(), find(info[0]), info[1].As<Napi::Object>());
}

std::span<const float> floats_of(const Napi::Value& value) {
  if (!value.IsTypedArray() || value.As<Napi::TypedArray>().TypedArrayType() != napi_float32_array) {
    throw Error("INTERNAL", "Expected a Float32Array.");
  }
  const auto array = value.As<Napi::Float32Array>();
  return {array.Data(), array.ElementLength()};
}

Napi::Value js_first_maximum(const Napi::CallbackInfo& info) {
  return Napi::Number::New(info.Env(), static_cast<double>(first_maximum(floats_of(info[0]))));
}

Napi::Value js_top_candidates(const Napi::CallbackInfo& info) {
  const std::span<const float> values = floats_of(info[0]);
  const double count = info[1].ToNumber().DoubleValue();
  if (!(count >= 0 && count <= UINT32_MAX)) throw Error("INTERNAL", "Not a number of candidates.");
  if (!info[2].IsTypedArray() || info[2].As<Napi::TypedArray>().TypedArrayType() != napi_uint32_array) {
    throw Error("INTERNAL", "Expected a Uint32Array.");
  }
  auto indices = info[2].As<Napi::Uint32Array>();
  if (indices.ElementLength() < values.size()) throw Error("INTERNAL", "The array for candidates is too small.");
  const size_t found = top_candidates(values, static_cast<uint64_t>(count), {indices.Data(), indices.ElementLength()});
  return Napi::Number::New(info.Env(), static_cast<double>(found));
}

Napi::Value cancel_model(const Napi::CallbackInfo& info) {
  find(info[0])->runtime->cancel();
  return info.Env().Undefined();
}

Napi::Value stage_chunks(const Napi::CallbackInfo& info) {
  const double chunk_bytes = info[1].ToNumber().DoubleValue();
  if (!(chunk_bytes >= kPageBytes && chunk_bytes <= 0x1p50)) throw Error("INTERNAL", "No chunks of that size.");
  const std::vector<Chunk> chunks = chunks_of(info[0].As<Napi::Object>(), static_cast<uint64_t>(chunk_bytes));
  const auto each_chunk = [&](const auto& bytes) {
    auto array = Napi::Array::New(info.Env(), chunks.size());
    for (uint32_t index = 0; index < chunks.size(); ++index) array.Set(index, static_cast<double>(std::invoke(bytes, chunks[index])));
    return array;
  };
  auto result = Napi::Object::New(info.Env());
  result.Set("chunks", each_chunk(&Chunk::length));
  result.Set("reads", each_chunk(&Chunk::stored_length));
  result.Set("staged", each_chunk([](const Chunk& chunk) { return chunk.staging_bytes(0, false); }));
  return result;
}

Napi::Value set_held(const Napi::CallbackInfo& info) {
  std::vector<std::vector<uint8_t>> flags;
  const auto stages = info[1].As<Napi::Array>();
  for (uint32_t index = 0; index < stages.Length(); ++index) {
    const Napi::Value stage = stages.Get(index);
    flags.push_back(stage.IsUndefined() ? std::vector<uint8_t>() : flags_of(stage));
  }
  uint64_t rings[3];
  for (size_t index = 0; index < std::size(rings); ++index) {
    const double bytes = info[2 + index].ToNumber().DoubleValue();
    if (!(bytes >= 0 && bytes <= 0x1p50)) throw Error("INTERNAL", "No ring of that size.");
    rings[index] = static_cast<uint64_t>(bytes);
  }
  find(info[0])->runtime->set_held(std::move(flags), {.staging = rings[0], .experts = rings[1], .slots = rings[2]});
  return info.Env().Undefined();
}

Napi::Value set_working_memory(const Napi::CallbackInfo& info) {
  find(info[0])->runtime->set_working_memory(info[1].ToNumber().Uint32Value(), flags_of(info[2]), info[3].ToNumber().Uint32Value());
  return info.Env().Undefined();
}

Napi::Value reset_tape(const Napi::CallbackInfo& info) {
  find(info[0])->runtime->reset();
  return info.Env().Undefined();
}

Napi::Value set_tape_idle(const Napi::CallbackInfo& info) {
  find(info[0])->runtime->set_idle(info[1].ToBoolean());
  return info.Env().Undefined();
}

Napi::Value drop_file_cache(const Napi::CallbackInfo& info) {
  drop_cached_pages(info[0].ToString().Utf8Value());
  return info.Env().Undefined();
}

Napi::Value model_stats(const Napi::CallbackInfo& info) {
  const RuntimeStats stats = find(info[0])->runtime->stats();
  Napi::Object result = Napi::Object::New(info.Env());
  result.Set("computeSeconds", stats.passes.compute_seconds);
  result.Set("waitSeconds", stats.passes.wait_seconds);
  result.Set("bytesCopied", static_cast<double>(stats.passes.bytes_copied));
  result.Set("bytesMultiplied", static_cast<double>(stats.passes.bytes_multiplied));
  result.Set("bytesRead", static_cast<double>(stats.reads.bytes_read));
  result.Set("readCpuSeconds", stats.read_cpu_seconds);
  result.Set("readSeconds", static_cast<double>(stats.reads.read_nanoseconds) * 1e-9);
  result.Set("kvBytesRead", static_cast<double>(stats.spill.read_bytes));
  result.Set("kvReadSeconds", static_cast<double>(stats.spill.read_nanoseconds) * 1e-9);
  result.Set("kvBytesWritten", static_cast<double>(stats.spill.written_bytes));
  result.Set("kvWriteSeconds", static_cast<double>(stats.spill.write_nanoseconds) * 1e-9);
  result.Set("kernels", stats.kernels);
  result.Set("reader", stats.reader);
  result.Set("readerReason", stats.reader_reason);
  result.Set("bufferedReason", stats.buffered_reason);
  return result;
}

// A function on a model that is loaded, from one on its runtime.
template <auto kFunction>
Napi::Value on_runtime(const Napi::CallbackInfo& info) {
  const std::shared_ptr<LoadedModel> entry = find(info[0]);
  return kFunction(info, *entry->runtime);
}

}  // namespace

void register_model(Napi::Env env, Napi::Object exports) {
  const auto add = [&](const char* name, auto function) { exports.Set(name, guarded(env, name, function)); };
  add("createModel", create_model);
  add("destroyModel", destroy_model);
  add("readTape", read_tape);
  add("runPass", run_pass);
  add("firstMaximum", js_first_maximum);
  add("topCandidates", js_top_candidates);
  add("cancelModel", cancel_model);
  add("stageChunks", stage_chunks);
  add("setHeld", set_held);
  add("setWorkingMemory", set_working_memory);
  add("resetTape", reset_tape);
  add("setTapeIdle", set_tape_idle);
  add("dropFileCache", drop_file_cache);
  add("modelStats", model_stats);
  add("activityNames", activity_names);
  add("phaseSums", on_runtime<phase_sums>);
  add("traceSpans", on_runtime<trace_spans>);
  add("traceActivity", on_runtime<trace_activity>);
}

}  // namespace layerstream
