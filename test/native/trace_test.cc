// The trace: sums, why a stream stood still, the ring, several threads.
#include "../../native/platform/trace.h"

#include <cstdio>
#include <cstdlib>
#include <thread>
#include <vector>

#include "../../native/backend/work.h"

using namespace layerstream;
using std::chrono::milliseconds;

namespace {

int checks = 0;

void check(bool condition, const char* what) {
  ++checks;
  if (condition) return;
  fprintf(stderr, "trace_test: %s\n", what);
  exit(1);
}

constexpr uint32_t kActivities = static_cast<uint32_t>(Activity::kMatmul) + 1;
constexpr uint64_t kMillisecond = 1'000'000;

Trace::Sum sum_of(const Trace& trace, bool prompt, uint32_t kind, Activity activity) {
  return trace.phase(prompt).sums[kind * trace.activities() + static_cast<uint32_t>(activity)];
}

// Stages 0 and 2 are of kind 1, stage 1 of kind 0; kind 2 stands for no stage.
Trace make_trace(uint32_t spans) { return Trace({1, 0, 1}, 2, kActivities, spans); }

void test_sums() {
  Trace trace = make_trace(16);
  const Trace::Time base = Trace::Clock::now();
  trace.begin_pass(true, 5);
  trace.record(Track::kCompute, Activity::kNorm, 0, base, base + milliseconds(2));
  trace.record(Track::kCompute, Activity::kNorm, 2, base + milliseconds(2), base + milliseconds(5));
  trace.record(Track::kCompute, Activity::kMatmul, 1, base + milliseconds(5), base + milliseconds(6), {100, 300});
  trace.end_pass();
  trace.begin_pass(false, 1);
  trace.record(Track::kCompute, Activity::kMatmul, 1, base + milliseconds(7), base + milliseconds(8), {10, 30});
  trace.end_pass();

  const Trace::Sum norms = sum_of(trace, true, 1, Activity::kNorm);
  check(norms.count == 2 && norms.nanoseconds == 5 * kMillisecond, "ops of one kind of stage are summed");
  const Trace::Sum products = sum_of(trace, true, 0, Activity::kMatmul);
  check(products.count == 1 && products.bytes == 100 && products.operations == 300, "work is summed");
  check(sum_of(trace, false, 0, Activity::kMatmul).bytes == 10, "single tokens are apart from prompts");
  check(trace.phase(true).tokens == 5 && trace.phase(false).tokens == 1, "tokens");
  check(sum_of(trace, true, 2, Activity::kPass).count == 1, "passes");
}

void test_gaps() {
  Trace trace = make_trace(16);
  trace.begin_pass(false, 1);
  const Trace::Time base = Trace::Clock::now();
  const auto at = [&](int time) { return base + milliseconds(time); };
  trace.record(Track::kCompute, Activity::kNorm, 0, at(10), at(20));
  trace.record(Track::kPass, Activity::kDiskWait, 1, at(15), at(27));
  trace.record(Track::kCopies, Activity::kCopy, 1, at(27), at(30));
  trace.record(Track::kCompute, Activity::kMatmul, 1, at(32), at(40));
  check(sum_of(trace, false, 0, Activity::kDiskStall).nanoseconds == 7 * kMillisecond, "waiting for the disk counts where no op ran");
  check(sum_of(trace, false, 0, Activity::kCopyStall).nanoseconds == 3 * kMillisecond, "waiting for a copy");
  check(sum_of(trace, false, 0, Activity::kIdle).nanoseconds == 2 * kMillisecond, "what is left is idle");
  trace.record(Track::kPass, Activity::kDiskWait, 1, at(33), at(38));
  trace.record(Track::kCompute, Activity::kMatmul, 1, at(40), at(41));
  check(sum_of(trace, false, 0, Activity::kDiskStall).nanoseconds == 7 * kMillisecond, "waits behind an op cost nothing");
}

void test_reads() {
  Trace trace = make_trace(16);
  const Trace::Time base = Trace::Clock::now();
  const auto at = [&](int time) { return base + milliseconds(time); };
  trace.record(Track::kReader, Activity::kRead, 0, at(0), at(10), {100, 0}, 0);
  trace.record(Track::kReader, Activity::kRead, 0, at(2), at(12), {100, 0}, 1);
  trace.record(Track::kReader, Activity::kRead, 0, at(20), at(21), {100, 0}, 0);
  const Trace::Sum reads = sum_of(trace, true, 1, Activity::kRead);
  check(reads.bytes == 300 && reads.nanoseconds == 13 * kMillisecond, "overlapping reads count once");
}

void test_javascript() {
  Trace trace = make_trace(16);
  trace.enter(Activity::kPass);
  trace.begin_pass(true, 2);
  trace.end_pass();
  trace.enter(Activity::kEngine);
  std::this_thread::sleep_for(milliseconds(2));
  trace.enter(Activity::kCaller);
  trace.enter(Activity::kIdle);
  std::this_thread::sleep_for(milliseconds(2));
  trace.begin_pass(true, 2);
  trace.end_pass();
  check(sum_of(trace, true, 2, Activity::kEngine).nanoseconds >= 2 * kMillisecond, "JavaScript's own time");
  check(sum_of(trace, true, 2, Activity::kCaller).count == 1, "the caller's time");
  check(sum_of(trace, true, 2, Activity::kSwitch).count == 2, "to the pass and back, and not what lies between generations");
  check(trace.recorded() == 4, "two passes and two spans of JavaScript");
}

void test_ring() {
  Trace trace = make_trace(4);
  const Trace::Time base = Trace::Clock::now();
  for (uint32_t number = 0; number < 10; ++number) trace.record(Track::kReader, Activity::kRead, number, base, base, {number, 0});
  std::vector<Trace::Span> spans;
  check(trace.copy(0, 100, &spans) == 6 && spans.size() == 4, "the last spans are kept");
  for (size_t index = 0; index < spans.size(); ++index) check(spans[index].bytes == 6 + index, "in order");
  spans.clear();
  check(trace.copy(8, 1, &spans) == 8 && spans.size() == 1 && spans[0].bytes == 8, "from the middle");
  spans.clear();
  trace.copy(10, 100, &spans);
  check(spans.empty() && trace.recorded() == 10, "nothing beyond the end");
}

void test_threads() {
  Trace trace = make_trace(64);
  std::vector<std::thread> threads;
  for (int thread = 0; thread < 4; ++thread) {
    threads.emplace_back([&trace] {
      const Trace::Time now = Trace::Clock::now();
      for (int i = 0; i < 1000; ++i) trace.record(Track::kCompute, Activity::kNorm, 1, now, now, {1, 2});
    });
  }
  for (std::thread& thread : threads) thread.join();
  const Trace::Sum sum = sum_of(trace, true, 0, Activity::kNorm);
  check(sum.count == 4000 && sum.bytes == 4000 && sum.operations == 8000 && trace.recorded() == 4000, "nothing is lost");
}

void test_work() {
  MatmulOp product{};
  product.format = Format::kBF16;
  product.rows = 3;
  product.columns = 10;
  product.row_bytes = 20;
  product.tokens = 7;
  const OpWork multiplied = work_of(product);
  check(multiplied.activity != Activity::kMatmul && multiplied.work.bytes == 60 && multiplied.work.operations == 2 * 3 * 10 * 7, "a product");

  AttentionOp attention{};
  attention.tokens = 3;
  attention.first_position = 4;
  attention.heads = 4;
  attention.kv_heads = 2;
  attention.head_dim = attention.value_dim = 8;
  // Tokens at positions 4, 5 and 6 see 5 + 6 + 7 keys; seven are read.
  const Work all = work_of(attention).work;
  check(all.operations == 2 * 18 * 4 * 16 && all.bytes == 7 * 2 * 16 * sizeof(float), "attention");
  attention.kv_format = KvFormat::kBF16;
  check(work_of(attention).work.bytes == all.bytes / 2, "keys and values in bf16");
  attention.kv_format = KvFormat::kF32;
  attention.window = 2;
  const Work windowed = work_of(attention).work;
  check(windowed.operations == 2 * 6 * 4 * 16 && windowed.bytes == 4 * 2 * 16 * sizeof(float), "attention within a window");
}

}  // namespace

int main() {
  test_sums();
  test_gaps();
  test_reads();
  test_javascript();
  test_ring();
  test_threads();
  test_work();
  printf("trace_test: %d checks\n", checks);
}
