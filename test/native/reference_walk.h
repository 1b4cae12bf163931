// The steps of a model's plans in float64, one sequence, token by token: written from the meaning of each step alone.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstring>
#include <fstream>
#include <iterator>
#include <map>
#include <numeric>
#include <set>
#include <vector>

#include "../../native/cpu/kernels.h"
#include "../../native/stream/runtime.h"
#include "reference_ops.h"

namespace synthetic {

using namespace layerstream;

class ReferenceWalk {
 public:
  explicit ReferenceWalk(const RuntimeDescription& description) : model_(description), keys_(model_.kv_layers), values_(model_.kv_layers) {
    for (const FileDescription& file : model_.files) {
      std::ifstream stream(file.path, std::ios::binary);
      files_.emplace_back(std::istreambuf_iterator<char>(stream), std::istreambuf_iterator<char>());
    }
  }

  // Logits [tokens, vocab_size] of tokens that follow those before.
  std::vector<double> run(const std::vector<uint32_t>& tokens, const std::vector<RopeTable>& ropes) {
    for (size_t name = 0; name < kRegisterCount; ++name) registers_[name].assign(tokens.size() * model_.register_widths[name], 0.0);
    ropes_ = ropes;
    chosen.clear();
    const Stage& embed = model_.stages[model_.embedding.stage];
    const auto table = weights(embed, embed.matrices[model_.embedding.matrix]);
    for (size_t token = 0; token < tokens.size(); ++token) {
      const uint32_t hidden = width(Register::kHidden);
      for (uint32_t i = 0; i < hidden; ++i) row(Register::kHidden, token)[i] = table[tokens[token] * hidden + i] * model_.embedding.scale;
    }
    for (size_t index = 0; index < model_.stages.size(); ++index) {
      const bool gathered = index == model_.embedding.stage && index + 1 != model_.stages.size();
      if (!gathered && !model_.stages[index].routed()) run_stage(index, tokens.size());
    }
    position_ += tokens.size();
    return registers_[static_cast<size_t>(Register::kLogits)];
  }

  // Stages of the experts that the last run chose.
  std::set<size_t> chosen;

 private:
  using Values = std::vector<double>;

  uint32_t width(Register name) const { return model_.register_widths[static_cast<size_t>(name)]; }
  double* row(Register name, size_t token) { return registers_[static_cast<size_t>(name)].data() + token * width(name); }

  // [rows, columns] as they multiply the input: in the input's order, with what adapters add.
  Values weights(const Stage& stage, const Matrix& matrix) const {
    const auto* bytes = reinterpret_cast<const uint8_t*>(files_[stage.file].data());
    const auto decode = cpu::scalar_kernels().dequantize_row[static_cast<size_t>(matrix.format)];
    std::vector<float> stored(matrix.columns);
    std::vector<uint32_t> order(matrix.columns);
    std::iota(order.begin(), order.end(), 0);
    if (matrix.permuted()) std::memcpy(order.data(), bytes + matrix.column_order, matrix.columns * sizeof(uint32_t));
    Values result(size_t{matrix.rows} * matrix.columns);
    for (size_t r = 0; r < matrix.rows; ++r) {
      decode(bytes + matrix.offset + r * matrix.row_bytes, matrix.columns, matrix.block, stored.data());
      for (size_t c = 0; c < matrix.columns; ++c) result[r * matrix.columns + order[c]] = stored[c];
      for (const Adapter& adapter : matrix.adapters) {
        for (size_t c = 0; c < matrix.columns; ++c) {
          double sum = 0;
          for (size_t k = 0; k < adapter.rank; ++k) sum += double{adapter.b[r * adapter.rank + k]} * adapter.a[k * matrix.columns + c];
          result[r * matrix.columns + c] += adapter.scale * sum;
        }
      }
    }
    return result;
  }

  Values vector(const Stage& stage, uint32_t index, size_t length, double absent) const {
    if (index == kNone) return Values(length, absent);
    const Vector& source = stage.vectors[index];
    std::vector<float> values(source.length);
    to_float32(source.format, reinterpret_cast<const uint8_t*>(files_[stage.file].data()) + source.offset, source.length, values.data());
    Values result(values.begin(), values.end());
    for (double& value : result) value += source.add;
    return result;
  }

  void run_stage(size_t index, size_t tokens) {
    const Stage& stage = model_.stages[index];
    const RouteStep* route = nullptr;
    Values router_logits;
    for (const Step& step : model_.plans[stage.kind]) {
      if ((route = std::get_if<RouteStep>(&step)) != nullptr) router_logits = registers_[static_cast<size_t>(route->logits)];
      std::visit([&](const auto& concrete) { run(stage, concrete, tokens); }, step);
    }
    for (const Step& step : model_.plans[stage.kind]) {
      if ((route = std::get_if<RouteStep>(&step)) != nullptr) run_experts(index, *route, router_logits, tokens);
    }
  }

