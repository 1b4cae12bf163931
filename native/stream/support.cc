#include "support.h"

#include <functional>

#include "../backend/op_names.h"
#include "../backend/self_check.h"
#include "../platform/error.h"
#include "step_ops.h"

namespace layerstream {

namespace {

using OpVisitor = std::function<void(const Op& op, size_t stage)>;

// Of one stage, the ops that its steps become.
class StageOps {
 public:
  StageOps(const RuntimeDescription& description, size_t index, const OpVisitor& visit)
      : description_(description), stage_(description.stages[index]), visit_([index, &visit](const Op& op) { visit(op, index); }) {}

  template <class Step>
  void visit_step(const Step& step) const {
    visit_(op_of(step));
  }

  void visit_step(const AttentionStep& step) const { visit_(op_of(step, description_)); }

  void visit_step(const MatmulStep& step) const {
    const Matrix& matrix = stage_.matrices[step.matrix];
    visit_(op_of(step, matrix, description_));
    if (matrix.permuted()) {
      PermuteOp permute{};
      permute.width = matrix.columns;
      visit_(permute);
    }
    for (const Adapter& adapter : matrix.adapters) {
      visit_(down_op(adapter, matrix));
      visit_(up_op(adapter, matrix, step));
    }
  }

  void visit_step(const RouteStep&) const {
    GatherRowsOp gather{};
    gather.width = description_.register_widths[static_cast<size_t>(Register::kExpertInput)];
    visit_(gather);
    ScatterAddOp scatter{};
    scatter.width = description_.register_widths[static_cast<size_t>(Register::kExpertOutput)];
    visit_(scatter);
  }

 private:
  const RuntimeDescription& description_;
  const Stage& stage_;
  const std::function<void(const Op&)> visit_;
};

void visit_ops(const RuntimeDescription& description, const OpVisitor& visit) {
  visit(embed_op(description), description.embedding.stage);
  for (size_t index = 0; index < description.stages.size(); ++index) {
    const StageOps stage(description, index, visit);
    for (const Step& step : description.plans[description.stages[index].kind]) {
      std::visit([&](const auto& concrete) { stage.visit_step(concrete); }, step);
    }
  }
}

}  // namespace

void check_support(const RuntimeDescription& description, const Device& device) {
  visit_ops(description, [&](const Op& op, size_t stage) {
    if (device.supports(op)) return;
    throw Error("DEVICE_UNAVAILABLE", "The device '" + device.info().name + "' has no kernel for " + describe(op) + ", which stage " +
                                          std::to_string(stage) + " of the model needs. Choose another device, `cpu` for example.");
  });
}

void check_results(const RuntimeDescription& description, Device& device) {
  if (device.info().driver.empty()) return;
  visit_ops(description, [&](const Op& op, size_t) { check_computes(device, op); });
}

}  // namespace layerstream
