// The host on which CUDA's kernels are proved finds what they do wrong.
#include "cuda_host/cuda_host.h"

#include <cstdio>

#include "check.h"
#include "cuda_host/block.cc"
#include "cuda_host/fiber.cc"

using namespace layerstream;
using cuda_host::Order;
using layerstream::check;
using layerstream::checks;

namespace {

struct Arguments {
  uint32_t* output;
  uint32_t stray;  // the thread that does not what the others do
};

KERNEL(reverse, Arguments, 256, 1) {
  __shared__ uint32_t values[256];
  values[threadIdx.x] = 1000 * blockIdx.x + threadIdx.x;
  __syncthreads();
  arguments.output[blockDim.x * blockIdx.x + threadIdx.x] = values[blockDim.x - 1 - threadIdx.x];
  __syncthreads();
}

KERNEL(sum_warps, Arguments, 256, 1) {
  uint32_t sum = threadIdx.x;
  for (uint32_t distance = 1; distance < 32; distance *= 2) sum += __shfl_xor_sync(0xffffffffu, sum, distance);
  arguments.output[threadIdx.x] = sum + __shfl_up_sync(0xffffffffu, threadIdx.x, 1) + 1000 * __shfl_sync(0xffffffffu, threadIdx.x, 3);
}

KERNEL(leave_before_barrier, Arguments, 256, 1) {
  if (threadIdx.x == arguments.stray) return;
  __syncthreads();
}

KERNEL(leave_warp, Arguments, 256, 1) {
  if (threadIdx.x == arguments.stray) return;
  __syncwarp();
}

KERNEL(mix_operations, Arguments, 256, 1) {
  if (threadIdx.x == arguments.stray) {
    __syncwarp();
  } else {
    __shfl_xor_sync(0xffffffffu, threadIdx.x, 1);
  }
}

// Copies a word, and reads it before and after it must be there.
KERNEL(copy_words, Arguments, 256, 1) {
  auto* const place = reinterpret_cast<uint4*>(cuda_host::current_block().shared()) + threadIdx.x;
  const uint4 source = {threadIdx.x, 0, 0, 0};
  cuda::copy_async(place, &source);
  cuda::commit_copies();
  cuda::wait_for_copies<1>();
  const uint32_t before = place->x;
  cuda::wait_for_copies<0>();
  arguments.output[threadIdx.x] = before == 0xffffffffu ? place->x : 0xdead;
}

// Sixteen bytes from a place that is not a multiple of that.
KERNEL(copy_unaligned, Arguments, 256, 1) {
  alignas(16) const uint32_t source[8] = {};
  cuda::copy_async(cuda_host::current_block().shared(), source + (threadIdx.x == arguments.stray ? 1 : 0));
  cuda::commit_copies();
  cuda::wait_for_copies<0>();
}

// A product of 16 x 16 and 16 x 8 whose elements tell all places apart. Where a lane's are is as the PTX ISA's tables of fragments
// for mma.m16n8k16 have it: element i of A, B and C by the lane's group (lane / 4) and its place in the group.
constexpr float element_of_a(uint32_t row, uint32_t column) { return static_cast<float>(row * 5 + column % 3); }
constexpr float element_of_b(uint32_t row, uint32_t column) { return static_cast<float>(column * 3 + row); }

template <class Bits, class Multiply>
void multiply_known(const Arguments& arguments, const Bits& bits, const Multiply& multiply) {
  const uint32_t group = threadIdx.x % 32 >> 2, place = threadIdx.x % 4;
  uint32_t a[4] = {}, b[2] = {};
  for (uint32_t i = 0; i < 8; ++i) {
    const uint32_t row = i < 2 || (i >= 4 && i < 6) ? group : group + 8;
    const uint32_t column = place * 2 + (i & 1) + (i >= 4 ? 8 : 0);
    a[i / 2] |= bits(element_of_a(row, column)) << (16 * (i & 1));
  }
  for (uint32_t i = 0; i < 4; ++i) b[i / 2] |= bits(element_of_b(place * 2 + (i & 1) + (i >= 2 ? 8 : 0), group)) << (16 * (i & 1));
  float sums[4] = {1, 1, 1, 1};
  multiply(sums, a, b);
  for (uint32_t i = 0; i < 4; ++i) {
    const uint32_t row = i < 2 ? group : group + 8, column = place * 2 + (i & 1);
    arguments.output[row * 8 + column] = static_cast<uint32_t>(sums[i]);
  }
}

KERNEL(multiply_halves, Arguments, 32, 1) {
  multiply_known(arguments, [](float value) { return cuda::pack_halves(value, 0); }, cuda::multiply_tile);
}
KERNEL(multiply_brain_floats, Arguments, 32, 1) {
  multiply_known(arguments, [](float value) { return __float_as_uint(value) >> 16; },
                 [](auto& sums, const auto& a, const auto& b) { cuda::multiply_brain_tile(sums, a, b[0], b[1]); });
}

// Row r of matrix m has 100 * m + 8 * r + column. As the table of ldmatrix has it, a lane gets two elements of row lane / 4.
template <bool kTransposed>
void load_known(const Arguments& arguments) {
  auto* const rows = reinterpret_cast<uint16_t*>(cuda_host::current_block().shared());
  for (uint32_t i = 0; i < 8; ++i) rows[8 * threadIdx.x + i] = static_cast<uint16_t>(100 * (threadIdx.x / 8) + 8 * (threadIdx.x % 8) + i);
  __syncwarp();
  uint32_t words[4];
  cuda::load_matrices<kTransposed>(words, rows + 8 * threadIdx.x + (threadIdx.x == arguments.stray ? 1 : 0));
  for (uint32_t m = 0; m < 4; ++m) arguments.output[4 * threadIdx.x + m] = words[m];
}
KERNEL(load_rows, Arguments, 32, 1) { load_known<false>(arguments); }
KERNEL(load_columns, Arguments, 32, 1) { load_known<true>(arguments); }

KERNEL(forget_copies, Arguments, 256, 1) {
  const uint4 source = {};
  cuda::copy_async(cuda_host::current_block().shared(), &source);
}

std::string launch(const char* name, uint32_t blocks, uint32_t threads, const Arguments& arguments, Order order) {
  const cuda_host::Kernel* const kernel = cuda_host::find_kernel(name);
  check(kernel != nullptr, std::string("a kernel called ") + name);
  return cuda_host::launch(*kernel, {blocks}, threads, 4096, &arguments, order);
}

// Operations on matrices are those of the PTX ISA.
void check_matrices() {
  constexpr uint32_t kNone = 32;
  std::vector<uint32_t> output(128);
  for (const char* name : {"multiply_halves", "multiply_brain_floats"}) {
    check(launch(name, 1, 32, {output.data(), kNone}, Order::kRandom).empty(), name);
    for (uint32_t row = 0; row < 16; ++row) {
      for (uint32_t column = 0; column < 8; ++column) {
        float expected = 1;
        for (uint32_t k = 0; k < 16; ++k) expected += element_of_a(row, k) * element_of_b(k, column);
        check(output[row * 8 + column] == static_cast<uint32_t>(expected), std::string(name) + ": an element of the product");
      }
    }
  }
  for (const bool transposed : {false, true}) {
    const char* const name = transposed ? "load_columns" : "load_rows";
    check(launch(name, 1, 32, {output.data(), kNone}, Order::kRandom).empty(), name);
    for (uint32_t i = 0; i < 128; ++i) {
      const uint32_t lane = i / 4, first = 100 * (i % 4), row = lane / 4, column = 2 * (lane % 4);
      const auto at = [&](uint32_t r, uint32_t c) { return first + 8 * r + c; };
      const uint32_t expected = transposed ? at(column, row) | at(column + 1, row) << 16 : at(row, column) | at(row, column + 1) << 16;
      check(output[i] == expected, std::string(name) + ": two elements of a lane");
    }
    check(!launch(name, 1, 32, {output.data(), 7}, Order::kRandom).empty(), "rows begin on multiples of 16 bytes");
  }
}

void check_order(Order order) {
  std::vector<uint32_t> output(3 * 128);
  check(launch("reverse", 3, 128, {output.data(), 0}, order).empty(), "a kernel with barriers");
  for (uint32_t i = 0; i < output.size(); ++i) check(output[i] == i / 128 * 1000 + 127 - i % 128, "what another thread wrote");
  check(launch("sum_warps", 1, 64, {output.data(), 0}, order).empty(), "a kernel with shuffles");
  for (uint32_t i = 0; i < 64; ++i) {
    const uint32_t first = i / 32 * 32;
    check(output[i] == 32 * first + 496 + (i == first ? i : i - 1) + 1000 * (first + 3), "what other lanes have");
  }
  check(launch("copy_words", 1, 64, {output.data(), 0}, order).empty(), "a kernel with copies");
  for (uint32_t i = 0; i < 64; ++i) check(output[i] == i, "copies are there when they have been waited for, and not before");
  for (const char* name : {"leave_before_barrier", "leave_warp", "mix_operations", "copy_unaligned", "forget_copies"}) {
    for (const uint32_t stray : {0u, 40u, 63u}) check(!launch(name, 1, 64, {nullptr, stray}, order).empty(), std::string("an error: ") + name);
  }
}

}  // namespace

int main() {
  check_order(Order::kAscending);
  check_order(Order::kRandom);
  check_matrices();
  check(!launch("reverse", 1, 48, {}, Order::kAscending).empty(), "blocks are whole warps");
  check(!launch("reverse", 1, 512, {}, Order::kAscending).empty(), "blocks have no more threads than their bounds");
  check(!launch("reverse", 0, 64, {}, Order::kAscending).empty(), "grids have blocks");
  check(cuda_host::find_kernel("missing") == nullptr, "a kernel that does not exist");
  printf("cuda_host_test: %d checks\n", checks.load());
  return 0;
}
