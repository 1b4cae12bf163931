// The runtime on a device that delays, overtakes, runs out of memory and is lost (fake_device.h): the bits of the device `cpu`
// whatever the order, clear errors, nothing left behind, and a model that works the next time.
#include <cstdio>
#include <string>

#include "device_semantics.h"
#include "expert_models.h"
#include "fake_device.h"
#include "loaded_model.h"
#include "long_context.h"

using namespace synthetic;
using namespace layerstream::test;

namespace {

const std::vector<uint32_t> kPrompt = {3, 100, 17, 17, 0, 108, 42, 150, 99, 1, 77, 8, 9};

// What the runtime did to the device, and what it left of it.
struct Fake {
  explicit Fake(FakeOptions options) : options(std::move(options)) {}
  ~Fake() {
    for (const std::string& fault : record->faults) check(false, "the device was misused: " + fault);
  }

  std::unique_ptr<Device> device() const { return std::make_unique<FakeDevice>(options, record); }

  FakeOptions options;
  std::shared_ptr<FakeRecord> record = std::make_shared<FakeRecord>();
};

struct Model {
  std::string name;
  RuntimeDescription description;
  std::vector<float> expected;  // of a conversation on the device `cpu`
};

PassRequest request_of(const RuntimeDescription& description, const std::vector<uint32_t>& tokens, uint32_t position, uint32_t page) {
  PassRequest request = make_request(tokens, position, page);
  request.ropes.clear();
  for (const uint32_t dim : description.rope_dims) {
    RopeTable& rope = request.ropes.emplace_back();
    for (uint32_t i = 0; i < dim / 2; ++i) rope.inverse_frequencies.push_back(std::pow(1e3f, -2.0f * i / dim));
  }
  return request;
}

// A prompt, a token of it, another sequence, and both in one pass.
std::vector<float> conversation(Loaded& model, const RuntimeDescription& description) {
  std::vector<float> all = model.logits(request_of(description, kPrompt, 0, 0), true);
  const auto add = [&](const PassRequest& request) {
    const std::vector<float> next = model.logits(request, false);
    all.insert(all.end(), next.begin(), next.end());
  };
  add(request_of(description, {5}, 13, 0));
  add(request_of(description, {20, 30, 10}, 0, 4));
  PassRequest both = request_of(description, {6}, 14, 0);
  both.tokens.push_back(40);
  both.segments.push_back(request_of(description, {40}, 3, 4).segments[0]);
  add(both);
  return all;
}

void give_rings(RuntimeDescription& description, uint64_t chunks, uint64_t slots) {
  description.ring_bytes = chunks * largest_chunk(description);
  description.slot_bytes = slots * largest_chunk(description);
  description.expert_ring_bytes = chunks * largest_chunk(description, true);
}

RingSizes rings_of(const RuntimeDescription& description) {
  return {description.ring_bytes, description.expert_ring_bytes, description.slot_bytes};
}

// Every third stage, and where the device has that tier, every third in pinned memory.
void hold_thirds(RuntimeDescription& description, bool unified) {
  const Tier tiers[] = {Tier::kDevice, unified ? Tier::kDisk : Tier::kHost, Tier::kDisk};
  for (size_t index = 0; index < description.stages.size(); ++index) hold(description, description.stages[index], tiers[index % 3]);
}

std::string name_of(const Model& model, const FakeOptions& options) {
  return model.name + (options.unified ? ", unified" : ", discrete") + ", order " + std::to_string(static_cast<int>(options.order)) + ", seed " +
         std::to_string(options.seed);
}

// Nothing, everything or some of the weights held, in chunks and rings of several sizes.
void test_same_bits(const Model& model) {
  uint32_t seed = 0;
  std::mt19937 random(3);
  for (const bool unified : {false, true}) {
    for (const Order order : kOrders) {
      for (const int percent : {0, 100, 50, 30}) {
        Fake fake({.unified = unified, .order = order, .seed = ++seed});
        RuntimeDescription description = model.description;
        description.chunk_bytes = seed % 3 == 0 ? 4096 : 10000;
        for (Stage& stage : description.stages) hold(description, stage, draw_tier(random, percent, unified));
        give_rings(description, 1 + seed % 3, 1 + seed % 4);
        Loaded loaded(description, fake.device());
        check(equal(conversation(loaded, description), model.expected), "other bits: " + name_of(model, fake.options));
        if (percent == 50) check(equal(conversation(loaded, description), model.expected), "other bits the second time: " + name_of(model, fake.options));
      }
    }
  }
}

// A prompt whose stages work on blocks of tokens, with the ring that holds a stage.
void test_blocks(const Model& model) {
  for (const bool unified : {false, true}) {
    for (const Order order : kOrders) {
      for (const uint32_t block_tokens : {1u, 4u}) {
        Fake fake({.unified = unified, .order = order, .seed = block_tokens});
        RuntimeDescription description = model.description;
        description.chunk_bytes = 10000;
        description.block_tokens = block_tokens;
        if (block_tokens > 1) hold_thirds(description, unified);
        give_rings(description, unified ? 60 : 2, 60);
        Loaded loaded(description, fake.device());
        check(equal(conversation(loaded, description), model.expected), "other bits in blocks: " + name_of(model, fake.options));
      }
    }
  }
}

// Layers of the KV cache in a file, or in pinned memory, on a device whose memory runs out when they are moved there.
void test_spill(const Model& model, bool unified, const std::string& directory) {
  uint64_t failing = 1;
  for (bool failed = true; failed; ++failing) {
    RuntimeDescription description = model.description;
    description.spill_directory = directory;
    give_rings(description, 2, 2);
    uint64_t load_allocations = 0;
    {
      Fake fake({.unified = unified});
      Loaded loaded(description, fake.device());
      load_allocations = fake.record->allocations;
    }
    Fake fake({.unified = unified, .order = kOrders[failing % 4], .failing_allocation = load_allocations + failing});
    Loaded loaded(description, fake.device());
    const std::vector<uint8_t> pages(description.page_count, 1);
    const auto spill = [&] { loaded.runtime.set_working_memory(description.max_tokens, pages, 1); };
    const Failure failure = failure_of(spill);
    failed = !failure.code.empty();
    check(!failed || failure.code == "DEVICE_FAILED", "layers in a file without memory: " + failure.message);
    if (!failed) break;
    check(equal(conversation(loaded, description), model.expected), "other bits after layers could not be moved to a file");
    spill();
    check(equal(conversation(loaded, description), model.expected), "other bits with layers in a file: " + name_of(model, fake.options));
  }
  check(failing > 5, "moving layers to a file allocates");
}

// Layers of the KV cache in pinned memory and back, with every order, and blocks of tokens.
void test_host_layers(const Model& model, std::initializer_list<uint32_t> blocks) {
  for (const Order order : kOrders) {
    for (const uint32_t block_tokens : blocks) {
      Fake fake({.order = order, .seed = block_tokens});
      RuntimeDescription description = model.description;
      description.block_tokens = block_tokens;
      give_rings(description, 2, 60);
      Loaded loaded(description, fake.device());
      const std::vector<uint8_t> pages(description.page_count, 1);
      for (const uint32_t layers : {0u, 1u, description.kv_layers}) {
        loaded.runtime.set_working_memory(description.max_tokens, pages, layers);
        for (int round = 0; round < 5; ++round) loaded.abort(request_of(description, kPrompt, 0, 0), std::chrono::microseconds(round * 400));
        check(equal(conversation(loaded, description), model.expected), "other bits with layers in pinned memory: " + name_of(model, fake.options));
      }
    }
  }
}

// The same with caches that come in several parts.
void test_host_parts(RuntimeDescription description, std::initializer_list<uint32_t> blocks) {
  give_rings(description, 2, 60);
  const std::vector<uint8_t> pages(description.page_count, 1);
  RuntimeDescription on_cpu = description;
  Loaded in_memory(on_cpu);
  in_memory.runtime.set_working_memory(description.max_tokens, pages, description.kv_layers);
  const auto make = [&](const std::vector<uint32_t>& tokens, uint32_t position, uint32_t page) { return request_of(description, tokens, position, page); };
  const std::vector<float> expected = long_conversation(in_memory, make);
  uint32_t seed = 0;
  for (const Order order : kOrders) {
    for (const uint32_t block_tokens : blocks) {
      Fake fake({.order = order, .seed = ++seed});
      description.block_tokens = block_tokens;
      Loaded loaded(description, fake.device());
      loaded.runtime.set_working_memory(description.max_tokens, pages, seed % 2);
      check(equal(long_conversation(loaded, make), expected), "other bits with caches in parts, order " + std::to_string(static_cast<int>(order)));
    }
  }
}

// What is held, registers and pages change between passes.
void test_changes(const Model& model) {
  for (const bool unified : {false, true}) {
    Fake fake({.unified = unified, .order = Order::kOnDemand});
    RuntimeDescription description = model.description;
    give_rings(description, 2, 2);
    Loaded loaded(description, fake.device());
    std::mt19937 random(8);
    for (int round = 0; round < 6; ++round) {
      std::vector<std::vector<uint8_t>> flags;
      for (Stage& stage : description.stages) {
        hold(description, stage, draw_tier(random, 60, unified));
        flags.push_back(stage.held_chunks);
      }
      give_rings(description, 1 + random() % 3, 1 + random() % 3);
      loaded.player.set_held(flags, rings_of(description));
      const uint32_t tokens = round % 2 == 0 ? 13 : description.max_tokens;
      loaded.runtime.set_working_memory(tokens, std::vector<uint8_t>(description.page_count, 1), description.kv_layers);
      check(equal(conversation(loaded, description), model.expected), "other bits after changes: " + name_of(model, fake.options));
    }
  }
}

// A load, or a pass, whose nth allocation fails: it says so, frees everything, and the next one works.
void test_out_of_memory(const Model& model) {
  RuntimeDescription description = model.description;
  give_rings(description, 2, 2);
  for (const bool unified : {false, true}) {
    hold_thirds(description, unified);
    uint64_t load_allocations = 0, allocations = 0, handles = 0;
    {
      Fake fake({.unified = unified});
      Loaded loaded(description, fake.device());
      load_allocations = fake.record->allocations;
      handles = fake.record->handles;
      conversation(loaded, description);
      allocations = fake.record->allocations;
    }
    check(load_allocations > 5 && allocations > load_allocations, "loading and passes allocate");
    for (uint64_t failing = 1; failing <= load_allocations; ++failing) {
      Fake fake({.unified = unified, .failing_allocation = failing});
      const Failure failure = failure_of([&] { Loaded loaded(description, fake.device()); });
      check(failure.code == "DEVICE_FAILED" && failure.has("out of memory"), "allocation " + std::to_string(failing) + " of a load: " + failure.message);
    }
    // Most of them are the events of chunks.
    for (uint64_t failing = 1; failing <= handles; failing += failing == 4 ? handles - 16 : 1) {
      Fake fake({.unified = unified, .failing_handle = failing});
      const Failure failure = failure_of([&] { Loaded loaded(description, fake.device()); });
      check(failure.code == "DEVICE_FAILED", "stream or event " + std::to_string(failing) + " of a load: " + failure.message);
    }
    for (uint64_t failing = load_allocations + 1; failing <= allocations; ++failing) {
      Fake fake({.unified = unified, .failing_allocation = failing});
      Loaded loaded(description, fake.device());
      const Failure failure = failure_of([&] { conversation(loaded, description); });
      check(failure.code == "DEVICE_FAILED" && failure.has("out of memory"), "allocation " + std::to_string(failing) + " of a pass: " + failure.message);
      check(equal(conversation(loaded, description), model.expected), "other bits after a pass without memory: " + name_of(model, fake.options));
    }
  }
}

// What is held cannot be changed for want of memory: what was held is held on, or nothing works until a change succeeds.
void test_change_out_of_memory(const Model& model, bool unified, uint64_t failures) {
  bool failed = true;
  for (uint64_t failing = 1; failed; ++failing) {
    RuntimeDescription description = model.description;
    give_rings(description, 2, 2);
    uint64_t load_allocations = 0;
    {
      Fake fake({.unified = unified});
      Loaded loaded(description, fake.device());
      load_allocations = fake.record->allocations;
    }
    Fake fake({.unified = unified, .failing_allocation = load_allocations + failing, .failures = failures});
    Loaded loaded(description, fake.device());
    std::vector<std::vector<uint8_t>> flags;
    for (size_t index = 0; index < description.stages.size(); ++index) {
      hold(description, description.stages[index], index % 2 == 1 ? Tier::kDisk : unified || index % 4 == 0 ? Tier::kDevice : Tier::kHost);
      flags.push_back(description.stages[index].held_chunks);
    }
    give_rings(description, 3, 3);
    const auto change = [&] {
      loaded.player.set_held(flags, rings_of(description));
      loaded.runtime.set_working_memory(description.max_tokens, std::vector<uint8_t>(description.page_count, 1), description.kv_layers);
    };
    const Failure failure = failure_of(change);
    failed = !failure.code.empty();
    // The allocation that fails comes after the change.
    if (!failed) continue;
    check(failure.code == "DEVICE_FAILED", "a change without memory: " + failure.message);
    loaded.player.recover();
    const Failure pass = failure_of([&] {
      check(equal(conversation(loaded, description), model.expected), "other bits after a change that failed: " + name_of(model, fake.options));
    });
    check(pass.code.empty() || (failures > 1 && pass.code == "DEVICE_FAILED"), "a pass after a change that failed: " + pass.message);
    loaded.player.recover();
    while (!failure_of(change).code.empty()) loaded.player.recover();
    std::vector<float> logits;
    while (logits.empty()) failure_of([&] { logits = conversation(loaded, description); });
    check(equal(logits, model.expected), "other bits after a change without memory: " + name_of(model, fake.options));
  }
}

// Every call to a lost device fails; the model goes, and the next one works.
void test_lost(const Model& model) {
  for (const bool unified : {false, true}) {
    RuntimeDescription description = model.description;
    hold_thirds(description, unified);
    give_rings(description, 2, 2);
    uint64_t loading = 0, commands = 0;
    {
      Fake fake({.unified = unified});
      Loaded loaded(description, fake.device());
      loading = fake.record->commands;
      check(equal(conversation(loaded, description), model.expected), "other bits before a loss");
      commands = fake.record->commands;
    }
    check(commands > loading + 10, "passes have commands");
    for (uint32_t round = 0; round < 12; ++round) {
      const uint64_t after = round < 4 && loading > 4 ? 1 + loading * round / 4 : loading + 1 + (commands - loading) * 3 / 4 * round / 12;
      Fake fake({.unified = unified, .order = kOrders[round % 4], .seed = round + 1, .lost_after = after});
      const Failure failure = failure_of([&] {
        Loaded loaded(description, fake.device());
        for (int attempt = 0; attempt < 2; ++attempt) {
          const Failure pass = failure_of([&] { conversation(loaded, description); });
          check(pass.code == "DEVICE_FAILED" && pass.has("lost"), "a pass on a lost device: " + pass.message);
        }
      });
      check(failure.code.empty() || (failure.code == "DEVICE_FAILED" && failure.has("lost")), "loading on a lost device: " + failure.message);
    }
    Fake fake({.unified = unified});
    Loaded loaded(description, fake.device());
    check(equal(conversation(loaded, description), model.expected), "other bits after a loss");
  }
}

// Passes that are aborted while commands are pending.
void test_abort(const Model& model) {
  for (const Order order : kOrders) {
    Fake fake({.order = order});
    RuntimeDescription description = model.description;
    give_rings(description, 2, 2);
    Loaded loaded(description, fake.device());
    for (int round = 0; round < 10; ++round) loaded.abort(request_of(description, kPrompt, 0, 0), std::chrono::microseconds(round * 300));
    check(equal(conversation(loaded, description), model.expected), "other bits after aborts: " + name_of(model, fake.options));
  }
}

// A cell of the table op x format is empty: refused before anything is allocated, with its name.
void test_unsupported(const Model& model) {
  const std::pair<std::function<bool(const Op&)>, std::string> missing[] = {
      {[](const Op& op) { return std::holds_alternative<EmbedOp>(op); }, "embed with f32 weights"},
      {[](const Op& op) { return std::holds_alternative<MatmulOp>(op) && std::get<MatmulOp>(op).format == Format::kQ4; }, "matmul with 4bit weights"},
      {[](const Op& op) { return std::holds_alternative<AttentionOp>(op) && std::get<AttentionOp>(op).kv_format == KvFormat::kF32; },
       "attention with keys and values in f32"},
      {[](const Op& op) { return std::holds_alternative<ScatterAddOp>(op); }, "scatter add"},
      {[](const Op& op) { return std::holds_alternative<PermuteOp>(op); }, "permute"},
  };
  RuntimeDescription description = model.description;
  give_rings(description, 2, 2);
  for (const auto& [matches, name] : missing) {
    Fake fake({.supports = [&](const Op& op) { return !matches(op); }});
    const Failure failure = failure_of([&] { Runtime runtime(description, fake.device()); });
    check(failure.code == "DEVICE_UNAVAILABLE" && failure.has("'fake'") && failure.has(name), "without " + name + ": " + failure.message);
    check(fake.record->allocations == 0, "refused before anything is allocated");
  }
  description.kv_format = KvFormat::kQ8;
  Fake fake({.supports = [&](const Op& op) { return !missing[2].first(op); }});
  check(failure_of([&] { Runtime runtime(description, fake.device()); }).code.empty(), "what the model does not need may be missing");
}

}  // namespace

