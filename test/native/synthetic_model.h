// A small Llama-like model with random weights, in files of raw tensors.
#pragma once

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <numeric>
#include <random>
#include <vector>

#include "../../native/cpu/kernels.h"
#include "../../native/platform/memory.h"
#include "../../native/stream/runtime.h"

namespace synthetic {

using namespace layerstream;

constexpr uint32_t kHidden = 160, kHeads = 6, kKvHeads = 2, kHeadDim = 24, kIntermediate = 432, kVocab = 509, kLayers = 3;
constexpr uint32_t kPagePositions = 8, kPages = 8, kMaxTokens = 16;
constexpr uint32_t kPartPages = kAttentionPartPositions / kPagePositions;

// Writes one file: tensors follow one another, stages start on pages, the end is padded to a page.
class FileWriter {
 public:
  explicit FileWriter(uint32_t seed) : random_(seed), bytes_(kPageBytes, 0xaa) {}

  void begin_stage() { bytes_.resize(align_up(bytes_.size(), kPageBytes), 0xaa); }

  Matrix matrix(Format format, uint32_t rows, uint32_t columns) {
    const uint32_t block = format == Format::kQ8 ? 32 : format == Format::kQ4 ? kQ4Block : 0;
    const Matrix matrix{.format = format, .block = block, .rows = rows, .columns = columns, .row_bytes = row_bytes(format, columns, block),
                        .offset = bytes_.size()};
    if (block == 0) {
      elements(format, size_t{rows} * columns);
    } else {
      std::vector<float> source(size_t{rows} * columns);
      std::normal_distribution<float> normal(0.0f, 0.08f);
      for (float& value : source) value = normal(random_);
      bytes_.resize(matrix.offset + rows * matrix.row_bytes);
      cpu::scalar_kernels().quantize({Format::kF32, reinterpret_cast<const uint8_t*>(source.data()), rows, columns, format, block,
                                      bytes_.data() + matrix.offset});
    }
    return matrix;
  }

  Vector vector(Format format, uint32_t length) {
    const Vector vector{.format = format, .length = length, .offset = bytes_.size()};
    elements(format, length);
    return vector;
  }

  // A random order of columns; returns its offset.
  uint64_t column_order(uint32_t columns) {
    std::vector<uint32_t> order(columns);
    std::iota(order.begin(), order.end(), 0);
    std::shuffle(order.begin(), order.end(), random_);
    const uint64_t offset = bytes_.size();
    const auto* bytes = reinterpret_cast<const uint8_t*>(order.data());
    bytes_.insert(bytes_.end(), bytes, bytes + columns * sizeof(uint32_t));
    return offset;
  }

  FileDescription write(const std::filesystem::path& path) {
    begin_stage();
    std::ofstream stream(path, std::ios::binary);
    stream.write(reinterpret_cast<const char*>(bytes_.data()), static_cast<std::streamsize>(bytes_.size()));
    return {path.string(), bytes_.size()};
  }

 private:
  // Values between 1/32 and 1/8 in size.
  void elements(Format format, size_t count) {
    const auto put = [this](uint32_t bits, int size) {
      for (int byte = 0; byte < size; ++byte) bytes_.push_back(static_cast<uint8_t>(bits >> (8 * byte)));
    };
    for (size_t i = 0; i < count; ++i) {
      const auto bits = static_cast<uint32_t>(random_());
      if (format == Format::kF32) put((bits & 0x80ffffff) | 0x3d000000, 4);
      if (format == Format::kF16) put((bits & 0x87ff) | 0x2800, 2);
      if (format == Format::kBF16) put((bits & 0x80ff) | 0x3d00, 2);
    }
  }

