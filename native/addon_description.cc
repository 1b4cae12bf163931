#include "addon_description.h"

#include <algorithm>
#include <iterator>

#include "addon_values.h"

namespace layerstream {

namespace {

Format format_at(const Napi::Object& object) {
  const std::string name = string_at(object, "format");
  const std::optional<Format> format = format_named(name);
  if (format) return *format;
  throw Error("INTERNAL", "Unknown weight format " + name + ".");
}

// The value whose index in `names` is that of the string.
template <typename Value, size_t kCount>
Value named_at(const Napi::Object& object, const char* key, const char* const (&names)[kCount]) {
  const std::string name = string_at(object, key);
  const auto found = std::find(std::begin(names), std::end(names), name);
  if (found == std::end(names)) throw Error("INTERNAL", std::string("Unknown ") + key + " " + name + ".");
  return static_cast<Value>(found - std::begin(names));
}

constexpr const char* kRegisterNames[kRegisterCount] = {"hidden",   "normed", "query",  "key", "value",  "latent",      "queryNope",
                                                        "attended", "gate",   "up",     "router", "expertInput", "expertOutput", "logits"};
constexpr const char* kActivationNames[] = {"silu", "gelu", "geluTanh", "clampedSwiglu"};
constexpr const char* kScoringNames[] = {"softmax", "sigmoid"};
constexpr const char* kGroupScoreNames[] = {"max", "topTwoSum"};
constexpr const char* kPrecisionNames[] = {"exact", "fast"};

Register register_at(const Napi::Object& object, const char* key) { return named_at<Register>(object, key, kRegisterNames); }

Register optional_register_at(const Napi::Object& object, const char* key) {
  return has(object, key) ? register_at(object, key) : Register::kCount;
}

uint32_t optional_index_at(const Napi::Object& object, const char* key) { return has(object, key) ? uint_at(object, key) : kNone; }

// --- steps -------------------------------------------------------------------------------------------------------

NormStep read_norm(const Napi::Object& object) {
  return {.input = register_at(object, "input"),
          .output = register_at(object, "output"),
          .weight_vector = optional_index_at(object, "weightVector"),
          .bias_vector = optional_index_at(object, "biasVector"),
          .groups = uint_at(object, "groups"),
          .width = uint_at(object, "width"),
          .epsilon = float_at(object, "epsilon"),
          .centered = flag_at(object, "centered"),
          .group_weights = flag_at(object, "groupWeights"),
          .accumulate = flag_at(object, "accumulate")};
}

MatmulStep read_matmul(const Napi::Object& object) {
  MatmulStep step{.input = register_at(object, "input"),
                  .output = register_at(object, "output"),
                  .matrix = uint_at(object, "matrix"),
                  .bias_vector = optional_index_at(object, "biasVector"),
                  .row_scale_vector = optional_index_at(object, "rowScaleVector"),
                  .accumulate = flag_at(object, "accumulate"),
                  .scale = float_at(object, "scale"),
                  .input_offset = uint_at(object, "inputOffset"),
                  .output_offset = uint_at(object, "outputOffset")};
  if (!has(object, "groups")) return step;
  const Napi::Object groups = object_at(object, "groups");
  step.group_rows = uint_at(groups, "rows");
  step.group_input_stride = uint_at(groups, "inputStride");
  step.group_output_stride = uint_at(groups, "outputStride");
  if (step.group_rows == 0) throw Error("INTERNAL", "Groups of a product have no rows.");
  return step;
}

AttentionStep read_attention(const Napi::Object& object) {
  AttentionStep step{.query = register_at(object, "query"),
                     .key = register_at(object, "key"),
                     .output = register_at(object, "output"),
                     .value = optional_register_at(object, "value"),
                     .heads = uint_at(object, "heads"),
                     .kv_heads = uint_at(object, "kvHeads"),
                     .head_dim = uint_at(object, "headDim"),
                     .value_dim = uint_at(object, "valueDim"),
                     .scale = float_at(object, "scale"),
                     .window = uint_at(object, "window"),
                     .soft_cap = float_at(object, "softCap"),
                     .sinks_vector = optional_index_at(object, "sinksVector"),
                     .logn_length = uint_at(object, "lognLength")};
  if (!has(object, "alibiSlopes")) return step;
  for (const double slope : numbers_at(object, "alibiSlopes")) step.alibi_slopes.push_back(static_cast<float>(slope));
  return step;
}

RouteStep read_route(const Napi::Object& object) {
  return {.logits = register_at(object, "logits"),
          .input = register_at(object, "input"),
          .output = register_at(object, "output"),
          .correction_vector = optional_index_at(object, "correctionVector"),
          .rule = {.experts = uint_at(object, "experts"),
                   .per_token = uint_at(object, "perToken"),
                   .scoring = named_at<Scoring>(object, "scoring", kScoringNames),
                   .group_count = uint_at(object, "groupCount"),
                   .groups_kept = uint_at(object, "groupsKept"),
                   .group_score = named_at<GroupScore>(object, "groupScore", kGroupScoreNames),
                   .normalize = flag_at(object, "normalize"),
                   .scale = float_at(object, "scale")}};
}

Step read_step(const Napi::Object& object) {
  const std::string op = string_at(object, "op");
  if (op == "norm") return read_norm(object);
  if (op == "matmul") return read_matmul(object);
  if (op == "rope") {
    return RopeStep{.target = register_at(object, "target"),
                    .heads = uint_at(object, "heads"),
                    .head_dim = uint_at(object, "headDim"),
                    .rotary_dim = uint_at(object, "rotaryDim"),
                    .offset = uint_at(object, "offset"),
                    .table = uint_at(object, "table"),
                    .interleaved = flag_at(object, "interleaved")};
  }
  if (op == "attention") return read_attention(object);
  if (op == "activation") {
    return ActivationStep{.gate = register_at(object, "gate"),
                          .up = optional_register_at(object, "up"),
                          .width = uint_at(object, "width"),
                          .activation = named_at<Activation>(object, "activation", kActivationNames),
                          .alpha = float_at(object, "alpha"),
                          .limit = float_at(object, "limit")};
  }
  if (op == "scaleTokens") {
    return ScaleTokensStep{register_at(object, "target"), register_at(object, "factor"), uint_at(object, "width")};
  }
  if (op == "softCap") return SoftCapStep{register_at(object, "target"), uint_at(object, "width"), float_at(object, "cap")};
  if (op == "route") return read_route(object);
  throw Error("INTERNAL", "Unknown plan operation " + op + ".");
}

// --- stages ------------------------------------------------------------------------------------------------------

// Numbers of a matrix come from a manifest: what the kernels rely on is checked here.
Matrix read_matrix(const Napi::Object& item) {
  Matrix matrix{.format = format_at(item),
                .block = uint_at(item, "block"),
                .rows = uint_at(item, "rows"),
                .columns = uint_at(item, "columns"),
                .row_bytes = bytes_at(item, "rowBytes"),
                .offset = bytes_at(item, "offset")};
  if (matrix.rows == 0 || matrix.columns == 0 || !block_fits(matrix.format, matrix.columns, matrix.block) ||
      matrix.row_bytes != row_bytes(matrix.format, matrix.columns, matrix.block)) {
    throw Error("STORE_INVALID", "A matrix of " + std::to_string(matrix.rows) + " x " + std::to_string(matrix.columns) +
                                     " has blocks of " + std::to_string(matrix.block) + " columns in rows of " +
                                     std::to_string(matrix.row_bytes) + " bytes, which cannot be. Decompose the checkpoint again.");
  }
  if (has(item, "lz4")) {
    const Napi::Object lz4 = object_at(item, "lz4");
    matrix.lz4_rows = uint_at(lz4, "rows");
    matrix.lz4_bytes = uints_at(lz4, "bytes");
  }
  if (const std::string problem = encoding_problem(matrix); !problem.empty()) {
    throw Error("STORE_INVALID", "A matrix of " + std::to_string(matrix.rows) + " rows has " + problem + ". Decompose the checkpoint again.");
  }
  if (has(item, "columnOrder")) matrix.column_order = bytes_at(item, "columnOrder");
  if (!has(item, "adapters")) return matrix;
  each(item, "adapters", [&](const Napi::Object& adapter) {
    matrix.adapters.push_back({.rank = uint_at(adapter, "rank"),
                               .scale = float_at(adapter, "scale"),
                               .a = floats_at(adapter, "a"),
                               .b = floats_at(adapter, "b")});
  });
  return matrix;
}

Stage read_stage(const Napi::Object& object) {
  Stage stage;
  stage.kind = uint_at(object, "kind");
  stage.file = uint_at(object, "file");
  stage.layer = optional_index_at(object, "layer");
  if (has(object, "routed")) stage.expert = uint_at(object_at(object, "routed"), "expert");
  stage.on_processor = flag_at(object, "onProcessor");
  if (has(object, "heldChunks")) stage.held_chunks = flags_of(object.Get("heldChunks"));
  each(object, "matrices", [&](const Napi::Object& item) { stage.matrices.push_back(read_matrix(item)); });
  each(object, "vectors", [&](const Napi::Object& item) {
    stage.vectors.push_back({.format = format_at(item),
                             .length = uint_at(item, "length"),
                             .offset = bytes_at(item, "offset"),
                             .add = has(item, "add") ? float_at(item, "add") : 0.0f});
  });
  return stage;
}

}  // namespace

std::vector<uint8_t> flags_of(const Napi::Value& value) {
  if (!value.IsTypedArray() || value.As<Napi::TypedArray>().TypedArrayType() != napi_uint8_array) {
    throw Error("INTERNAL", "Expected a Uint8Array: heldChunks");
  }
  const auto array = value.As<Napi::Uint8Array>();
  return {array.Data(), array.Data() + array.ElementLength()};
}

std::vector<Chunk> chunks_of(const Napi::Object& object, uint64_t chunk_bytes) {
  Stage stage = read_stage(object);
  cut_into_chunks(stage, chunk_bytes);
  return std::move(stage.chunks);
}

RuntimeDescription read_description(const Napi::Object& object) {
  RuntimeDescription description;
  description.device = string_at(object, "device");
  description.threads = uint_at(object, "threads");
  description.precision = named_at<Precision>(object, "precision", kPrecisionNames);
  each(object, "files", [&](const Napi::Object& file) { description.files.push_back({string_at(file, "path"), bytes_at(file, "size")}); });
  each(object, "plans", [&](const Napi::Object& steps) {
    Plan plan;
    const auto array = steps.As<Napi::Array>();
    for (uint32_t index = 0; index < array.Length(); ++index) plan.push_back(read_step(array.Get(index).As<Napi::Object>()));
    description.plans.push_back(std::move(plan));
  });
  each(object, "stages", [&](const Napi::Object& stage) { description.stages.push_back(read_stage(stage)); });
  const Napi::Object embedding = object_at(object, "embedding");
  description.embedding = {uint_at(embedding, "stage"), uint_at(embedding, "matrix"), float_at(embedding, "scale")};
  const Napi::Object registers = object_at(object, "registers");
  for (size_t index = 0; index < kRegisterCount; ++index) {
    if (has(registers, kRegisterNames[index])) description.register_widths[index] = uint_at(registers, kRegisterNames[index]);
  }
  for (const double dim : numbers_at(object, "ropeDims")) {
    if (!(dim > 0 && dim <= UINT32_MAX)) throw Error("INTERNAL", "A rope table has no width.");
    description.rope_dims.push_back(static_cast<uint32_t>(dim));
  }
  description.chunk_bytes = bytes_at(object, "chunkBytes");
  description.ring_bytes = bytes_at(object, "ringBytes");
  description.slot_bytes = bytes_at(object, "slotBytes");
  description.read_ahead = flag_at(object, "readAhead");
  description.expert_ring_bytes = bytes_at(object, "expertRingBytes");
  description.max_tokens = uint_at(object, "maxTokens");
  description.block_tokens = uint_at(object, "blockTokens");
  description.normed_carried = flag_at(object, "normedCarried");
  description.vocab_size = uint_at(object, "vocabSize");
  description.kv_layers = uint_at(object, "kvLayers");
  description.kv_heads = uint_at(object, "kvHeads");
  description.key_dim = uint_at(object, "keyDim");
  description.value_dim = uint_at(object, "valueDim");
  description.page_count = uint_at(object, "pageCount");
  description.page_positions = uint_at(object, "pagePositions");
  description.kv_part_pages = uint_at(object, "kvPartPages");
  if (has(object, "traceSpans")) description.trace_spans = uint_at(object, "traceSpans");
  if (has(object, "kernelDirectory")) description.kernel_directory = string_at(object, "kernelDirectory");
  if (has(object, "spillDirectory")) description.spill_directory = string_at(object, "spillDirectory");
  description.kv_format = named_at<KvFormat>(object, "kvFormat", kKvFormatNames);
  return description;
}

}  // namespace layerstream