int main() {
  for (const bool unified : {false, true}) {
    for (const Order order : kOrders) {
      Fake fake({.unified = unified, .order = order});
      const std::unique_ptr<Device> device = fake.device();
      check_semantics(*device);
    }
  }
  const TemporaryDirectory plain_directory, mixture_directory, latent_directory;
  Model plain{"plain", write_model(plain_directory.path(), false), {}};
  Model mixture{"mixture of experts", write_mixture(mixture_directory.path()), {}};
  Model latent{"latent attention", write_latent(latent_directory.path()), {}};
  for (Model* model : {&plain, &mixture, &latent}) {
    give_rings(model->description, 4, 4);
    Loaded loaded(model->description);
    model->expected = conversation(loaded, model->description);
  }
  test_blocks(plain);
  test_spill(plain, true, plain_directory.path().string());
  test_spill(plain, false, "");
  test_host_layers(plain, {0, 4});
  test_host_layers(latent, {0});
  test_host_parts(with_long_context(plain.description), {0, 60});
  test_host_parts(with_room(latent.description), {0});
  test_unsupported(mixture);
  for (const Model& model : {plain, mixture, latent}) {
    test_same_bits(model);
    test_abort(model);
    test_changes(model);
    test_lost(model);
  }
  test_out_of_memory(mixture);
  for (const bool unified : {false, true}) {
    for (const uint64_t failures : {1, 40}) test_change_out_of_memory(mixture, unified, failures);
  }
  printf("fake_device_test: %d checks passed\n", checks.load());
}
