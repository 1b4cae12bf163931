// Routing: which experts the tokens of a pass take, and their stages.
#include "../platform/error.h"
#include "runtime.h"

namespace layerstream {

// Waits for the router's logits, chooses, and has the chosen experts read while the rest of the stage runs.
void Runtime::route(uint32_t index, const RouteStep& step, uint32_t tokens) {
  const Range logits = registers(step.logits).at(0, uint64_t{tokens} * width(step.logits) * sizeof(float));
  if (!unified_) device_->download(compute_, router_logits_, logits);
  device_->record(finished_, compute_);
  wait_for_compute(index, finished_);
  const float* host = unified_ ? static_cast<const float*>(device_->host_address(logits)) : router_logits_;
  router_.route(step.rule, host, width(step.logits), tokens, description_.stages[index].correction, rows_host_, weights_host_);
  if (!unified_) {
    const uint64_t bytes = uint64_t{tokens} * step.rule.per_token * sizeof(float);
    device_->upload(compute_, rows_.at(0, bytes), rows_host_);
    device_->upload(compute_, weights_.at(0, bytes), weights_host_);
  }
  arriving_.clear();
  for (const uint32_t expert : router_.chosen()) {
    if (!description_.stages[index + 1 + expert].resident()) arriving_.push_back(index + 1 + expert);
  }
  experts_->begin(arriving_);
  route_ = &step;
}

void Runtime::run_experts(uint32_t index, const RouteStep& step, const PassRequest& request) {
  for (const uint32_t expert : router_.chosen()) {
    if (tape_.cancelled()) throw Error("ABORTED", "The pass was aborted.");
    const uint32_t count = router_.count(expert);
    const Range rows = rows_.at(router_.begin(expert) * sizeof(uint32_t), count * sizeof(uint32_t));
    const Range weights = weights_.at(router_.begin(expert) * sizeof(float), count * sizeof(float));
    const uint32_t input_width = width(Register::kExpertInput);
    launch(GatherRowsOp{registers(step.input), registers(Register::kExpertInput), rows, count, input_width, width(step.input), input_width});
    run_steps(index + 1 + expert, request, count);
    const uint32_t output_width = width(Register::kExpertOutput);
    launch(ScatterAddOp{registers(Register::kExpertOutput), registers(step.output), rows, weights, count, output_width, output_width,
                        width(step.output)});
  }
}

}  // namespace layerstream
