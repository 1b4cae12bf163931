// A model as native code sees it: where its weights lie in files, what is held, and one plan a kind of stage.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <variant>
#include <vector>

#include "../backend/device.h"

namespace layerstream {

// Float32 working memory, one row a token. `hidden` and `normed` live through a pass; the others only within one stage,
// in memory that the registers of attention share with those of MLPs and experts.
enum class Register : uint8_t {
  kHidden,
  kNormed,
  kQuery,
  kKey,
  kValue,
  kLatent,
  kQueryNope,
  kAttended,
  kGate,
  kUp,
  kRouter,
  kExpertInput,
  kExpertOutput,
  kLogits,
  kCount,
};
constexpr size_t kRegisterCount = static_cast<size_t>(Register::kCount);
constexpr Register kAttentionRegisters[] = {Register::kQuery,  Register::kKey,       Register::kValue,
                                            Register::kLatent, Register::kQueryNope, Register::kAttended};
constexpr Register kMlpRegisters[] = {Register::kGate, Register::kUp, Register::kRouter, Register::kExpertInput,
                                      Register::kExpertOutput};
constexpr uint32_t kNone = UINT32_MAX;

// --- plans -------------------------------------------------------------------------------------------------------
// What a step computes is said at its op in backend/ops.h. `matrix` indexes Stage::matrices, every `..._vector`
// Stage::vectors (kNone: absent). Widths and offsets are floats within a token's row.

struct NormStep {
  Register input, output;
  uint32_t weight_vector = kNone, bias_vector = kNone;
  uint32_t groups = 1, width = 0;
  float epsilon = 0;
  bool centered = false, group_weights = false, accumulate = false;
};

// Without groups, output[output_offset + r] = row r . input[input_offset ...]. With `group_rows` > 0, row r belongs to
// group g = r / group_rows, reads input[input_offset + g * group_input_stride ...] and writes
// output[output_offset + g * group_output_stride + r % group_rows].
struct MatmulStep {
  Register input, output;
  uint32_t matrix = 0, bias_vector = kNone, row_scale_vector = kNone;
  bool accumulate = false;
  float scale = 1.0f;
  uint32_t input_offset = 0, output_offset = 0;
  uint32_t group_rows = 0, group_input_stride = 0, group_output_stride = 0;
};

struct RopeStep {
  Register target;
  uint32_t heads = 0, head_dim = 0, rotary_dim = 0, offset = 0, table = 0;
  bool interleaved = false;
};

// Without a value register, values are the first value_dim floats of each key.
struct AttentionStep {
  Register query, key, output;
  Register value = Register::kCount;
  uint32_t heads = 0, kv_heads = 0, head_dim = 0, value_dim = 0;
  float scale = 1.0f;
  uint32_t window = 0;  // 0: unlimited
  float soft_cap = 0;   // 0: none
  uint32_t sinks_vector = kNone;
  std::vector<float> alibi_slopes{};  // one a head, or none
  uint32_t logn_length = 0;         // 0: none
  Range slopes{};                   // alibi_slopes in device memory
};

struct ActivationStep {
  Register gate;
  Register up = Register::kCount;  // kCount: no factor
  uint32_t width = 0;
  Activation activation = Activation::kSilu;
  float alpha = 0, limit = 0;
};

struct ScaleTokensStep {
  Register target, factor;
  uint32_t width = 0;
};

struct SoftCapStep {
  Register target;
  uint32_t width = 0;
  float cap = 0;
};

enum class Scoring : uint8_t { kSoftmax, kSigmoid };
enum class GroupScore : uint8_t { kMax, kTopTwoSum };

// How a token's experts follow from its row of router logits; see router.h.
struct RoutingRule {
  uint32_t experts = 0, per_token = 0;
  Scoring scoring = Scoring::kSoftmax;
  uint32_t group_count = 1, groups_kept = 1;
  GroupScore group_score = GroupScore::kMax;
  bool normalize = false;
  float scale = 1.0f;
};

// Chooses experts for every token. After the other steps of the stage, the following `experts` stages of the model each
// run on the tokens that chose them, and what they leave in `expertOutput`, weighted, is added to `output`.
struct RouteStep {
  Register logits, input, output;
  uint32_t correction_vector = kNone;
  RoutingRule rule;
};

using Step = std::variant<NormStep, MatmulStep, RopeStep, AttentionStep, ActivationStep, ScaleTokensStep, SoftCapStep, RouteStep>;
using Plan = std::vector<Step>;

// --- stages ------------------------------------------------------------------------------------------------------

// A low-rank addition to a matrix (LoRA): its product grows by scale * b (a x). Always in device memory.
struct Adapter {
  uint32_t rank = 0;
  float scale = 1.0f;
  std::vector<float> a{}, b{};  // [rank, columns], [rows, rank]; empty once they are in device memory
  Range a_memory{}, b_memory{};
};

// A matrix that is read from disk, in its stage's file.
struct Matrix {
  Format format = Format::kF32;
  uint32_t block = 0;
  uint32_t rows = 0, columns = 0;
  uint64_t row_bytes = 0;
  uint64_t offset = 0;              // in the file
  uint32_t lz4_rows = 0;            // rows of an LZ4 block, the last one has the rest; 0: the rows lie there as they are
  std::vector<uint32_t> lz4_bytes{};   // of each block, one after the other; as many as its rows have: they lie there
  uint64_t place = 0;               // of row 0 in the stage's extent in memory, which begins at extent_offset
  uint64_t column_order = UINT64_MAX;  // offset of `columns` uint32: stored column c multiplies input[order[c]]
  std::vector<Adapter> adapters{};
  Range order{};                    // the column order in device memory

