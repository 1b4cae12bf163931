#include "self_check.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <mutex>
#include <set>
#include <sstream>

#include "../platform/error.h"
#include "device_session.h"
#include "trial_ops.h"

namespace layerstream {

namespace {

// Of the largest value: more than any precision rounds, less than any fault leaves.
constexpr float kTolerance = 0.02f;

// What the ops of a trial leave on a device.
std::vector<float> output_of(Device& device, const TrialMemory& memory, const Trial::Ready& trial) {
  DeviceSession session(device);
  const uint64_t bytes = memory.bytes().size();
  const Range operands = session.alloc(bytes);
  void* const source = session.alloc_pinned(bytes);
  std::memcpy(source, memory.bytes().data(), bytes);
  device.upload(session.stream(), operands, source);
  device.launch(session.stream(), trial.ops(operands.buffer));
  std::vector<float> values(trial.output.bytes / sizeof(float));
  device.download(session.stream(), values.data(), trial.output.in(operands.buffer));
  session.finish();
  return values;
}

void compare(const DeviceInfo& info, const std::string& name, const std::vector<float>& values, const std::vector<float>& expected) {
  float largest = 0;
  for (const float value : expected) largest = std::max(largest, std::abs(value));
  for (size_t i = 0; i < values.size(); ++i) {
    if (std::abs(values[i] - expected[i]) <= kTolerance * largest) continue;
    std::ostringstream message;
    message << "The device '" << info.name << "' computes " << name << " wrongly: value " << i << " is " << values[i] << " and should be "
            << expected[i] << ". Its driver (" << info.driver << ") may be at fault: install another version, or choose another device, "
            << "`cpu` for example.";
    throw Error("DEVICE_UNAVAILABLE", message.str());
  }
}

// A layer of a small Llama.
std::vector<Op> common_ops() {
  constexpr uint32_t kHeads = 8, kKvHeads = 2, kHeadDim = 64, kWidth = kHeads * kHeadDim, kPagePositions = 64;
  constexpr std::pair<Format, uint32_t> kFormats[] = {
      {Format::kF32, 0}, {Format::kF16, 0}, {Format::kBF16, 0}, {Format::kBF16Window, kWidth / 16}, {Format::kQ8, 128}, {Format::kQ4, kQ4Block}};
  std::vector<Op> ops;
  for (const auto& [format, block] : kFormats) {
    MatmulOp product{};
    product.format = format;
    product.block = block;
    product.rows = product.columns = kWidth;
    product.precision = Precision::kFast;
    ops.push_back(product);
    ops.push_back(EmbedOp{format, block, kWidth, 1.0f, {}, {}});
  }
  AttentionOp attention{};
  attention.page_positions = kPagePositions;
  attention.page_bytes = 2 * kKvHeads * kv_block_bytes(KvFormat::kF32, kPagePositions, kHeadDim);
  attention.heads = kHeads;
  attention.kv_heads = kKvHeads;
  attention.head_dim = attention.value_dim = kHeadDim;
  attention.scale = 0.125f;
  NormOp norm{};
  norm.groups = 1;
  norm.width = kWidth;
  norm.epsilon = 1e-5f;
  RopeOp rope{};
  rope.heads = kHeads;
  rope.head_dim = rope.rotary_dim = kHeadDim;
  ActivationOp activation{};
  activation.width = kWidth;
  ops.insert(ops.end(), {attention, norm, rope, activation});
  return ops;
}

std::mutex passed_mutex;
// Never destroyed: at process exit, models may still be loading.
auto& passed = *new std::set<std::string>;

}  // namespace

void check_computes(Device& device, const Op& op) {
  const DeviceInfo info = device.info();
  std::unique_ptr<Device> reference;
  for (const Trial& trial : trials_of(op)) {
    const std::string key = info.name + '|' + info.kernels + '|' + info.driver + '|' + trial.name;
    {
      const std::lock_guard lock(passed_mutex);
      if (passed.contains(key)) continue;
    }
    if (!reference) reference = open_device("cpu", {});
    TrialMemory memory;
    const Trial::Ready ready = trial.prepare(memory);
    const std::vector<float> values = output_of(device, memory, ready);
    compare(info, trial.name, values, output_of(*reference, memory, ready));
    const std::lock_guard lock(passed_mutex);
    passed.insert(key);
  }
}

void check_computes(Device& device) {
  if (device.info().driver.empty()) return;
  for (const Op& op : common_ops()) {
    if (device.supports(op)) check_computes(device, op);
  }
}

}  // namespace layerstream
