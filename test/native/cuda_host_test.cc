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

KERNEL(forget_copies, Arguments, 256, 1) {
  const uint4 source = {};
  cuda::copy_async(cuda_host::current_block().shared(), &source);
}

std::string launch(const char* name, uint32_t blocks, uint32_t threads, const Arguments& arguments, Order order) {
  const cuda_host::Kernel* const kernel = cuda_host::find_kernel(name);
  check(kernel != nullptr, std::string("a kernel called ") + name);
  return cuda_host::launch(*kernel, {blocks}, threads, 4096, &arguments, order);
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
  check(!launch("reverse", 1, 48, {}, Order::kAscending).empty(), "blocks are whole warps");
  check(!launch("reverse", 1, 512, {}, Order::kAscending).empty(), "blocks have no more threads than their bounds");
  check(!launch("reverse", 0, 64, {}, Order::kAscending).empty(), "grids have blocks");
  check(cuda_host::find_kernel("missing") == nullptr, "a kernel that does not exist");
  printf("cuda_host_test: %d checks\n", checks.load());
  return 0;
}
