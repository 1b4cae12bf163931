// Two small models that between them have every kind of step, with experts: `write_mixture` (grouped-query attention with
// all its options, softmax routing) and `write_latent` (latent attention, sigmoid routing by groups, a shared expert).
#pragma once

#include <filesystem>
#include <numeric>
#include <random>
#include <vector>

#include "synthetic_model.h"

namespace synthetic {

constexpr Format kMixedFormats[] = {Format::kF32, Format::kQ8, Format::kBF16, Format::kQ4, Format::kF16};

// Stages of one model, and the files that hold them.
class ModelWriter {
 public:
  explicit ModelWriter(std::filesystem::path directory) : directory_(std::move(directory)) {}

  void begin_file() { writer_ = FileWriter(static_cast<uint32_t>(description.files.size()) + 100); }
  void end_file(const std::string& name) {
    description.files.push_back(writer_.write(directory_ / name));
  }
  void begin_stage(uint32_t kind, uint32_t layer = kNone, uint32_t expert = kNone) {
    writer_.begin_stage();
    Stage stage;
    stage.kind = kind;
    stage.layer = layer;
    stage.expert = expert;
    stage.file = static_cast<uint32_t>(description.files.size());
    description.stages.push_back(stage);
  }
  // Formats take turns.
  Matrix& matrix(uint32_t rows, uint32_t columns) {
    stage().matrices.push_back(writer_.matrix(kMixedFormats[next_format_++ % std::size(kMixedFormats)], rows, columns));
    return stage().matrices.back();
  }
  void permuted(uint32_t rows, uint32_t columns) {
    const uint64_t order = writer_.column_order(columns);
    matrix(rows, columns).column_order = order;
  }
  void adapted(uint32_t rows, uint32_t columns, uint32_t rank) {
    Matrix& target = matrix(rows, columns);
    for (const float scale : {2.0f, 0.5f}) {
      Adapter adapter{.rank = rank, .scale = scale};
      for (uint32_t i = 0; i < rank * columns; ++i) adapter.a.push_back(normal_(random_));
      for (uint32_t i = 0; i < rank * rows; ++i) adapter.b.push_back(normal_(random_));
      target.adapters.push_back(adapter);
    }
  }
  void vector(uint32_t length, float add = 0) {
    stage().vectors.push_back(writer_.vector(Format::kF32, length));
    stage().vectors.back().add = add;
  }
  void width(Register name, uint32_t floats) { description.register_widths[static_cast<size_t>(name)] = floats; }

  RuntimeDescription description;

 private:
  Stage& stage() { return description.stages.back(); }

