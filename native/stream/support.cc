#include "support.h"

#include "../backend/op_names.h"
#include "../platform/error.h"
#include "step_ops.h"

namespace layerstream {

namespace {

class StageSupport {
 public:
  StageSupport(const RuntimeDescription& description, const Device& device, size_t index)
      : description_(description), device_(device), index_(index), stage_(description.stages[index]) {}

  void require(const Op& op) const {
    if (device_.supports(op)) return;
    throw Error("DEVICE_UNAVAILABLE", "The device '" + device_.info().name + "' has no kernel for " + describe(op) + ", which stage " +
                                          std::to_string(index_) + " of the model needs. Choose another device, `cpu` for example.");
  }

  template <class Step>
  void require_step(const Step& step) const {
    require(op_of(step));
  }

  void require_step(const AttentionStep& step) const { require(op_of(step, description_)); }

  void require_step(const MatmulStep& step) const {
    const Matrix& matrix = stage_.matrices[step.matrix];
    require(op_of(step, matrix, description_));
    if (matrix.permuted()) {
      PermuteOp permute{};
      permute.width = matrix.columns;
      require(permute);
    }
    for (const Adapter& adapter : matrix.adapters) {
      require(down_op(adapter, matrix));
      require(up_op(adapter, matrix, step));
    }
  }

  void require_step(const RouteStep&) const {
    GatherRowsOp gather{};
    gather.width = description_.register_widths[static_cast<size_t>(Register::kExpertInput)];
    require(gather);
    ScatterAddOp scatter{};
    scatter.width = description_.register_widths[static_cast<size_t>(Register::kExpertOutput)];
    require(scatter);
  }

 private:
  const RuntimeDescription& description_;
  const Device& device_;
  const size_t index_;
  const Stage& stage_;
};

}  // namespace

void check_support(const RuntimeDescription& description, const Device& device) {
  StageSupport(description, device, description.embedding.stage).require(embed_op(description));
  for (size_t index = 0; index < description.stages.size(); ++index) {
    const StageSupport stage(description, device, index);
    for (const Step& step : description.plans[description.stages[index].kind]) {
      std::visit([&](const auto& concrete) { stage.require_step(concrete); }, step);
    }
  }
}

}  // namespace layerstream
