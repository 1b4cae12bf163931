#include "kernels.h"

#include <cstdlib>
#include <initializer_list>
#include <string>

#include "../platform/error.h"
#include "functions.h"
#include "vnni/products.h"

#if defined(__x86_64__) || defined(_M_X64)
#define LAYERSTREAM_X64 1
#if defined(_MSC_VER)
#include <intrin.h>
#else
#include <cpuid.h>
#endif
#endif
#if defined(__aarch64__) || defined(_M_ARM64)
#define LAYERSTREAM_ARM64 1
#endif

namespace layerstream::cpu {

namespace {

struct Features {
  bool avx2 = false;
  bool avx512 = false;
  bool vnni = false;
};

#if defined(LAYERSTREAM_X64)

struct Registers {
  uint32_t eax = 0, ebx = 0, ecx = 0, edx = 0;
};

Registers cpuid(uint32_t leaf, uint32_t subleaf) {
  Registers registers;
#if defined(_MSC_VER)
  int values[4];
  __cpuidex(values, static_cast<int>(leaf), static_cast<int>(subleaf));
  registers = {static_cast<uint32_t>(values[0]), static_cast<uint32_t>(values[1]), static_cast<uint32_t>(values[2]),
               static_cast<uint32_t>(values[3])};
#else
  // All zero where the leaf does not exist.
  __get_cpuid_count(leaf, subleaf, &registers.eax, &registers.ebx, &registers.ecx, &registers.edx);
#endif
  return registers;
}

// XCR0: the register states that the operating system saves and restores.
uint64_t enabled_states() {
#if defined(_MSC_VER)
  return _xgetbv(0);
#else
  uint32_t low, high;
  __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  return uint64_t{high} << 32 | low;
#endif
}

constexpr bool has(uint32_t value, std::initializer_list<int> bits) {
  for (const int bit : bits) {
    if ((value >> bit & 1) == 0) return false;
  }
  return true;
}

// The features are exactly those that binding.gyp lets the compiler use in each folder.
Features detect() {
  Features features;
  if (cpuid(0, 0).eax < 7) return features;
  const Registers basic = cpuid(1, 0);
  if (!has(basic.ecx, {12 /* fma */, 20 /* sse4.2 */, 27 /* osxsave */, 28 /* avx */, 29 /* f16c */})) return features;
  const uint64_t states = enabled_states();
  const Registers extended = cpuid(7, 0);
  constexpr uint64_t kAvxStates = 0x06;
  constexpr uint64_t kAvx512States = 0xe6;
  features.avx2 = (states & kAvxStates) == kAvxStates && has(extended.ebx, {5});
  features.avx512 = features.avx2 && (states & kAvx512States) == kAvx512States &&
                    has(extended.ebx, {16 /* f */, 17 /* dq */, 30 /* bw */, 31 /* vl */}) &&
                    has(extended.ecx, {1 /* vbmi */, 6 /* vbmi2 */});
  features.vnni = features.avx512 && has(extended.ecx, {11 /* vnni */}) && has(cpuid(7, 1).eax, {5 /* bf16 */});
  return features;
}

#else

Features detect() { return {}; }

#endif

[[maybe_unused]] const Features& features() {
  static const Features detected = detect();
  return detected;
}

const KernelTable& choose() {
  const KernelTable* const candidates[] = {vnni_kernels(), avx512_kernels(), avx2_kernels(), neon_kernels(), &scalar_kernels()};
  const char* const setting = std::getenv("LAYERSTREAM_SIMD");
  const std::string wanted = setting == nullptr ? "" : setting;
  std::string names;
  for (const KernelTable* candidate : candidates) {
    if (candidate == nullptr) continue;
    if (wanted.empty() || wanted == candidate->name) return *candidate;
    names += names.empty() ? candidate->name : std::string(", ") + candidate->name;
  }
  throw Error("INVALID_ARGUMENT", "LAYERSTREAM_SIMD=" + wanted +
                                      " names no instruction set that this processor runs; use one of " + names +
                                      ", or unset it for the fastest.");
}

}  // namespace

const KernelTable& scalar_kernels() { return scalar::kTable; }

const KernelTable* avx2_kernels() {
#if defined(LAYERSTREAM_X64)
  if (features().avx2) return &avx2::kTable;
#endif
  return nullptr;
}

const KernelTable* avx512_kernels() {
#if defined(LAYERSTREAM_X64)
  if (features().avx512) return &avx512::kTable;
#endif
  return nullptr;
}

const KernelTable* vnni_kernels() {
#if defined(LAYERSTREAM_X64)
  static const KernelTable table = [] {
    KernelTable extended = avx512::kTable;
    extended.name = "avx512-vnni";
    extended.peak_bf16 = vnni::peak_bf16;
    extended.fast = vnni::kProducts;
    return extended;
  }();
  if (features().vnni) return &table;
#endif
  return nullptr;
}

const KernelTable* neon_kernels() {
#if defined(LAYERSTREAM_ARM64)
  return &neon::kTable;
#else
  return nullptr;
#endif
}

const KernelTable& best_kernels() {
  static const KernelTable& chosen = choose();
  return chosen;
}

}  // namespace layerstream::cpu