  bool permuted() const { return column_order != UINT64_MAX; }
  bool encoded() const { return lz4_rows > 0; }
  uint64_t bytes() const { return rows * row_bytes; }
  // In the file.
  uint64_t stored_bytes() const;
};

// What is wrong with the LZ4 blocks of a matrix, or empty. Blocks but the last are whole pages: chunks end where they do.
std::string encoding_problem(const Matrix& matrix);

// A norm weight or a bias: always in device memory, as float32.
struct Vector {
  Format format = Format::kF32;
  uint32_t length = 0;
  uint64_t offset = 0;  // in the file
  float add = 0;        // added to every element
  Range memory{};
  Range on_processor{};  // the same for ops of stages that are placed there
};

struct Stage;

// Where a chunk stays between passes.
enum class Tier : uint8_t {
  kDisk,    // streamed
  kDevice,  // held in the device's memory
  kHost,    // held in pinned memory, and copied to a slot in each pass; not on unified devices, where it is the device's
};

// Rows of one matrix within a chunk.
struct Piece {
  uint32_t matrix = 0;
  uint32_t row_begin = 0, row_end = 0;
  uint64_t offset = 0;  // of row_begin, in the chunk
};

// What one read brings: a page-aligned extent of the file with whole rows of one or several matrices, or with whole LZ4
// blocks of one.
struct Chunk {
  uint64_t offset = 0, length = 0;  // in the stage's extent in memory; offsets count from where extent_offset does
  uint64_t stored_offset = 0, stored_length = 0;  // in the file
  uint32_t block_begin = 0, block_end = 0;        // LZ4 blocks of its only piece
  uint64_t blocks_offset = 0;                     // of the first of them, in the file
  uint64_t shared = 0;  // bytes at its front that the chunk before it ends with: at most a page, never all
  std::vector<Piece> pieces;
  Tier tier = Tier::kDisk;
  bool loaded = false;      // held, and read into its place
  uint8_t* host = nullptr;  // its place in the host tier, pinned
  Buffer* alias = nullptr;  // the same as memory of the processor, where the stage is placed there

  bool held() const { return tier != Tier::kDisk; }
  bool held_on_device() const { return tier == Tier::kDevice; }
  bool encoded() const { return block_end > block_begin; }
  // What is read when `known` bytes at the front are there already.
  uint64_t read_bytes(uint64_t known) const { return encoded() ? stored_length : length - known; }
  // Staging memory for that: none for what is read to where it is held. Blocks lie behind the place of what they become.
  uint64_t staging_bytes(uint64_t known, bool in_place) const {
    return (in_place ? 0 : length - known) + (encoded() ? stored_length : 0);
  }
};

// Decodes the LZ4 blocks of a chunk of `stage`, whose stored extent is at `stored`, to `memory`. Throws
// Error{"STORE_CORRUPT"} naming the file for blocks that are none.
void decode_chunk(const Stage& stage, const Chunk& chunk, const uint8_t* stored, uint8_t* memory, const std::string& path);

struct Stage {
  uint32_t kind = 0;   // index of the plan
  uint32_t file = 0;
  uint32_t layer = kNone;   // index in the KV cache; kNone for embed and head
  uint32_t expert = kNone;  // of the route step in the stage before the layer's first expert; never on the tape
  std::vector<uint8_t> held_chunks{};  // a Tier for each chunk; none: nothing is held
  bool on_processor = false;     // in passes of few tokens; see processor.h
  std::vector<Matrix> matrices;  // in the order in which the plan uses them, which is their order in the file
  std::vector<Vector> vectors;
  std::vector<Chunk> chunks;
  // All chunks, page-aligned, as they are in memory: as in the file, but with LZ4 blocks decoded.
  uint64_t extent_offset = 0, extent_bytes = 0;
  Buffer* memory = nullptr;       // mirrors the extent; only chunks held there are committed in it
  std::vector<float> correction;  // of the stage's route step: added to scores when experts are chosen