  std::mt19937 random_;
  std::vector<uint8_t> bytes_;
};

inline NormStep norm_step(Register input, Register output, uint32_t width) {
  return {.input = input, .output = output, .weight_vector = 0, .width = width, .epsilon = 1e-5f};
}

inline MatmulStep matmul_step(Register input, Register output, uint32_t matrix, uint32_t bias_vector, bool accumulate) {
  return {.input = input, .output = output, .matrix = matrix, .bias_vector = bias_vector, .accumulate = accumulate};
}

inline RopeStep rope_step(Register target, uint32_t heads) {
  return {.target = target, .heads = heads, .head_dim = kHeadDim, .rotary_dim = kHeadDim};
}

inline Plan attention_plan() {
  return {norm_step(Register::kHidden, Register::kNormed, kHidden),
          matmul_step(Register::kNormed, Register::kQuery, 0, 1, false),
          matmul_step(Register::kNormed, Register::kKey, 1, kNone, false),
          matmul_step(Register::kNormed, Register::kValue, 2, 2, false),
          rope_step(Register::kQuery, kHeads),
          rope_step(Register::kKey, kKvHeads),
          AttentionStep{.query = Register::kQuery,
                        .key = Register::kKey,
                        .output = Register::kQuery,
                        .value = Register::kValue,
                        .heads = kHeads,
                        .kv_heads = kKvHeads,
                        .head_dim = kHeadDim,
                        .value_dim = kHeadDim,
                        .scale = 1.0f / std::sqrt(static_cast<float>(kHeadDim))},
          matmul_step(Register::kQuery, Register::kHidden, 3, kNone, true)};
}

inline Plan mlp_plan() {
  return {norm_step(Register::kHidden, Register::kNormed, kHidden), matmul_step(Register::kNormed, Register::kGate, 0, kNone, false),
          matmul_step(Register::kNormed, Register::kUp, 1, kNone, false),
          ActivationStep{.gate = Register::kGate, .up = Register::kUp, .width = kIntermediate},
          matmul_step(Register::kGate, Register::kHidden, 2, kNone, true)};
}

inline Plan head_plan() {
  return {norm_step(Register::kHidden, Register::kNormed, kHidden),
          matmul_step(Register::kNormed, Register::kLogits, 0, kNone, false)};
}

// Writes the files into `directory`. Tied: the head's matrix is the embedding. Nothing is held; no ring yet.
inline RuntimeDescription write_model(const std::filesystem::path& directory, bool tied) {
  RuntimeDescription description;
  description.plans = {{}, attention_plan(), mlp_plan(), head_plan()};
  const auto add = [&](FileWriter& writer, const char* name, std::vector<Stage> stages) {
    for (Stage& stage : stages) {
      stage.file = static_cast<uint32_t>(description.files.size());
      description.stages.push_back(std::move(stage));
    }
    description.files.push_back(writer.write(directory / name));
  };
  if (!tied) {
    FileWriter writer(1);
    Stage embed;
    embed.matrices = {writer.matrix(Format::kBF16, kVocab, kHidden)};
    add(writer, "embed", {embed});
  }
  const Format formats[] = {Format::kF32, Format::kQ8, Format::kBF16, Format::kQ4, Format::kF16};
  for (uint32_t layer = 0; layer < kLayers; ++layer) {
    FileWriter writer(10 + layer);
    const auto format = [&](uint32_t index) { return formats[(layer * 2 + index) % std::size(formats)]; };
    Stage attention;
    attention.kind = 1;
    attention.layer = layer;
    writer.begin_stage();
    attention.vectors.push_back(writer.vector(Format::kF32, kHidden));
    attention.matrices.push_back(writer.matrix(format(0), kHeads * kHeadDim, kHidden));
    attention.vectors.push_back(writer.vector(Format::kBF16, kHeads * kHeadDim));
    attention.matrices.push_back(writer.matrix(format(1), kKvHeads * kHeadDim, kHidden));
    attention.matrices.push_back(writer.matrix(format(2), kKvHeads * kHeadDim, kHidden));
    attention.vectors.push_back(writer.vector(Format::kF16, kKvHeads * kHeadDim));
    attention.matrices.push_back(writer.matrix(format(3), kHidden, kHeads * kHeadDim));
    Stage mlp;
    mlp.kind = 2;
    mlp.layer = layer;
    writer.begin_stage();
    mlp.vectors.push_back(writer.vector(Format::kBF16, kHidden));
    mlp.matrices.push_back(writer.matrix(format(4), kIntermediate, kHidden));
    mlp.matrices.push_back(writer.matrix(format(3), kIntermediate, kHidden));
    mlp.matrices.push_back(writer.matrix(format(2), kHidden, kIntermediate));
    add(writer, layer == 0 ? "layer-0" : layer == 1 ? "layer-1" : "layer-2", {attention, mlp});
  }
  FileWriter writer(2);
  Stage head;
  head.kind = 3;
  head.vectors.push_back(writer.vector(Format::kF32, kHidden));
  head.matrices.push_back(writer.matrix(Format::kQ8, kVocab, kHidden));
  add(writer, "head", {head});

  description.embedding = {tied ? static_cast<uint32_t>(description.stages.size()) - 1 : 0, 0, 1.0f};
  const std::pair<Register, uint32_t> widths[] = {
      {Register::kHidden, kHidden},           {Register::kNormed, kHidden},           {Register::kQuery, kHeads * kHeadDim},
      {Register::kKey, kKvHeads * kHeadDim},  {Register::kValue, kKvHeads * kHeadDim}, {Register::kGate, kIntermediate},
      {Register::kUp, kIntermediate},         {Register::kLogits, kVocab}};
  for (const auto& [name, width] : widths) description.register_widths[static_cast<size_t>(name)] = width;
  description.rope_dims = {kHeadDim};
  description.chunk_bytes = 16 << 10;
  description.max_tokens = kMaxTokens;
  description.vocab_size = kVocab;
  description.kv_layers = kLayers;
  description.kv_heads = kKvHeads;
  description.key_dim = description.value_dim = kHeadDim;
  description.page_count = kPages;
  description.page_positions = kPagePositions;
  description.kv_part_pages = kPartPages;
  return description;
}

// Tokens of one sequence from `first_position` on, on the pages from `first_page` on.
inline PassRequest make_request(const std::vector<uint32_t>& tokens, uint32_t first_position, uint32_t first_page) {
  PassRequest request;
  request.tokens = tokens;
  const auto count = static_cast<uint32_t>(tokens.size());
  Segment segment{count, first_position, {}};
  for (uint32_t page = 0; page * kPagePositions < first_position + count; ++page) segment.pages.push_back(first_page + page);
  request.segments.push_back(segment);
  RopeTable rope;
  for (uint32_t i = 0; i < kHeadDim / 2; ++i) rope.inverse_frequencies.push_back(std::pow(1e4f, -2.0f * i / kHeadDim));
  request.ropes.push_back(rope);
  return request;
}

}  // namespace synthetic
