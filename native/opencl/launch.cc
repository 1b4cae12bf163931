#include "launch.h"

namespace layerstream::opencl {

namespace {

// Items of a group of the kernels that treat floats apart, and of those that reduce rows.
constexpr uint32_t kItems = 64;

}  // namespace

void Launcher::set_bytes(cl_kernel kernel, cl_uint& index, size_t bytes, const void* value) {
  check(context_.api().clSetKernelArg(kernel, index++, bytes, value), "clSetKernelArg");
}

void Launcher::set_one(cl_kernel kernel, cl_uint& index, const Operand& operand) {
  set_bytes(kernel, index, sizeof operand.memory, operand.memory == nullptr ? nullptr : &operand.memory);
  set_one(kernel, index, operand.offset);
}

void Launcher::set_one(cl_kernel kernel, cl_uint& index, LocalBytes local) { set_bytes(kernel, index, local.bytes, nullptr); }

Operand Launcher::operand(Range range) {
  return range.buffer == nullptr ? Operand{} : memory_of(range).whole(stream_.queue(), range.offset, range.size);
}

void Launcher::gather(std::initializer_list<Range> ranges) {
  for (const Range range : ranges) operand(range);
}

cl_kernel Launcher::elementwise_kernel(const char* name) { return stream_.kernel({"common.cl", "elementwise.cl"}, "", name); }

void Launcher::run(const NormOp& op) {
  gather({op.input, op.output, op.weight, op.bias});
  const cl_kernel kernel = stream_.kernel({"common.cl", "lanes.cl", "norm.cl"}, "-D LANES=" + std::to_string(kItems), "norm");
  set(kernel, operand(op.input), operand(op.output), operand(op.weight), operand(op.bias), op.width, op.input_stride, op.output_stride,
      op.epsilon, op.centered, op.group_weights, op.accumulate);
  stream_.enqueue(kernel, size_t{op.groups} * kItems, op.tokens, kItems);
}

void Launcher::run(const RopeOp& op) {
  gather({op.target, op.cosine, op.sine});
  const cl_kernel kernel = elementwise_kernel("rope");
  set(kernel, operand(op.target), operand(op.cosine), operand(op.sine), op.stride, op.heads, op.head_dim, op.rotary_dim, op.offset,
      op.interleaved);
  stream_.enqueue(kernel, size_t{op.heads} * (op.rotary_dim / 2), op.tokens, kItems);
}

void Launcher::run(const AttentionOp& op) {
  gather({op.key_cache, op.value_cache, op.pages, op.key, op.value, op.query, op.output, op.sinks, op.slopes});
  static_assert(kKvFormatCount == 3);
  const std::string options = std::string("-D KV_") + kKvFormatNames[static_cast<size_t>(op.kv_format)] + "=1 -D LANES=" + std::to_string(kItems);
  const std::vector<const char*> files = {"common.cl", "lanes.cl", "attention.cl"};
  const Operand keys = operand(op.key_cache), values = op.values_in_keys ? Operand{} : operand(op.value_cache);
  const Operand pages = operand(op.pages);

  const uint32_t vectors = op.kv_heads * (op.values_in_keys ? 1 : 2);
  const cl_kernel append = stream_.kernel(files, options, "append");
  set(append, operand(op.key), operand(op.value), op.key_stride, op.value_stride, keys, values, op.page_bytes, pages, op.page_positions,
      op.first_position, op.kv_heads, op.head_dim, op.value_dim, vectors);
  stream_.enqueue(append, vectors, op.tokens, 8);

  const cl_kernel attention = stream_.kernel(files, options, "attention");
  set(attention, operand(op.query), operand(op.output), op.query_stride, op.output_stride, keys, values, op.page_bytes, pages,
      op.page_positions, op.first_position, op.heads, op.kv_heads, op.head_dim, op.value_dim, op.window, op.scale, op.values_in_keys,
      op.soft_cap, op.logn_length, operand(op.sinks), operand(op.slopes), LocalBytes{op.value_dim * sizeof(float)},
      LocalBytes{op.head_dim * sizeof(float)});
  stream_.enqueue(attention, size_t{op.heads} * kItems, op.tokens, kItems);
}

void Launcher::run(const ActivationOp& op) {
  gather({op.gate, op.up});
  const cl_kernel kernel = elementwise_kernel("activation");
  set(kernel, operand(op.gate), operand(op.up), op.width, op.gate_stride, op.up_stride, static_cast<uint32_t>(op.activation), op.alpha,
      op.limit);
  stream_.enqueue(kernel, op.width, op.tokens, kItems);
}

void Launcher::run(const ScaleTokensOp& op) {
  gather({op.target, op.factor});
  const cl_kernel kernel = elementwise_kernel("scale_tokens");
  set(kernel, operand(op.target), operand(op.factor), op.width, op.target_stride, op.factor_stride);
  stream_.enqueue(kernel, op.width, op.tokens, kItems);
}

void Launcher::run(const SoftCapOp& op) {
  const cl_kernel kernel = elementwise_kernel("soft_cap");
  set(kernel, operand(op.target), op.width, op.stride, op.cap);
  stream_.enqueue(kernel, op.width, op.tokens, kItems);
}

void Launcher::run(const GatherRowsOp& op) {
  gather({op.input, op.output, op.rows});
  const cl_kernel kernel = elementwise_kernel("gather_rows");
  set(kernel, operand(op.input), operand(op.output), operand(op.rows), op.width, op.input_stride, op.output_stride);
  stream_.enqueue(kernel, op.width, op.count, kItems);
}

void Launcher::run(const ScatterAddOp& op) {
  gather({op.input, op.output, op.rows, op.weights});
  const cl_kernel kernel = elementwise_kernel("scatter_add");
  set(kernel, operand(op.input), operand(op.output), operand(op.rows), operand(op.weights), op.width, op.input_stride, op.output_stride);
  stream_.enqueue(kernel, op.width, op.count, kItems);
}

void Launcher::run(const PermuteOp& op) {
  gather({op.input, op.output, op.order});
  const cl_kernel kernel = elementwise_kernel("permute");
  set(kernel, operand(op.input), operand(op.output), operand(op.order), op.width, op.input_stride, op.output_stride);
  stream_.enqueue(kernel, op.width, op.tokens, kItems);
}

}  // namespace layerstream::opencl