  std::filesystem::path directory_;
  FileWriter writer_{0};
  uint32_t next_format_ = 0;
  std::mt19937 random_{77};
  std::normal_distribution<float> normal_{0, 0.05f};
};

inline void finish_model(RuntimeDescription& description, uint32_t layers, uint32_t vocab) {
  description.chunk_bytes = 16 << 10;
  description.max_tokens = 24;
  description.vocab_size = vocab;
  description.kv_layers = layers;
  description.page_count = 8;
  description.page_positions = 8;
  description.kv_part_pages = kAttentionPartPositions / 8;
}

inline RuntimeDescription write_mixture(const std::filesystem::path& directory) {
  constexpr uint32_t kWidth = 88, kQueries = 6, kKeys = 2, kKeyDim = 20, kValueDim = 12, kExperts = 5, kExpertWidth = 72;
  constexpr uint32_t kWords = 301, kLayerCount = 2;
  ModelWriter model(directory);
  model.description.plans = {
      {},
      {NormStep{.input = Register::kHidden, .output = Register::kNormed, .weight_vector = 0, .bias_vector = 1, .width = kWidth,
                .epsilon = 1e-5f, .centered = true},
       MatmulStep{.input = Register::kNormed, .output = Register::kQuery, .matrix = 0, .bias_vector = 2},
       MatmulStep{.input = Register::kNormed, .output = Register::kKey, .matrix = 1},
       MatmulStep{.input = Register::kNormed, .output = Register::kValue, .matrix = 2},
       NormStep{.input = Register::kQuery, .output = Register::kQuery, .weight_vector = 3, .groups = kQueries, .width = kKeyDim,
                .epsilon = 1e-6f},
       NormStep{.input = Register::kKey, .output = Register::kKey, .weight_vector = 4, .groups = kKeys, .width = kKeyDim,
                .epsilon = 1e-6f, .group_weights = true},
       RopeStep{.target = Register::kQuery, .heads = kQueries, .head_dim = kKeyDim, .rotary_dim = 12, .offset = 4, .interleaved = true},
       RopeStep{.target = Register::kKey, .heads = kKeys, .head_dim = kKeyDim, .rotary_dim = 12, .offset = 4, .interleaved = true},
       AttentionStep{.query = Register::kQuery, .key = Register::kKey, .output = Register::kAttended, .value = Register::kValue,
                     .heads = kQueries, .kv_heads = kKeys, .head_dim = kKeyDim, .value_dim = kValueDim, .scale = 0.3f, .window = 9,
                     .soft_cap = 3.0f, .sinks_vector = 5, .alibi_slopes = {0.5f, 0.25f, 0.125f, 0.06f, 0.03f, 0.01f}, .logn_length = 5},
       MatmulStep{.input = Register::kAttended, .output = Register::kHidden, .matrix = 3, .bias_vector = 6, .row_scale_vector = 7,
                  .accumulate = true, .scale = 0.7f}},
      {NormStep{.input = Register::kHidden, .output = Register::kNormed, .weight_vector = 0, .width = kWidth, .epsilon = 1e-5f},
       MatmulStep{.input = Register::kNormed, .output = Register::kRouter, .matrix = 0, .bias_vector = 1, .scale = 4.0f},
       RouteStep{.logits = Register::kRouter, .input = Register::kNormed, .output = Register::kHidden,
                 .rule = {.experts = kExperts, .per_token = 2, .normalize = true}}},
      {MatmulStep{.input = Register::kExpertInput, .output = Register::kGate, .matrix = 0, .bias_vector = 0},
       MatmulStep{.input = Register::kExpertInput, .output = Register::kUp, .matrix = 1, .bias_vector = 1},
       ActivationStep{.gate = Register::kGate, .up = Register::kUp, .width = kExpertWidth, .activation = Activation::kClampedSwiglu,
                      .alpha = 1.702f, .limit = 0.3f},
       MatmulStep{.input = Register::kGate, .output = Register::kExpertOutput, .matrix = 2, .bias_vector = 2}},
      {NormStep{.input = Register::kHidden, .output = Register::kNormed, .width = kWidth, .epsilon = 1e-5f, .centered = true},
       MatmulStep{.input = Register::kNormed, .output = Register::kLogits, .matrix = 0, .row_scale_vector = 0},
       SoftCapStep{.target = Register::kLogits, .width = kWords, .cap = 0.05f}}};

  model.begin_file();
  model.begin_stage(0);
  model.matrix(kWords, kWidth);
  model.end_file("embed");
  for (uint32_t layer = 0; layer < kLayerCount; ++layer) {
    model.begin_file();
    model.begin_stage(1, layer);
    model.vector(kWidth, 1);
    model.vector(kWidth);
    model.vector(kQueries * kKeyDim);
    model.vector(kKeyDim, 1);
    model.vector(kKeys * kKeyDim, 1);
    model.vector(kQueries);
    model.vector(kWidth);
    model.vector(kWidth, 0.5f);
    model.matrix(kQueries * kKeyDim, kWidth);
    model.permuted(kKeys * kKeyDim, kWidth);
    model.adapted(kKeys * kValueDim, kWidth, 3);
    model.permuted(kWidth, kQueries * kValueDim);
    model.begin_stage(2, layer);
    model.vector(kWidth, 1);
    model.vector(kExperts);
    model.matrix(kExperts, kWidth);
    model.end_file("layer-" + std::to_string(layer));
    model.begin_file();
    for (uint32_t expert = 0; expert < kExperts; ++expert) {
      model.begin_stage(3, layer, expert);
      for (const uint32_t length : {kExpertWidth, kExpertWidth, kWidth}) model.vector(length);
      model.matrix(kExpertWidth, kWidth);
      model.permuted(kExpertWidth, kWidth);
      if (expert % 2 == 0) model.adapted(kWidth, kExpertWidth, 2);
      else model.matrix(kWidth, kExpertWidth);
    }
    model.end_file("experts-" + std::to_string(layer));
  }
  model.begin_file();
  model.begin_stage(4);
  model.vector(kWords, 0.5f);
  model.matrix(kWords, kWidth);
  model.end_file("head");

  model.width(Register::kHidden, kWidth);
  model.width(Register::kNormed, kWidth);
  model.width(Register::kQuery, kQueries * kKeyDim);
  model.width(Register::kKey, kKeys * kKeyDim);
  model.width(Register::kValue, kKeys * kValueDim);
  model.width(Register::kAttended, kQueries * kValueDim);
  model.width(Register::kGate, kExpertWidth);
  model.width(Register::kUp, kExpertWidth + 3);
  model.width(Register::kRouter, kExperts + 2);
  model.width(Register::kExpertInput, kWidth);
  model.width(Register::kExpertOutput, kWidth);
  model.width(Register::kLogits, kWords);
  model.description.rope_dims = {12};
  model.description.kv_heads = kKeys;
  model.description.key_dim = kKeyDim;
  model.description.value_dim = kValueDim;
  model.description.embedding.scale = 3.0f;
  finish_model(model.description, kLayerCount, kWords);
  return model.description;
}

inline RuntimeDescription write_latent(const std::filesystem::path& directory) {
  constexpr uint32_t kWidth = 72, kQueries = 3, kNope = 12, kRotary = 8, kLatent = 32, kKeyDim = kLatent + kRotary, kValueDim = 10;
  constexpr uint32_t kExperts = 8, kExpertWidth = 56, kSharedWidth = 90, kWords = 203, kLayerCount = 3;
  ModelWriter model(directory);
  model.description.plans = {
      {},
      {NormStep{.input = Register::kHidden, .output = Register::kNormed, .weight_vector = 0, .width = kWidth, .epsilon = 1e-5f},
       // The part without position, through the latent space of the keys; then the rotated part beside it.
       MatmulStep{.input = Register::kNormed, .output = Register::kQueryNope, .matrix = 0},
       MatmulStep{.input = Register::kQueryNope, .output = Register::kQuery, .matrix = 1, .group_rows = kLatent,
                  .group_input_stride = kNope, .group_output_stride = kKeyDim},
       MatmulStep{.input = Register::kNormed, .output = Register::kQuery, .matrix = 2, .output_offset = kLatent, .group_rows = kRotary,
                  .group_output_stride = kKeyDim},
       MatmulStep{.input = Register::kNormed, .output = Register::kKey, .matrix = 3},
       NormStep{.input = Register::kKey, .output = Register::kKey, .weight_vector = 1, .width = kLatent, .epsilon = 1e-6f},
       RopeStep{.target = Register::kQuery, .heads = kQueries, .head_dim = kKeyDim, .rotary_dim = kRotary, .offset = kLatent},
       RopeStep{.target = Register::kKey, .heads = 1, .head_dim = kKeyDim, .rotary_dim = kRotary, .offset = kLatent},
       AttentionStep{.query = Register::kQuery, .key = Register::kKey, .output = Register::kAttended, .heads = kQueries, .kv_heads = 1,
                     .head_dim = kKeyDim, .value_dim = kLatent, .scale = 0.2f},
       MatmulStep{.input = Register::kAttended, .output = Register::kLatent, .matrix = 4, .group_rows = kValueDim,
                  .group_input_stride = kLatent, .group_output_stride = kValueDim},
       MatmulStep{.input = Register::kLatent, .output = Register::kHidden, .matrix = 5, .accumulate = true}},
      {NormStep{.input = Register::kHidden, .output = Register::kNormed, .weight_vector = 0, .width = kWidth, .epsilon = 1e-5f},
       MatmulStep{.input = Register::kNormed, .output = Register::kRouter, .matrix = 0, .scale = 8.0f},
       RouteStep{.logits = Register::kRouter, .input = Register::kNormed, .output = Register::kHidden, .correction_vector = 1,
                 .rule = {.experts = kExperts, .per_token = 3, .scoring = Scoring::kSigmoid, .group_count = 4, .groups_kept = 2,
                          .group_score = GroupScore::kTopTwoSum, .normalize = true, .scale = 2.5f}},
       MatmulStep{.input = Register::kNormed, .output = Register::kGate, .matrix = 1},
       MatmulStep{.input = Register::kNormed, .output = Register::kRouter, .matrix = 2},
       ActivationStep{.gate = Register::kGate, .width = kSharedWidth, .activation = Activation::kGelu},
       ScaleTokensStep{Register::kGate, Register::kRouter, kSharedWidth},
       MatmulStep{.input = Register::kGate, .output = Register::kHidden, .matrix = 3, .accumulate = true}},
      {MatmulStep{.input = Register::kExpertInput, .output = Register::kGate, .matrix = 0},
       MatmulStep{.input = Register::kExpertInput, .output = Register::kUp, .matrix = 1},
       ActivationStep{.gate = Register::kGate, .up = Register::kUp, .width = kExpertWidth},
       MatmulStep{.input = Register::kGate, .output = Register::kExpertOutput, .matrix = 2}},
      {NormStep{.input = Register::kHidden, .output = Register::kNormed, .weight_vector = 0, .width = kWidth, .epsilon = 1e-5f},
       MatmulStep{.input = Register::kNormed, .output = Register::kLogits, .matrix = 0}}};

  for (uint32_t layer = 0; layer < kLayerCount; ++layer) {
    model.begin_file();
    model.begin_stage(1, layer);
    model.vector(kWidth, 1);
    model.vector(kLatent, 1);
    model.matrix(kQueries * kNope, kWidth);
    model.permuted(kQueries * kLatent, kNope);
    model.matrix(kQueries * kRotary, kWidth);
    model.matrix(kKeyDim, kWidth);
    model.adapted(kQueries * kValueDim, kLatent, 4);
    model.matrix(kWidth, kQueries * kValueDim);
    model.begin_stage(2, layer);
    model.vector(kWidth, 1);
    model.vector(kExperts);
    model.matrix(kExperts, kWidth);
    model.matrix(kSharedWidth, kWidth);
    model.matrix(1, kWidth);
    model.matrix(kWidth, kSharedWidth);
    for (uint32_t expert = 0; expert < kExperts; ++expert) {
      model.begin_stage(3, layer, expert);
      model.matrix(kExpertWidth, kWidth);
      model.matrix(kExpertWidth, kWidth);
      model.matrix(kWidth, kExpertWidth);
    }
    model.end_file("layer-" + std::to_string(layer));
  }
  model.begin_file();
  model.begin_stage(4);
  model.vector(kWidth, 1);
  model.matrix(kWords, kWidth);
  model.end_file("head");

  model.width(Register::kHidden, kWidth);
  model.width(Register::kNormed, kWidth);
  model.width(Register::kQuery, kQueries * kKeyDim);
  model.width(Register::kQueryNope, kQueries * kNope);
  model.width(Register::kKey, kKeyDim);
  model.width(Register::kLatent, kQueries * kValueDim);
  model.width(Register::kAttended, kQueries * kLatent);
  model.width(Register::kGate, kSharedWidth);
  model.width(Register::kUp, kExpertWidth);
  model.width(Register::kRouter, kExperts);
  model.width(Register::kExpertInput, kWidth);
  model.width(Register::kExpertOutput, kWidth);
  model.width(Register::kLogits, kWords);
  model.description.rope_dims = {kRotary};
  model.description.kv_heads = 1;
  model.description.key_dim = kKeyDim;
  model.description.embedding.stage = static_cast<uint32_t>(model.description.stages.size()) - 1;
  finish_model(model.description, kLayerCount, kWords);
  return model.description;
}

}  // namespace synthetic
