#include "addon_pass.h"

#include <utility>

#include "addon.h"
#include "addon_values.h"
#include "platform/error.h"

namespace layerstream {

namespace {

Segment read_segment(const Napi::Object& item, const RuntimeDescription& limits) {
  Segment segment{uint_at(item, "tokens"), uint_at(item, "firstPosition"), uints_at(item, "pages")};
  if (segment.tokens == 0 || uint64_t{segment.first_position} + segment.tokens > segment.pages.size() * limits.page_positions) {
    throw Error("INTERNAL", "A segment has no tokens or too few pages.");
  }
  for (const uint32_t page : segment.pages) {
    if (page >= limits.page_count) throw Error("INTERNAL", "A page is out of range.");
  }
  return segment;
}

std::vector<RopeTable> read_ropes(const Napi::Object& object, const RuntimeDescription& limits) {
  std::vector<RopeTable> ropes;
  each(object, "ropes", [&](const Napi::Object& item) {
    ropes.push_back({floats_at(item, "inverseFrequencies"), float_at(item, "attentionFactor")});
    if (ropes.size() > limits.rope_dims.size() || ropes.back().inverse_frequencies.size() != limits.rope_dims[ropes.size() - 1] / 2) {
      throw Error("INTERNAL", "A rope table has the wrong size.");
    }
  });
  return ropes;
}

PassRequest read_request(const Napi::Object& object, LoadedModel& model) {
  PassRequest request;
  const RuntimeDescription& limits = model.limits;
  request.follows = has(object, "ends");
  if (request.follows) request.ends = uints_at(object, "ends");
  else request.tokens = uints_at(object, "tokens");
  const uint64_t count = request.follows ? 1 : request.tokens.size();
  if (count == 0 || count > limits.max_tokens) throw Error("INTERNAL", "A pass of that many tokens does not fit.");
  for (const uint32_t token : request.tokens) {
    if (token >= model.embedding_rows) throw Error("TOKEN_OUT_OF_RANGE", "Token " + std::to_string(token) + " is outside the vocabulary.");
  }
  uint64_t tokens = 0;
  uint64_t pages = 0;
  each(object, "segments", [&](const Napi::Object& item) {
    request.segments.push_back(read_segment(item, limits));
    tokens += request.segments.back().tokens;
    pages += request.segments.back().pages.size();
  });
  if (tokens != count || pages > limits.page_count) throw Error("INTERNAL", "Segments and tokens disagree.");
  if (has(object, "ropes")) model.ropes = read_ropes(object, limits);
  if (model.ropes.size() != limits.rope_dims.size()) throw Error("INTERNAL", "Rope tables are missing.");
  request.ropes = model.ropes;
  request.prompt = flag_at(object, "prompt");
  request.request_tokens = uint_at(object, "requestTokens");
  request.all_logits = flag_at(object, "allLogits");
  const Napi::Value logits = object.Get("logits");
  if (logits.IsTypedArray()) {
    auto array = logits.As<Napi::Float32Array>();
    const uint64_t rows = request.all_logits ? tokens : request.segments.size();
    if (array.ElementLength() < rows * limits.vocab_size) throw Error("INTERNAL", "The array for logits is too small.");
    request.logits = array.Data();
  }
  request.choose = flag_at(object, "choose") && request.logits != nullptr;
  if (request.choose && (request.all_logits || request.segments.size() != 1)) throw Error("INTERNAL", "Only one token can be chosen.");
  return request;
}

// Lives from runPass to the settling of its promise; keeps the array for logits alive.
struct PendingPass {
  explicit PendingPass(Napi::Env env) : deferred(Napi::Promise::Deferred::New(env)) {}
  Napi::Promise::Deferred deferred;
  Napi::ObjectReference request;
  std::shared_ptr<LoadedModel> model;
  PassResult result;
  std::exception_ptr error;
};

struct Messenger;
void settle(Napi::Env env, Napi::Function, Messenger* messenger, PendingPass* raw);

// The way from pass threads to the thread of one environment, for all passes of all models.
struct Messenger {
  using Channel = Napi::TypedThreadSafeFunction<Messenger, PendingPass, settle>;

  explicit Messenger(Napi::Env env) : channel(Channel::New(env, "layerstream pass", 0, 1, this)) { channel.Unref(env); }

  // Node lives on while passes are pending.
  void begin(Napi::Env env) {
    if (pending++ == 0) channel.Ref(env);
  }
  void end(Napi::Env env) {
    if (--pending == 0) channel.Unref(env);
  }

  Channel channel;
  uint32_t pending = 0;
};

void settle(Napi::Env env, Napi::Function, Messenger* messenger, PendingPass* raw) {
  // The environment is going: so has all that belongs to it.
  if (static_cast<napi_env>(env) == nullptr) return;
  const std::unique_ptr<PendingPass> pending(raw);
  const Napi::HandleScope scope(env);
  messenger->end(env);
  if (pending->error) pending->deferred.Reject(to_js_error(env, pending->error).Value());
  else if (!pending->result.ran) pending->deferred.Resolve(env.Undefined());
  else pending->deferred.Resolve(Napi::Number::New(env, static_cast<double>(pending->result.token)));
}

Messenger& messenger_of(Napi::Env env) {
  auto* messenger = env.GetInstanceData<Messenger>();
  if (messenger == nullptr) env.SetInstanceData(messenger = new Messenger(env));
  return *messenger;
}

}  // namespace

Napi::Value start_pass(Napi::Env env, std::shared_ptr<LoadedModel> model, const Napi::Object& object) {
  auto pending = std::make_unique<PendingPass>(env);
  pending->model = std::move(model);
  PassRequest request = read_request(object, *pending->model);
  pending->request = Napi::Persistent(object);
  Messenger& messenger = messenger_of(env);
  messenger.channel.Acquire();
  const Napi::Promise promise = pending->deferred.Promise();
  PendingPass* raw = pending.get();
  const auto done = [raw, channel = messenger.channel](PassResult result, std::exception_ptr error) {
    raw->result = result;
    raw->error = error;
    if (channel.BlockingCall(raw) == napi_ok) channel.Release();
  };
  try {
    raw->model->runtime->run_pass(std::move(request), done);
  } catch (...) {
    messenger.channel.Release();
    throw;
  }
  messenger.begin(env);
  pending.release();
  return promise;
}

}  // namespace layerstream
