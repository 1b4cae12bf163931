#include "arithmetic_rate.h"

#include <time.h>

#include <chrono>
#include <cmath>
#include <thread>
#include <vector>

#if defined(__x86_64__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

namespace layerstream {

namespace {

using Clock = std::chrono::steady_clock;

// Chains that do not wait for one another: more than latency times throughput of any processor so far.
constexpr int kChains = 12;
constexpr uint32_t kRounds = 1 << 16;
constexpr float kFactor = 0.999f, kSummand = 0.001f;

// Each returns a sum, so that nothing is left out.
#if defined(__x86_64__)
__attribute__((target("avx512f"))) float run_avx512() {
  const __m512 factor = _mm512_set1_ps(kFactor), summand = _mm512_set1_ps(kSummand);
  __m512 chains[kChains];
  for (int i = 0; i < kChains; ++i) chains[i] = _mm512_set1_ps(static_cast<float>(i));
  for (uint32_t round = 0; round < kRounds; ++round) {
    for (int i = 0; i < kChains; ++i) chains[i] = _mm512_fmadd_ps(chains[i], factor, summand);
  }
  for (int i = 1; i < kChains; ++i) chains[0] = _mm512_add_ps(chains[0], chains[i]);
  return _mm512_cvtss_f32(chains[0]);
}

__attribute__((target("avx2,fma"))) float run_avx2() {
  const __m256 factor = _mm256_set1_ps(kFactor), summand = _mm256_set1_ps(kSummand);
  __m256 chains[kChains];
  for (int i = 0; i < kChains; ++i) chains[i] = _mm256_set1_ps(static_cast<float>(i));
  for (uint32_t round = 0; round < kRounds; ++round) {
    for (int i = 0; i < kChains; ++i) chains[i] = _mm256_fmadd_ps(chains[i], factor, summand);
  }
  for (int i = 1; i < kChains; ++i) chains[0] = _mm256_add_ps(chains[0], chains[i]);
  return _mm256_cvtss_f32(chains[0]);
}
#elif defined(__aarch64__)
float run_neon() {
  const float32x4_t factor = vdupq_n_f32(kFactor), summand = vdupq_n_f32(kSummand);
  float32x4_t chains[kChains];
  for (int i = 0; i < kChains; ++i) chains[i] = vdupq_n_f32(static_cast<float>(i));
  for (uint32_t round = 0; round < kRounds; ++round) {
    for (int i = 0; i < kChains; ++i) chains[i] = vfmaq_f32(summand, chains[i], factor);
  }
  for (int i = 1; i < kChains; ++i) chains[0] = vaddq_f32(chains[0], chains[i]);
  return vgetq_lane_f32(chains[0], 0);
}
#endif

[[maybe_unused]] float run_scalar() {
  float chains[kChains];
  for (int i = 0; i < kChains; ++i) chains[i] = static_cast<float>(i);
  for (uint32_t round = 0; round < kRounds; ++round) {
    for (int i = 0; i < kChains; ++i) chains[i] = std::fma(chains[i], kFactor, kSummand);
  }
  float sum = 0;
  for (const float chain : chains) sum += chain;
  return sum;
}

double processor_seconds() {
  timespec time{};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time);
  return static_cast<double>(time.tv_sec) + static_cast<double>(time.tv_nsec) * 1e-9;
}

struct Run {
  float (*function)();
  uint32_t lanes;
};

Run choose() {
#if defined(__x86_64__)
  if (__builtin_cpu_supports("avx512f")) return {run_avx512, 16};
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) return {run_avx2, 8};
#elif defined(__aarch64__)
  return {run_neon, 4};
#endif
#if !defined(__aarch64__)
  return {run_scalar, 1};
#endif
}

}  // namespace

double multiply_add_rate(uint32_t threads, double seconds) {
  const Run run = choose();
  std::vector<double> rates(threads);
  const auto measure = [&](uint32_t thread) {
    const Clock::time_point start = Clock::now();
    const double used = processor_seconds();
    volatile float sink = 0;
    uint64_t runs = 0;
    do {
      sink = sink + run.function();
      ++runs;
    } while (std::chrono::duration<double>(Clock::now() - start).count() < seconds);
    rates[thread] = 2.0 * kChains * kRounds * run.lanes * static_cast<double>(runs) / (processor_seconds() - used);
  };
  std::vector<std::thread> others;
  for (uint32_t thread = 1; thread < threads; ++thread) others.emplace_back(measure, thread);
  measure(0);
  for (std::thread& other : others) other.join();
  double total = 0;
  for (const double rate : rates) total += rate;
  return total;
}

}  // namespace layerstream
