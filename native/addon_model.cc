// The streaming engine for JavaScript. Models live in a process-wide table and are named by number, so that the main
// thread and piscina workers, each with a copy of this addon's bindings, speak of the same one.
#include <napi.h>

#include <map>
#include <memory>
#include <mutex>

#include "addon.h"
#include "cpu/kernels.h"
#include "platform/error.h"
#include "stream/runtime.h"

namespace layerstream {

namespace {

struct Entry {
  std::unique_ptr<Runtime> runtime;
  RuntimeDescription limits;  // what requests are checked against; stages and plans are left out
  uint32_t embedding_rows = 0;
};

std::mutex table_mutex;
// Never destroyed: at process exit, threads of a model may still run.
auto& table = *new std::map<uint32_t, std::shared_ptr<Entry>>();
uint32_t next_id = 1;

std::shared_ptr<Entry> find(const Napi::Value& id) {
  const std::lock_guard lock(table_mutex);
  const auto found = table.find(id.ToNumber().Uint32Value());
  if (found == table.end()) throw Error("MODEL_DISPOSED", "The model has been disposed.");
  return found->second;
}

// --- reading descriptions -----------------------------------------------------------------------------------------

Napi::Object object_at(const Napi::Object& object, const char* key) {
  const Napi::Value value = object.Get(key);
  if (!value.IsObject()) throw Error("INTERNAL", std::string("Expected an object: ") + key);
  return value.As<Napi::Object>();
}

double number_at(const Napi::Object& object, const char* key) {
  const Napi::Value value = object.Get(key);
  if (!value.IsNumber()) throw Error("INTERNAL", std::string("Expected a number: ") + key);
  return value.As<Napi::Number>().DoubleValue();
}

uint32_t uint_at(const Napi::Object& object, const char* key) {
  const double value = number_at(object, key);
  if (value < 0 || value > UINT32_MAX || value != static_cast<double>(static_cast<uint32_t>(value))) {
    throw Error("INTERNAL", std::string("Expected a 32-bit unsigned integer: ") + key);
  }
  return static_cast<uint32_t>(value);
}

uint64_t bytes_at(const Napi::Object& object, const char* key) {
  const double value = number_at(object, key);
  if (value < 0 || value > 9007199254740991.0) throw Error("INTERNAL", std::string("Expected a byte count: ") + key);
  return static_cast<uint64_t>(value);
}

std::string string_at(const Napi::Object& object, const char* key) {
  const Napi::Value value = object.Get(key);
  if (!value.IsString()) throw Error("INTERNAL", std::string("Expected a string: ") + key);
  return value.As<Napi::String>().Utf8Value();
}

bool flag_at(const Napi::Object& object, const char* key) { return object.Get(key).ToBoolean(); }

template <typename F>
void each(const Napi::Object& object, const char* key, F&& function) {
  const Napi::Value value = object.Get(key);
  if (!value.IsArray()) throw Error("INTERNAL", std::string("Expected an array: ") + key);
  const auto array = value.As<Napi::Array>();
  for (uint32_t index = 0; index < array.Length(); ++index) function(array.Get(index));
}

Format format_at(const Napi::Object& object) {
  const std::string name = string_at(object, "format");
  const std::optional<Format> format = format_named(name);
  if (format) return *format;
  throw Error("INTERNAL", "Unknown weight format " + name + ".");
}

constexpr const char* kRegisterNames[kRegisterCount] = {"hidden", "normed", "query", "key", "value", "gate", "up", "logits"};

Register register_at(const Napi::Object& object, const char* key) {
  const std::string name = string_at(object, key);
  for (size_t index = 0; index < kRegisterCount; ++index) {
    if (name == kRegisterNames[index]) return static_cast<Register>(index);
  }
  throw Error("INTERNAL", "Unknown register " + name + ".");
}

Step read_step(const Napi::Object& object) {
  const std::string op = string_at(object, "op");
  if (op == "rmsNorm") {
    return NormStep{register_at(object, "input"), register_at(object, "output"), uint_at(object, "vector"),
                    uint_at(object, "width"), static_cast<float>(number_at(object, "epsilon"))};
  }
  if (op == "matmul") {
    const bool bias = object.Get("biasVector").IsNumber();
    return MatmulStep{register_at(object, "input"), register_at(object, "output"), uint_at(object, "matrix"),
                      bias ? uint_at(object, "biasVector") : kNone, flag_at(object, "accumulate")};
  }
  if (op == "rope") {
    return RopeStep{register_at(object, "target"), uint_at(object, "heads"), uint_at(object, "headDim"),
                    uint_at(object, "rotaryDim"), uint_at(object, "table")};
  }
  if (op == "attention") {
    return AttentionStep{register_at(object, "query"), register_at(object, "key"), register_at(object, "value"),
                         uint_at(object, "heads"), uint_at(object, "kvHeads"), uint_at(object, "headDim"),
                         uint_at(object, "window"), static_cast<float>(number_at(object, "scale"))};
  }
  if (op == "gatedActivation") return ActivationStep{register_at(object, "gate"), register_at(object, "up")};
  throw Error("INTERNAL", "Unknown plan operation " + op + ".");
}

// Numbers of a matrix come from a manifest: what the kernels rely on is checked here.
Matrix read_matrix(const Napi::Object& item) {
  const Matrix matrix{format_at(item), uint_at(item, "block"), uint_at(item, "rows"), uint_at(item, "columns"),
                      bytes_at(item, "rowBytes"), bytes_at(item, "offset")};
  if (matrix.rows == 0 || matrix.columns == 0 || !block_fits(matrix.format, matrix.columns, matrix.block) ||
      matrix.row_bytes != row_bytes(matrix.format, matrix.columns, matrix.block)) {
    throw Error("STORE_INVALID", "A matrix of " + std::to_string(matrix.rows) + " x " + std::to_string(matrix.columns) +
                                     " has blocks of " + std::to_string(matrix.block) + " columns in rows of " +
                                     std::to_string(matrix.row_bytes) + " bytes, which cannot be. Decompose the checkpoint again.");
  }
  if (cpu::best_kernels().matmul[static_cast<size_t>(matrix.format)] == nullptr) {
    throw Error("STORE_INVALID", std::string("No kernel multiplies ") + traits_of(matrix.format).name + " yet.");
  }
  return matrix;
}

Stage read_stage_description(const Napi::Object& object) {
  Stage stage;
  stage.kind = uint_at(object, "kind");
  stage.file = uint_at(object, "file");
  stage.layer = object.Get("layer").IsNumber() ? uint_at(object, "layer") : kNone;
  stage.held = flag_at(object, "held");
  each(object, "matrices", [&](const Napi::Value& value) {
    stage.matrices.push_back(read_matrix(value.As<Napi::Object>()));
  });
  each(object, "vectors", [&](const Napi::Value& value) {
    const auto item = value.As<Napi::Object>();
    stage.vectors.push_back({format_at(item), uint_at(item, "length"), bytes_at(item, "offset"), {}});
  });
  return stage;
}

RuntimeDescription read_description(const Napi::Object& object) {
  RuntimeDescription description;
  description.device = string_at(object, "device");
  description.threads = uint_at(object, "threads");
  each(object, "files", [&](const Napi::Value& value) {
    const auto item = value.As<Napi::Object>();
    description.files.push_back({string_at(item, "path"), bytes_at(item, "size")});
  });
  each(object, "plans", [&](const Napi::Value& value) {
    Plan plan;
    const auto steps = value.As<Napi::Array>();
    for (uint32_t index = 0; index < steps.Length(); ++index) plan.push_back(read_step(steps.Get(index).As<Napi::Object>()));
    description.plans.push_back(std::move(plan));
  });
  each(object, "stages", [&](const Napi::Value& value) { description.stages.push_back(read_stage_description(value.As<Napi::Object>())); });
  const Napi::Object embedding = object_at(object, "embedding");
  description.embedding = {uint_at(embedding, "stage"), uint_at(embedding, "matrix"), static_cast<float>(number_at(embedding, "scale"))};
  const Napi::Object registers = object_at(object, "registers");
  for (size_t index = 0; index < kRegisterCount; ++index) {
    if (registers.Has(kRegisterNames[index])) description.register_widths[index] = uint_at(registers, kRegisterNames[index]);
  }
  each(object, "ropeDims", [&](const Napi::Value& value) { description.rope_dims.push_back(value.ToNumber().Uint32Value()); });
  description.chunk_bytes = bytes_at(object, "chunkBytes");
  description.ring_bytes = bytes_at(object, "ringBytes");
  description.max_tokens = uint_at(object, "maxTokens");
  description.vocab_size = uint_at(object, "vocabSize");
  description.kv_layers = uint_at(object, "kvLayers");
  description.kv_heads = uint_at(object, "kvHeads");
  description.head_dim = uint_at(object, "headDim");
  description.page_count = uint_at(object, "pageCount");
  description.page_positions = uint_at(object, "pagePositions");
  return description;
}

// --- passes -------------------------------------------------------------------------------------------------------

std::vector<uint32_t> uints(const Napi::Value& value) {
  if (!value.IsTypedArray() || value.As<Napi::TypedArray>().TypedArrayType() != napi_uint32_array) {
    throw Error("INTERNAL", "Expected a Uint32Array.");
  }
  const auto array = value.As<Napi::Uint32Array>();
  return {array.Data(), array.Data() + array.ElementLength()};
}

PassRequest read_request(const Napi::Object& object, const Entry& entry) {
  PassRequest request;
  const RuntimeDescription& limits = entry.limits;
  request.tokens = uints(object.Get("tokens"));
  if (request.tokens.empty() || request.tokens.size() > limits.max_tokens) throw Error("INTERNAL", "A pass of that many tokens does not fit.");
  for (const uint32_t token : request.tokens) {
    if (token >= entry.embedding_rows) throw Error("TOKEN_OUT_OF_RANGE", "Token " + std::to_string(token) + " is outside the vocabulary.");
  }
  uint64_t tokens = 0;
  uint64_t pages = 0;
  each(object, "segments", [&](const Napi::Value& value) {
    const auto item = value.As<Napi::Object>();
    Segment segment{uint_at(item, "tokens"), uint_at(item, "firstPosition"), uints(item.Get("pages"))};
    if (uint64_t{segment.first_position} + segment.tokens > segment.pages.size() * limits.page_positions) {
      throw Error("INTERNAL", "A segment has too few pages.");
    }
    for (const uint32_t page : segment.pages) {
      if (page >= limits.page_count) throw Error("INTERNAL", "A page is out of range.");
    }
    tokens += segment.tokens;
    pages += segment.pages.size();
    request.segments.push_back(std::move(segment));
  });
  if (tokens != request.tokens.size() || pages > limits.page_count) throw Error("INTERNAL", "Segments and tokens disagree.");
  each(object, "ropes", [&](const Napi::Value& value) {
    const auto item = value.As<Napi::Object>();
    const auto array = item.Get("inverseFrequencies").As<Napi::Float32Array>();
    request.ropes.push_back({{array.Data(), array.Data() + array.ElementLength()}, static_cast<float>(number_at(item, "attentionFactor"))});
    if (request.ropes.size() > limits.rope_dims.size() || array.ElementLength() != limits.rope_dims[request.ropes.size() - 1] / 2) {
      throw Error("INTERNAL", "A rope table has the wrong size.");
    }
  });
  if (request.ropes.size() != limits.rope_dims.size()) throw Error("INTERNAL", "Rope tables are missing.");
  request.all_logits = flag_at(object, "allLogits");
  if (object.Get("logits").IsTypedArray()) {
    auto logits = object.Get("logits").As<Napi::Float32Array>();
    const uint64_t rows = request.all_logits ? tokens : request.segments.size();
    if (logits.ElementLength() < rows * limits.vocab_size) throw Error("INTERNAL", "The array for logits is too small.");
    request.logits = logits.Data();
  }
  return request;
}

// Lives from runPass to the settling of its promise; keeps the array for logits alive.
struct PendingPass {
  explicit PendingPass(Napi::Env env) : deferred(Napi::Promise::Deferred::New(env)) {}
  Napi::Promise::Deferred deferred;
  Napi::ObjectReference request;
  std::shared_ptr<Entry> entry;
  Napi::ThreadSafeFunction settle;
  PassResult result;
  std::exception_ptr error;
};

void settle_pass(Napi::Env env, Napi::Function, PendingPass* raw) {
  std::unique_ptr<PendingPass> pending(raw);
  Napi::HandleScope scope(env);
  if (pending->error) {
    pending->deferred.Reject(to_js_error(env, pending->error).Value());
    return;
  }
  Napi::Object result = Napi::Object::New(env);
  result.Set("elapsedSeconds", pending->result.elapsed_seconds);
  result.Set("computeSeconds", pending->result.compute_seconds);
  result.Set("waitSeconds", pending->result.wait_seconds);
  result.Set("bytesTaken", static_cast<double>(pending->result.bytes_taken));
  pending->deferred.Resolve(result);
}

// --- exports ------------------------------------------------------------------------------------------------------

Napi::Value create_model(const Napi::CallbackInfo& info) {
  auto entry = std::make_shared<Entry>();
  RuntimeDescription description = read_description(info[0].As<Napi::Object>());
  const Stage& stage = description.stages.at(description.embedding.stage);
  entry->embedding_rows = stage.matrices.at(description.embedding.matrix).rows;
  entry->limits = description;
  entry->limits.stages.clear();
  entry->limits.plans.clear();
  entry->runtime = std::make_unique<Runtime>(std::move(description));
  const std::lock_guard lock(table_mutex);
  table.emplace(next_id, std::move(entry));
  return Napi::Number::New(info.Env(), next_id++);
}

Napi::Value destroy_model(const Napi::CallbackInfo& info) {
  std::shared_ptr<Entry> entry;
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

Napi::Value read_stage(const Napi::CallbackInfo& info) {
  const std::shared_ptr<Entry> entry = find(info[0]);
  const auto position = static_cast<uint64_t>(info[1].ToNumber().Int64Value());
  const Tape::Status status = entry->runtime->read_stage(position, info[2].ToNumber().Uint32Value());
  return Napi::Number::New(info.Env(), static_cast<int>(status));
}

Napi::Value run_pass(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  auto pending = std::make_unique<PendingPass>(env);
  pending->entry = find(info[0]);
  PassRequest request = read_request(info[1].As<Napi::Object>(), *pending->entry);
  pending->request = Napi::Persistent(info[1].As<Napi::Object>());
  pending->settle = Napi::ThreadSafeFunction::New(env, Napi::Function::New(env, [](const Napi::CallbackInfo&) {}), "layerstream pass", 0, 1);
  const Napi::Promise promise = pending->deferred.Promise();
  PendingPass* raw = pending.get();
  raw->entry->runtime->run_pass(std::move(request), [raw](PassResult result, std::exception_ptr error) {
    raw->result = result;
    raw->error = error;
    Napi::ThreadSafeFunction settle = raw->settle;
    settle.BlockingCall(raw, settle_pass);
    settle.Release();
  });
  pending.release();
  return promise;
}

Napi::Value cancel_model(const Napi::CallbackInfo& info) {
  find(info[0])->runtime->cancel();
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

Napi::Value stage_loaded(const Napi::CallbackInfo& info) {
  return Napi::Boolean::New(info.Env(), find(info[0])->runtime->loaded(info[1].ToNumber().Uint32Value()));
}

Napi::Value model_stats(const Napi::CallbackInfo& info) {
  const RuntimeStats stats = find(info[0])->runtime->stats();
  Napi::Object result = Napi::Object::New(info.Env());
  result.Set("bytesRead", static_cast<double>(stats.tape.bytes_read));
  result.Set("readSeconds", static_cast<double>(stats.tape.read_nanoseconds) * 1e-9);
  result.Set("kernels", stats.kernels);
  result.Set("reader", stats.reader);
  result.Set("readerReason", stats.reader_reason);
  result.Set("bufferedReason", stats.buffered_reason);
  return result;
}

}  // namespace

void register_model(Napi::Env env, Napi::Object exports) {
  const auto add = [&](const char* name, auto function) { exports.Set(name, guarded(env, name, function)); };
  add("createModel", create_model);
  add("destroyModel", destroy_model);
  add("readStage", read_stage);
  add("runPass", run_pass);
  add("cancelModel", cancel_model);
  add("resetTape", reset_tape);
  add("setTapeIdle", set_tape_idle);
  add("stageLoaded", stage_loaded);
  add("modelStats", model_stats);
}

}  // namespace layerstream
