// A model as native code sees it: where its weights lie in files, what is held, and one plan a kind of stage.
#pragma once

#include <cstdint>
#include <string>
#include <variant>
#include <vector>

#include "../backend/device.h"

namespace layerstream {

enum class Register : uint8_t { kHidden, kNormed, kQuery, kKey, kValue, kGate, kUp, kLogits, kCount };
constexpr size_t kRegisterCount = static_cast<size_t>(Register::kCount);
constexpr uint32_t kNone = UINT32_MAX;

// `weight` and `bias` of plan steps index Stage::vectors (norms, biases) or Stage::matrices (matmul weights).
struct NormStep {
  Register input, output;
  uint32_t vector, width;
  float epsilon;
};
struct MatmulStep {
  Register input, output;
  uint32_t matrix, bias_vector;  // kNone: no bias
  bool accumulate;
};
struct RopeStep {
  Register target;
  uint32_t heads, head_dim, rotary_dim, table;
};
struct AttentionStep {
  Register query, key, value;
  uint32_t heads, kv_heads, head_dim, window;
  float scale;
};
struct ActivationStep {
  Register gate, up;
};
using Step = std::variant<NormStep, MatmulStep, RopeStep, AttentionStep, ActivationStep>;
using Plan = std::vector<Step>;

// A matrix that is read from disk, in its stage's file.
struct Matrix {
  Format format = Format::kF32;
  uint32_t block = 0;
  uint32_t rows = 0, columns = 0;
  uint64_t row_bytes = 0;
  uint64_t offset = 0;  // in the file
};

// A norm weight or a bias: always in device memory, as float32.
struct Vector {
  Format format = Format::kF32;
  uint32_t length = 0;
  uint64_t offset = 0;  // in the file
  Range memory{};
};

// Rows of one matrix within a chunk.
struct Piece {
  uint32_t matrix = 0;
  uint32_t row_begin = 0, row_end = 0;
  uint64_t offset = 0;  // of row_begin, in the chunk
};

// What one read brings: a page-aligned extent of the file with whole rows of one or several matrices.
struct Chunk {
  uint64_t offset = 0, length = 0;
  uint64_t shared = 0;  // bytes at its front that the chunk before it ends with: at most a page, never all
  std::vector<Piece> pieces;
};

struct Stage {
  uint32_t kind = 0;   // index of the plan
  uint32_t file = 0;
  uint32_t layer = kNone;  // index in the KV cache; kNone for embed and head
  bool held = false;
  std::vector<Matrix> matrices;  // in the order in which the plan uses them, which is their order in the file
  std::vector<Vector> vectors;
  std::vector<Chunk> chunks;
  uint64_t extent_offset = 0, extent_bytes = 0;  // all chunks, page-aligned
  Buffer* memory = nullptr;  // held stages: mirrors the extent
};

// Cuts the matrices of a stage into chunks of about `chunk_bytes`, at row boundaries, and fills chunks and extent.
void cut_into_chunks(Stage& stage, uint64_t chunk_bytes);

}  // namespace layerstream