  bool routed() const { return expert != kNone; }
  // Bytes at the front of a chunk that the one before brings to the same place.
  uint64_t known(size_t chunk) const {
    return chunk > 0 && chunks[chunk].held_on_device() && chunks[chunk - 1].held_on_device() ? chunks[chunk].shared : 0;
  }
  // Every chunk is in the device's memory.
  bool resident() const;
};

// Cuts the matrices of a stage into chunks of about `chunk_bytes`, at row boundaries, and fills chunks and extent.
void cut_into_chunks(Stage& stage, uint64_t chunk_bytes);

// Sets the chunks' tiers from `held_chunks`; chunks whose tier changes are loaded no longer.
void mark_held(Stage& stage);

// --- the model ---------------------------------------------------------------------------------------------------

struct FileDescription {
  std::string path;
  uint64_t size = 0;
};

// Where rows for token ids come from.
struct EmbeddingDescription {
  uint32_t stage = 0, matrix = 0;
  float scale = 1.0f;
};

struct RuntimeDescription {
  std::string device = "cpu";
  std::string kernel_directory{};  // where a device keeps what it compiles; empty: nowhere
  uint32_t threads = 1;
  Precision precision = Precision::kExact;
  std::vector<FileDescription> files;
  std::vector<Plan> plans;
  std::vector<Stage> stages;  // in execution order; the embedding's stage first unless tied
  EmbeddingDescription embedding;
  uint32_t register_widths[kRegisterCount] = {};  // floats a token
  std::vector<uint32_t> rope_dims;                // rotary_dim of each rope table
  uint64_t chunk_bytes = 0;
  uint64_t ring_bytes = 0;
  uint64_t slot_bytes = 0;                        // device memory for chunks that are not held there; unified devices need none
  bool read_ahead = true;                         // between passes, until the ring is full
  uint64_t expert_ring_bytes = 0;                 // 0: no stage is routed, or all are held in unified memory
  uint32_t max_tokens = 0;                        // tokens in one pass
  uint32_t block_tokens = 0;                      // tokens that a stage works on at once; 0: all of a pass
  bool normed_carried = true;                     // a stage may use what the stage before has left in `normed`
  uint32_t vocab_size = 0;
  uint32_t kv_layers = 0, kv_heads = 0, key_dim = 0;
  uint32_t value_dim = 0;                         // 0: values live in keys
  uint32_t page_count = 0, page_positions = 0;
  uint32_t trace_spans = 0;                       // spans that the trace keeps; 0: no trace
  KvFormat kv_format = KvFormat::kF32;
  uint32_t kv_part_pages = 0;                     // that come to a device with memory of its own at once, of layers that are elsewhere
  std::string spill_directory;                    // for layers of the KV cache that do not fit in memory; empty: none

  // Of one page of one layer: keys of all heads, then values of all heads, whole pages of memory.
  uint64_t kv_keys_bytes() const { return kv_heads * kv_block_bytes(kv_format, page_positions, key_dim); }
  uint64_t kv_page_bytes() const;
};

// Throws Error{"INTERNAL"} for a plan that contradicts itself, the registers or the stages, Error{"STORE_INVALID"} for
// numbers of tensors that cannot be. What passes cannot make a step touch memory outside its registers and tensors.
void check_description(const RuntimeDescription& description);

// Throws Error{"INTERNAL"} unless there is a tier that the device has for each chunk of the stage, which has been cut, or none at
// all. Experts, and embeddings that are gathered, are held as a whole.
void check_held(const RuntimeDescription& description, size_t stage, std::span<const uint8_t> tiers, bool unified);

}  // namespace layerstream
