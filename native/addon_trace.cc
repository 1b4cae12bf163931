// The trace of a model, for JavaScript.
#include "addon_trace.h"

#include <algorithm>
#include <iterator>

#include "addon_values.h"
#include "backend/format.h"

namespace layerstream {

namespace {

// In the order of Activity, up to kMatmul.
constexpr const char* kActivityNames[] = {"engine",     "caller",    "switch", "pass",     "wait for disk", "wait for compute",
                                          "read",       "wait for space", "read KV", "write KV", "decode", "disk stall", "copy stall", "idle", "copy",
                                          "embed",      "norm",      "rope",   "attention", "activation",   "scale tokens",
                                          "soft cap",   "gather rows", "scatter add", "permute"};
static_assert(std::size(kActivityNames) == static_cast<size_t>(Activity::kMatmul));

constexpr uint32_t kMostSpans = 1 << 20;
constexpr size_t kSpanFields = 8;

Trace& trace_of(Runtime& runtime) {
  if (runtime.trace() != nullptr) return *runtime.trace();
  throw Error("INTERNAL", "The model has no trace.");
}

}  // namespace

// Names by number: what `activity` of a sum or a span means.
Napi::Value activity_names(const Napi::CallbackInfo& info) {
  Napi::Array names = Napi::Array::New(info.Env());
  for (const char* name : kActivityNames) names.Set(names.Length(), name);
  for (const FormatTraits& format : kFormatTraits) names.Set(names.Length(), std::string("matmul ") + format.name);
  return names;
}

// The sums that are not empty.
Napi::Value phase_sums(const Napi::CallbackInfo& info, Runtime& runtime) {
  const Trace& trace = trace_of(runtime);
  const Trace::Phase phase = trace.phase(info[1].ToBoolean());
  Napi::Array sums = Napi::Array::New(info.Env());
  for (size_t index = 0; index < phase.sums.size(); ++index) {
    const Trace::Sum& sum = phase.sums[index];
    if (sum.count == 0) continue;
    Napi::Object object = Napi::Object::New(info.Env());
    object.Set("kind", static_cast<double>(index / trace.activities()));
    object.Set("activity", static_cast<double>(index % trace.activities()));
    object.Set("count", static_cast<double>(sum.count));
    object.Set("seconds", static_cast<double>(sum.nanoseconds) * 1e-9);
    object.Set("bytes", static_cast<double>(sum.bytes));
    object.Set("operations", static_cast<double>(sum.operations));
    sums.Set(sums.Length(), object);
  }
  Napi::Object result = Napi::Object::New(info.Env());
  result.Set("tokens", static_cast<double>(phase.tokens));
  result.Set("sums", sums);
  return result;
}

// Each span is kSpanFields numbers.
Napi::Value trace_spans(const Napi::CallbackInfo& info, Runtime& runtime) {
  const Trace& trace = trace_of(runtime);
  const double first = info[1].ToNumber().DoubleValue();
  const double limit = info[2].ToNumber().DoubleValue();
  if (!(first >= 0 && first < 9007199254740992.0 && limit >= 1 && limit <= kMostSpans)) {
    throw Error("INTERNAL", "Spans outside the trace were asked for.");
  }
  std::vector<Trace::Span> spans;
  const uint64_t begin = trace.copy(static_cast<uint64_t>(first), static_cast<uint32_t>(limit), &spans);
  Napi::Float64Array fields = Napi::Float64Array::New(info.Env(), spans.size() * kSpanFields);
  double* field = fields.Data();
  for (const Trace::Span& span : spans) {
    *field++ = span.track;
    *field++ = span.lane;
    *field++ = span.activity;
    *field++ = span.stage == Trace::kNoStage ? -1.0 : static_cast<double>(span.stage);
    *field++ = static_cast<double>(span.begin);
    *field++ = static_cast<double>(span.end);
    *field++ = static_cast<double>(span.bytes);
    *field++ = static_cast<double>(span.operations);
  }
  Napi::Object result = Napi::Object::New(info.Env());
  result.Set("first", static_cast<double>(begin));
  result.Set("recorded", static_cast<double>(trace.recorded()));
  result.Set("fields", fields);
  return result;
}

Napi::Value trace_activity(const Napi::CallbackInfo& info, Runtime& runtime) {
  constexpr Activity kActivities[] = {Activity::kIdle, Activity::kPass, Activity::kEngine, Activity::kCaller};
  const uint32_t number = info[1].ToNumber().Uint32Value();
  if (number >= std::size(kActivities)) throw Error("INTERNAL", "JavaScript does something unknown.");
  trace_of(runtime).enter(kActivities[number]);
  return info.Env().Undefined();
}

}  // namespace layerstream
