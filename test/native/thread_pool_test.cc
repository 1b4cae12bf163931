// The thread pool: every index runs exactly once, on a thread of its number, before run() returns.
#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <numeric>
#include <random>
#include <thread>
#include <vector>

#include "../../native/cpu/thread_pool.h"

using namespace layerstream::cpu;

namespace {

std::atomic<int> checks = 0;

void check(bool condition, const char* what, size_t where) {
  ++checks;
  if (condition) return;
  fprintf(stderr, "thread_pool_test: %s (at %zu)\n", what, where);
  exit(1);
}

// The arrays are not atomic: a loop that is left early, or an index that runs twice, is a race that sanitizers see too.
void test_every_index_once(uint32_t threads) {
  ThreadPool pool(threads);
  check(pool.threads() == (threads == 0 ? 1 : threads), "number of threads", threads);
  for (uint32_t count : {0u, 1u, 2u, 3u, 7u, 64u, 1000u}) {
    std::vector<uint32_t> runs(count, 0);
    pool.parallel_for(count, [&](uint32_t index, uint32_t thread) {
      check(thread < pool.threads(), "thread number", thread);
      runs[index]++;
    });
    for (uint32_t index = 0; index < count; ++index) check(runs[index] == 1, "an index did not run once", index);
  }
}

// Loops of a few short bodies, back to back, as the ops of a small model are; some with pauses in which workers sleep.
void test_small_loops(uint32_t threads, uint32_t loops) {
  ThreadPool pool(threads);
  std::mt19937 random(threads);
  std::vector<uint64_t> sums(64, 0);
  uint64_t expected = 0;
  for (uint32_t loop = 0; loop < loops; ++loop) {
    const uint32_t count = 1 + random() % 8;
    // Lives on this stack only while the loop runs: a worker that comes late would read what is there next.
    const std::vector<uint32_t> values(count, loop);
    pool.parallel_for(count, [&](uint32_t index, uint32_t) { sums[index] += values[index]; });
    expected += uint64_t{count} * loop;
    if (random() % 512 == 0) std::this_thread::sleep_for(std::chrono::microseconds(random() % 300));
  }
  check(std::accumulate(sums.begin(), sums.end(), uint64_t{0}) == expected, "sums of small loops", threads);
}

// A loop sees what the caller wrote before it, the caller sees what the loop wrote.
void test_visibility() {
  ThreadPool pool(4);
  std::vector<uint32_t> values(256);
  for (uint32_t round = 0; round < 2000; ++round) {
    for (uint32_t& value : values) value = round;
    pool.parallel_for(static_cast<uint32_t>(values.size()), [&](uint32_t index, uint32_t) { values[index] += index; });
    for (uint32_t index = 0; index < values.size(); ++index) check(values[index] == round + index, "a stale value", index);
  }
}

void test_start_and_stop() {
  for (uint32_t round = 0; round < 200; ++round) {
    ThreadPool pool(1 + round % 5);
    std::atomic<uint32_t> runs = 0;
    if (round % 2 == 0) pool.parallel_for(5, [&](uint32_t, uint32_t) { ++runs; });
    check(runs == (round % 2 == 0 ? 5u : 0u), "a pool that is stopped at once", round);
  }
}

}  // namespace

int main() {
  for (uint32_t threads : {0u, 1u, 2u, 3u, 8u}) test_every_index_once(threads);
  for (uint32_t threads : {2u, 3u, 5u}) test_small_loops(threads, 30000);
  test_visibility();
  test_start_and_stop();
  printf("thread_pool_test: %d checks passed\n", checks.load());
}
