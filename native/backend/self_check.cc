#include "self_check.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <mutex>
#include <set>
#include <sstream>

#include "../platform/error.h"
#include "trial_ops.h"

namespace layerstream {

namespace {

// Of the largest value: more than any precision rounds, less than any fault leaves.
constexpr float kTolerance = 0.02f;

// The memory of a trial on a device, and what its ops are enqueued with, given back at the end.
class TrialRun {
 public:
  explicit TrialRun(Device& device) : device_(device), stream_(device.create_stream()) {}
  ~TrialRun() {
    device_.destroy(stream_);
    if (event_ != nullptr) device_.destroy(event_);
    if (buffer_ != nullptr) device_.free(buffer_);
    if (pinned_ != nullptr) device_.free_pinned(pinned_);
  }
  TrialRun(const TrialRun&) = delete;
  TrialRun& operator=(const TrialRun&) = delete;

  std::vector<float> output(const TrialMemory& memory, const Trial::Ready& trial) {
    const uint64_t bytes = memory.bytes().size();
    event_ = device_.create_event();
    buffer_ = device_.alloc(bytes);
    pinned_ = device_.alloc_pinned(bytes);
    std::memcpy(pinned_, memory.bytes().data(), bytes);
    device_.upload(stream_, {buffer_, 0, bytes}, pinned_);
    device_.launch(stream_, trial.ops(buffer_));
    std::vector<float> values(trial.output.bytes / sizeof(float));
    device_.download(stream_, values.data(), trial.output.in(buffer_));
    device_.record(event_, stream_);
    device_.synchronize(event_);
    return values;
  }

 private:
  Device& device_;
  Stream* const stream_;
  Event* event_ = nullptr;
  Buffer* buffer_ = nullptr;
  void* pinned_ = nullptr;
};

void compare(const DeviceInfo& info, const std::string& name, const std::vector<float>& values, const std::vector<float>& expected) {
  float largest = 0;
  for (const float value : expected) largest = std::max(largest, std::abs(value));
  for (size_t i = 0; i < values.size(); ++i) {
    if (std::abs(values[i] - expected[i]) <= kTolerance * largest) continue;
    std::ostringstream message;
    message << "The device '" << info.name << "' computes " << name << " wrongly: value " << i << " is " << values[i] << " and should be "
            << expected[i] << ". Its driver may be at fault (" << (info.driver.empty() ? "none" : info.driver)
            << "): install another version, or choose another device, `cpu` for example.";
    throw Error("DEVICE_UNAVAILABLE", message.str());
  }
}

std::mutex passed_mutex;
// Never destroyed: at process exit, models may still be loading.
auto& passed = *new std::set<std::string>;

}  // namespace

void check_computes(Device& device, const Op& op) {
  const DeviceInfo info = device.info();
  std::unique_ptr<Device> reference;
  for (const Trial& trial : trials_of(op)) {
    const std::string key = info.name + '|' + info.kernels + '|' + info.driver + '|' + trial.name;
    {
      const std::lock_guard lock(passed_mutex);
      if (passed.contains(key)) continue;
    }
    if (!reference) reference = open_device("cpu", {});
    TrialMemory memory;
    const Trial::Ready ready = trial.prepare(memory);
    const std::vector<float> values = TrialRun(device).output(memory, ready);
    compare(info, trial.name, values, TrialRun(*reference).output(memory, ready));
    const std::lock_guard lock(passed_mutex);
    passed.insert(key);
  }
}

}  // namespace layerstream
