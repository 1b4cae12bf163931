#include "fiber.h"

#if defined(__x86_64__)
// Saves what a call must preserve and the stack pointer, and goes on at another one.
asm(R"(
.text
.globl layerstream_switch_stack
.type layerstream_switch_stack, @function
layerstream_switch_stack:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
.size layerstream_switch_stack, .-layerstream_switch_stack
)");
extern "C" void layerstream_switch_stack(void** saved, void* next);
#endif

namespace layerstream::cuda_host {

#if defined(__SANITIZE_ADDRESS__)
namespace {
// Whoever left last: its stack is what the one who goes on came from.
thread_local Place* left = nullptr;
}  // namespace
#endif

void Place::begin(uint8_t* stack, size_t bytes, Entry entry) {
#if defined(__x86_64__)
  // Below the entry's address, what the switch takes off. At its first instruction the stack is 8 below a multiple of 16.
  auto** top = reinterpret_cast<void**>(stack + bytes) - 2;
  *top = reinterpret_cast<void*>(entry);
  pointer_ = top - 6;
#else
  getcontext(&context_);
  context_.uc_stack.ss_sp = stack;
  context_.uc_stack.ss_size = bytes;
  context_.uc_link = nullptr;
  makecontext(&context_, entry, 0);
#endif
#if defined(__SANITIZE_ADDRESS__)
  fake_stack_ = nullptr;
  bottom_ = stack;
  bytes_ = bytes;
#endif
}

void Place::leave_for(Place& next, bool ended) {
#if defined(__SANITIZE_ADDRESS__)
  left = this;
  __sanitizer_start_switch_fiber(ended ? nullptr : &fake_stack_, next.bottom_, next.bytes_);
#else
  (void)ended;
#endif
#if defined(__x86_64__)
  layerstream_switch_stack(&pointer_, next.pointer_);
#else
  swapcontext(&context_, &next.context_);
#endif
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_finish_switch_fiber(fake_stack_, &left->bottom_, &left->bytes_);
#endif
}

void Place::entered() {
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_finish_switch_fiber(nullptr, &left->bottom_, &left->bytes_);
#endif
}

}  // namespace layerstream::cuda_host
