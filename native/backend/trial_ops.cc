#include "trial_ops.h"

#include <algorithm>
#include <cstring>

#include "op_names.h"

namespace layerstream {

namespace {

constexpr uint32_t kTokens = 3, kManyTokens = 37;
constexpr uint32_t kRows = 20;
// Longer rows are as long as their rest beside whole ones of these.
constexpr uint32_t kColumns = 4096;

uint32_t part_of(uint32_t columns) { return columns < 2 * kColumns ? columns : kColumns + columns % kColumns; }

// In the order of the type.
constexpr const char* kActivationNames[] = {"silu", "gelu", "tanh gelu", "clamped swiglu"};

struct Count {
  const char* what;
  uint64_t count;
};

// "norm (1 group, 4096 elements)"
std::string named(const std::string& op, std::initializer_list<Count> counts) {
  std::string name = op;
  for (const auto& [what, count] : counts) {
    name += (name.size() == op.size() ? " (" : ", ") + std::to_string(count) + ' ' + what + (count == 1 ? "" : "s");
  }
  return name + ')';
}

Trial trial_of(EmbedOp op) {
  op.columns = part_of(op.columns);
  op.block = std::min(op.block, traits_of(op.format).blocks == Blocks::kEscapes ? op.columns : op.block);
  return {named(describe(op), {{"column", op.columns}}), [=](TrialMemory& memory) mutable {
    const TrialRegion row = memory.weights(op.format, 1, op.columns, op.block), output = memory.floats(op.columns);
    return Trial::Ready{output, [=](Buffer* buffer) mutable {
      op.row = row.in(buffer);
      op.output = output.in(buffer);
      return std::vector<Op>{op};
    }};
  }};
}

Trial trial_of(NormOp op) {
  op.bias = {};
  const uint32_t size = op.groups * op.width;
  return {named(describe(op), {{"group", op.groups}, {"element", op.width}}), [=](TrialMemory& memory) mutable {
    const TrialRegion input = memory.floats(uint64_t{kTokens} * size), output = memory.floats(uint64_t{kTokens} * size);
    const TrialRegion weight = memory.floats(op.group_weights ? size : op.width);
    return Trial::Ready{output, [=](Buffer* buffer) mutable {
      op.input = input.in(buffer);
      op.output = output.in(buffer);
      op.weight = weight.in(buffer);
      op.tokens = kTokens;
      op.input_stride = op.output_stride = size;
      return std::vector<Op>{op};
    }};
  }};
}

Trial trial_of(MatmulOp op, uint32_t tokens) {
  op.columns = part_of(op.columns);
  op.block = std::min(op.block, traits_of(op.format).blocks == Blocks::kEscapes ? op.columns : op.block);
  op.row_bytes = row_bytes(op.format, op.columns, op.block);
  op.rows = std::min(op.rows, kRows);
  op.bias = op.row_scale = {};
  op.input_kept = false;
  return {named(describe(op) + (op.precision == Precision::kExact ? " in exact precision" : ""), {{"row", op.rows}, {"column", op.columns}, {"token", tokens}}), [=](TrialMemory& memory) mutable {
    const TrialRegion weight = memory.weights(op.format, op.rows, op.columns, op.block);
    const TrialRegion input = memory.floats(uint64_t{tokens} * op.columns), output = memory.floats(uint64_t{tokens} * op.rows);
    return Trial::Ready{output, [=](Buffer* buffer) mutable {
      op.weight = weight.in(buffer);
      op.input = input.in(buffer);
      op.output = output.in(buffer);
      op.tokens = tokens;
      op.many_tokens = tokens > 1;
      op.input_stride = op.columns;
      op.output_stride = op.rows;
      return std::vector<Op>{op};
    }};
  }};
}

Trial trial_of(RopeOp op) {
  const uint32_t size = op.heads * op.head_dim;
  return {named(describe(op), {{"head", op.heads}, {"element", op.head_dim}}), [=](TrialMemory& memory) mutable {
    const TrialRegion target = memory.floats(uint64_t{kTokens} * size);
    const TrialRegion cosine = memory.floats(uint64_t{kTokens} * op.rotary_dim / 2), sine = memory.floats(uint64_t{kTokens} * op.rotary_dim / 2);
    return Trial::Ready{target, [=](Buffer* buffer) mutable {
      op.target = target.in(buffer);
      op.cosine = cosine.in(buffer);
      op.sine = sine.in(buffer);
      op.tokens = kTokens;
      op.stride = size;
      return std::vector<Op>{op};
    }};
  }};
}

// A prompt, and a token behind it.
Trial trial_of(AttentionOp op) {
  op.sinks = op.slopes = op.state = {};
  op.part_begin = 0;
  op.part_end = UINT32_MAX;
  return {named(describe(op), {{"head", op.heads}, {"key and value head", op.kv_heads}, {"element", op.head_dim}}), [=](TrialMemory& memory) mutable {
    const uint32_t query_width = op.heads * op.head_dim, key_width = op.kv_heads * op.head_dim;
    const uint32_t output_width = op.heads * op.value_dim, value_width = op.values_in_keys ? 0 : op.kv_heads * op.value_dim;
    const uint64_t positions = kManyTokens + 1;
    const TrialRegion query = memory.floats(positions * query_width), output = memory.floats(positions * output_width);
    const TrialRegion key = memory.floats(positions * key_width), value = memory.floats(positions * value_width);
    std::vector<uint32_t> pages((positions + op.page_positions - 1) / op.page_positions);
    for (size_t i = 0; i < pages.size(); ++i) pages[i] = static_cast<uint32_t>(pages.size() - 1 - i);
    const TrialRegion page_table = memory.words(pages);
    const TrialRegion key_cache = memory.add(pages.size() * op.page_bytes), value_cache = memory.add(op.values_in_keys ? 0 : key_cache.bytes);
    return Trial::Ready{output, [=](Buffer* buffer) mutable {
      const auto from = [&](TrialRegion region, uint32_t token, uint32_t width) {
        const uint64_t skipped = uint64_t{token} * width * sizeof(float);
        return region.in(buffer).at(skipped, region.bytes - skipped);
      };
      const auto of_tokens = [&](uint32_t first, uint32_t count) {
        op.query = from(query, first, query_width);
        op.key = from(key, first, key_width);
        if (!op.values_in_keys) op.value = from(value, first, value_width);
        op.output = from(output, first, output_width);
        op.first_position = first;
        op.tokens = count;
        op.many_tokens = count > 1;
        return op;
      };
      op.query_stride = query_width;
      op.key_stride = key_width;
      op.value_stride = value_width;
      op.output_stride = output_width;
      op.key_cache = key_cache.in(buffer);
      if (!op.values_in_keys) op.value_cache = value_cache.in(buffer);
      op.pages = page_table.in(buffer);
      const AttentionOp prompt = of_tokens(0, kManyTokens), next = of_tokens(kManyTokens, 1);
      return std::vector<Op>{prompt, next};
    }};
  }};
}

Trial trial_of(ActivationOp op) {
  return {named(describe(op) + ' ' + kActivationNames[static_cast<size_t>(op.activation)], {{"element", op.width}}), [=](TrialMemory& memory) mutable {
    const TrialRegion gate = memory.floats(uint64_t{kTokens} * op.width), up = memory.floats(uint64_t{kTokens} * op.width);
    return Trial::Ready{gate, [=](Buffer* buffer) mutable {
      op.gate = gate.in(buffer);
      op.up = up.in(buffer);
      op.tokens = kTokens;
      op.gate_stride = op.up_stride = op.width;
      return std::vector<Op>{op};
    }};
  }};
}

Trial trial_of(ScaleTokensOp op) {
  return {named(describe(op), {{"element", op.width}}), [=](TrialMemory& memory) mutable {
    const TrialRegion target = memory.floats(uint64_t{kTokens} * op.width), factor = memory.floats(kTokens);
    return Trial::Ready{target, [=](Buffer* buffer) mutable {
      op.target = target.in(buffer);
      op.factor = factor.in(buffer);
      op.tokens = kTokens;
      op.target_stride = op.width;
      op.factor_stride = 1;
      return std::vector<Op>{op};
    }};
  }};
}

Trial trial_of(SoftCapOp op) {
  return {named(describe(op), {{"element", op.width}}), [=](TrialMemory& memory) mutable {
    const TrialRegion target = memory.floats(uint64_t{kTokens} * op.width);
    return Trial::Ready{target, [=](Buffer* buffer) mutable {
      op.target = target.in(buffer);
      op.tokens = kTokens;
      op.stride = op.width;
      return std::vector<Op>{op};
    }};
  }};
}

Trial trial_of(GatherRowsOp op) {
  return {named(describe(op), {{"element", op.width}}), [=](TrialMemory& memory) mutable {
    const TrialRegion rows = memory.words({4, 0, 2});
    const TrialRegion input = memory.floats(uint64_t{5} * op.width), output = memory.floats(uint64_t{3} * op.width);
    return Trial::Ready{output, [=](Buffer* buffer) mutable {
      op.input = input.in(buffer);
      op.output = output.in(buffer);
      op.rows = rows.in(buffer);
      op.count = 3;
      op.input_stride = op.output_stride = op.width;
      return std::vector<Op>{op};
    }};
  }};
}

Trial trial_of(ScatterAddOp op) {
  return {named(describe(op), {{"element", op.width}}), [=](TrialMemory& memory) mutable {
    const TrialRegion rows = memory.words({3, 0, 4}), weights = memory.floats(3);
    const TrialRegion input = memory.floats(uint64_t{3} * op.width), output = memory.floats(uint64_t{5} * op.width);
    return Trial::Ready{output, [=](Buffer* buffer) mutable {
      op.input = input.in(buffer);
      op.output = output.in(buffer);
      op.rows = rows.in(buffer);
      op.weights = weights.in(buffer);
      op.count = 3;
      op.input_stride = op.output_stride = op.width;
      return std::vector<Op>{op};
    }};
  }};
}

Trial trial_of(PermuteOp op) {
  return {named(describe(op), {{"element", op.width}}), [=](TrialMemory& memory) mutable {
    std::vector<uint32_t> columns(op.width);
    for (uint32_t i = 0; i < op.width; ++i) columns[i] = op.width - 1 - i;
    const TrialRegion order = memory.words(columns);
    const TrialRegion input = memory.floats(uint64_t{kTokens} * op.width), output = memory.floats(uint64_t{kTokens} * op.width);
    return Trial::Ready{output, [=](Buffer* buffer) mutable {
      op.input = input.in(buffer);
      op.output = output.in(buffer);
      op.order = order.in(buffer);
      op.tokens = kTokens;
      op.input_stride = op.output_stride = op.width;
      return std::vector<Op>{op};
    }};
  }};
}

}  // namespace

TrialRegion TrialMemory::add(uint64_t bytes) {
  constexpr uint64_t kAlignment = 64;
  const uint64_t offset = (bytes_.size() + kAlignment - 1) / kAlignment * kAlignment;
  bytes_.resize(offset + bytes);
  return {offset, bytes};
}

TrialRegion TrialMemory::floats(uint64_t count) {
  const TrialRegion region = add(count * sizeof(float));
  for (uint64_t i = 0; i < count; ++i) {
    const float value = static_cast<float>(static_cast<int32_t>(generator_())) * 0x1p-31f;
    std::memcpy(&bytes_[region.offset + i * sizeof value], &value, sizeof value);
  }
  return region;
}

TrialRegion TrialMemory::words(const std::vector<uint32_t>& words) {
  const TrialRegion region = add(words.size() * sizeof(uint32_t));
  std::memcpy(&bytes_[region.offset], words.data(), region.bytes);
  return region;
}

TrialRegion TrialMemory::weights(Format format, uint32_t rows, uint32_t columns, uint32_t block) {
  const size_t bytes = row_bytes(format, columns, block);
  const TrialRegion region = add(rows * bytes);
  for (uint32_t row = 0; row < rows; ++row) rows_.fill(format, &bytes_[region.offset + row * bytes], columns, block);
  return region;
}

std::vector<Trial> trials_of(const Op& op) {
  return std::visit(
      [](const auto& concrete) -> std::vector<Trial> {
        if constexpr (std::is_same_v<std::decay_t<decltype(concrete)>, MatmulOp>) {
          return {trial_of(concrete, 1), trial_of(concrete, kManyTokens)};
        } else {
          return {trial_of(concrete)};
        }
      },
      op);
}

}  // namespace layerstream
