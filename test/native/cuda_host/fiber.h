// Stacks that a thread runs alternately.
#pragma once

#include <cstddef>
#include <cstdint>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/common_interface_defs.h>
#endif

#if !defined(__x86_64__)
#include <ucontext.h>
#endif

namespace layerstream::cuda_host {

// A place to go on from: on a fiber's stack, or on the thread's own.
class Place {
 public:
  // What runs first on a stack; it must never return.
  using Entry = void (*)();

  // Goes on at entry() with an empty stack.
  void begin(uint8_t* stack, size_t bytes, Entry entry);
  // Leaves this place for `next`; returns when something goes on here. `ended`: nothing will.
  void leave_for(Place& next, bool ended = false);
  // Every stack calls it first.
  static void entered();

 private:
#if defined(__x86_64__)
  void* pointer_ = nullptr;
#else
  ucontext_t context_;
#endif
#if defined(__SANITIZE_ADDRESS__)
  void* fake_stack_ = nullptr;
  const void* bottom_ = nullptr;
  size_t bytes_ = 0;
#endif
};

}  // namespace layerstream::cuda_host