  void run(const Stage& stage, const NormStep& step, size_t tokens) {
    const size_t all = size_t{step.groups} * step.width;
    const Values weight = vector(stage, step.weight_vector, all, 1), bias = vector(stage, step.bias_vector, all, 0);
    for (size_t token = 0; token < tokens; ++token) {
      for (size_t group = 0; group < step.groups; ++group) {
        const Values normal = reference::normalize(row(step.input, token) + group * step.width, step.width, step.epsilon, step.centered);
        for (size_t i = 0; i < step.width; ++i) {
          const size_t place = step.group_weights ? group * step.width + i : i;
          const double value = normal[i] * weight[place] + bias[place];
          double& output = row(step.output, token)[group * step.width + i];
          output = step.accumulate ? output + value : value;
        }
      }
    }
  }

  void run(const Stage& stage, const MatmulStep& step, size_t tokens) {
    const Matrix& matrix = stage.matrices[step.matrix];
    const Values weight = weights(stage, matrix);
    const Values scale = vector(stage, step.row_scale_vector, matrix.rows, 1), bias = vector(stage, step.bias_vector, matrix.rows, 0);
    const size_t group_rows = step.group_rows == 0 ? matrix.rows : step.group_rows;
    for (size_t token = 0; token < tokens; ++token) {
      for (size_t r = 0; r < matrix.rows; ++r) {
        const double* input = row(step.input, token) + step.input_offset + r / group_rows * step.group_input_stride;
        double sum = 0;
        for (size_t c = 0; c < matrix.columns; ++c) sum += weight[r * matrix.columns + c] * input[c];
        const double value = (sum * scale[r] + bias[r]) * step.scale;
        double& output = row(step.output, token)[step.output_offset + r / group_rows * step.group_output_stride + r % group_rows];
        output = step.accumulate ? output + value : value;
      }
    }
  }

  void run(const Stage&, const RopeStep& step, size_t tokens) {
    const RopeTable& rope = ropes_[step.table];
    for (size_t token = 0; token < tokens; ++token) {
      for (size_t head = 0; head < step.heads; ++head) {
        double* target = row(step.target, token) + head * step.head_dim + step.offset;
        for (size_t i = 0; i < step.rotary_dim / 2; ++i) {
          const size_t first = step.interleaved ? 2 * i : i, second = step.interleaved ? 2 * i + 1 : i + step.rotary_dim / 2;
          const double angle = static_cast<double>(position_ + token) * rope.inverse_frequencies[i];
          const double cosine = std::cos(angle) * rope.attention_factor, sine = std::sin(angle) * rope.attention_factor;
          const double x = target[first], y = target[second];
          target[first] = x * cosine - y * sine;
          target[second] = y * cosine + x * sine;
        }
      }
    }
  }

  void run(const Stage& stage, const AttentionStep& step, size_t tokens) {
    const bool values_in_keys = step.value == Register::kCount;
    std::vector<Values>& keys = keys_[stage.layer];
    std::vector<Values>& values = values_[stage.layer];
    const Values stored_sinks = vector(stage, step.sinks_vector, step.heads, 0);
    const std::vector<float> sinks(stored_sinks.begin(), stored_sinks.end());
    for (size_t token = 0; token < tokens; ++token) {
      const double* key = row(step.key, token);
      keys.emplace_back(key, key + step.kv_heads * step.head_dim);
      if (!values_in_keys) values.emplace_back(row(step.value, token), row(step.value, token) + step.kv_heads * step.value_dim);
      reference::AttentionOptions options{step.scale, step.window, step.soft_cap, step.logn_length, nullptr, nullptr};
      Values output;
      for (size_t head = 0; head < step.heads; ++head) {
        const size_t kv_head = head / (step.heads / step.kv_heads);
        if (step.sinks_vector != kNone) options.sink = &sinks[head];
        if (!step.alibi_slopes.empty()) options.slope = &step.alibi_slopes[head];
        const auto key_of = [&](size_t position) { return keys[position].data() + kv_head * step.head_dim; };
        const auto value_of = [&](size_t position) {
          return values_in_keys ? key_of(position) : values[position].data() + kv_head * step.value_dim;
        };
        const Values attended = reference::attend(row(step.query, token) + head * step.head_dim, step.head_dim, step.value_dim,
                                                  static_cast<uint32_t>(position_ + token), options, key_of, value_of);
        output.insert(output.end(), attended.begin(), attended.end());
      }
      std::copy(output.begin(), output.end(), row(step.output, token));
    }
  }

  void run(const Stage&, const ActivationStep& step, size_t tokens) {
    for (size_t token = 0; token < tokens; ++token) {
      for (size_t i = 0; i < step.width; ++i) {
        double& gate = row(step.gate, token)[i];
        const double up = step.up == Register::kCount ? 1 : row(step.up, token)[i];
        gate = reference::activate(step.activation, gate, up, step.alpha, step.limit);
      }
    }
  }

  void run(const Stage&, const ScaleTokensStep& step, size_t tokens) {
    for (size_t token = 0; token < tokens; ++token) {
      for (size_t i = 0; i < step.width; ++i) row(step.target, token)[i] *= reference::sigmoid(row(step.factor, token)[0]);
    }
  }

  void run(const Stage&, const SoftCapStep& step, size_t tokens) {
    for (size_t token = 0; token < tokens; ++token) {
      for (size_t i = 0; i < step.width; ++i) {
        double& value = row(step.target, token)[i];
        value = step.cap * std::tanh(value / step.cap);
      }
    }
  }

  void run(const Stage&, const RouteStep&, size_t) {}

  // Each expert on all tokens that chose it, after the other steps of the stage with the router.
  void run_experts(size_t index, const RouteStep& step, const Values& logits, size_t tokens) {
    const RoutingRule& rule = step.rule;
    const Values correction = vector(model_.stages[index], step.correction_vector, rule.experts, 0);
    std::map<uint32_t, std::vector<std::pair<size_t, double>>> takers;
    for (size_t token = 0; token < tokens; ++token) {
      const double* line = logits.data() + token * width(step.logits);
      Values scores(line, line + rule.experts);
      double sum = 0;
      for (double& score : scores) sum += score = rule.scoring == Scoring::kSoftmax ? std::exp(score) : reference::sigmoid(score);
      if (rule.scoring == Scoring::kSoftmax) {
        for (double& score : scores) score /= sum;
      }
      Values choice = scores;
      for (size_t expert = 0; expert < rule.experts; ++expert) choice[expert] += correction[expert];
      mask(rule, choice);
      std::vector<uint32_t> order(rule.experts);
      std::iota(order.begin(), order.end(), 0);
      std::stable_sort(order.begin(), order.end(), [&](uint32_t a, uint32_t b) { return choice[a] > choice[b]; });
      double chosen_sum = 0;
      for (uint32_t i = 0; i < rule.per_token; ++i) chosen_sum += scores[order[i]];
      for (uint32_t i = 0; i < rule.per_token; ++i) {
        takers[order[i]].emplace_back(token, scores[order[i]] / (rule.normalize ? chosen_sum : 1) * rule.scale);
      }
    }
    for (const auto& [expert, rows] : takers) {
      chosen.insert(index + 1 + expert);
      for (size_t i = 0; i < rows.size(); ++i) {
        std::copy_n(row(step.input, rows[i].first), width(Register::kExpertInput), row(Register::kExpertInput, i));
      }
      run_stage(index + 1 + expert, rows.size());
      for (size_t i = 0; i < rows.size(); ++i) {
        for (size_t c = 0; c < width(Register::kExpertOutput); ++c) {
          row(step.output, rows[i].first)[c] += rows[i].second * row(Register::kExpertOutput, i)[c];
        }
      }
    }
  }

  static void mask(const RoutingRule& rule, Values& choice) {
    if (rule.group_count == 1) return;
    const size_t size = rule.experts / rule.group_count;
    std::vector<std::pair<double, size_t>> groups;
    for (size_t group = 0; group < rule.group_count; ++group) {
      Values members(choice.begin() + group * size, choice.begin() + (group + 1) * size);
      std::sort(members.rbegin(), members.rend());
      groups.emplace_back(-(rule.group_score == GroupScore::kMax ? members[0] : members[0] + members[1]), group);
    }
    std::sort(groups.begin(), groups.end());
    for (size_t i = rule.groups_kept; i < groups.size(); ++i) std::fill_n(choice.begin() + groups[i].second * size, size, -INFINITY);
  }

  RuntimeDescription model_;
  std::vector<std::vector<char>> files_;
  std::vector<std::vector<Values>> keys_, values_;  // [layer][position]
  Values registers_[kRegisterCount];
  std::vector<RopeTable> ropes_;
  size_t position_ = 0;
};

}  // namespace synthetic
