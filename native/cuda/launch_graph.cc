#include "launch_graph.h"

#include <algorithm>
#include <utility>

namespace layerstream::cuda {

CUDA_KERNEL_NODE_PARAMS Launch::node(void** parameters) {
  *parameters = arguments.data();
  return {function, grid.x, grid.y, grid.z, threads, 1, 1, shared_bytes, parameters, nullptr};
}

bool same_kernels(const std::vector<Launch>& a, const std::vector<Launch>& b) {
  return std::ranges::equal(a, b, {}, &Launch::function, &Launch::function);
}

LaunchGraph::~LaunchGraph() { release(); }

void LaunchGraph::release() noexcept {
  if (const Api* const api = context_->enter_quietly()) {
    if (executable_ != nullptr) api->cuGraphExecDestroy(executable_);
    if (graph_ != nullptr) api->cuGraphDestroy(graph_);
  }
  executable_ = nullptr;
  graph_ = nullptr;
  nodes_.clear();
  launches_.clear();
}

void LaunchGraph::build(std::vector<Launch>& launches) {
  release();
  const Api& api = context_->enter();
  context_->check(api.cuGraphCreate(&graph_, 0), "cuGraphCreate");
  for (Launch& launch : launches) {
    void* parameters = nullptr;
    const CUDA_KERNEL_NODE_PARAMS node = launch.node(&parameters);
    CUgraphNode added = nullptr;
    const CUgraphNode* const before = nodes_.empty() ? nullptr : &nodes_.back();
    context_->check(api.cuGraphAddKernelNode(&added, graph_, before, nodes_.empty() ? 0 : 1, &node), "cuGraphAddKernelNode");
    nodes_.push_back(added);
  }
  context_->check(api.cuGraphInstantiateWithFlags(&executable_, graph_, 0), "cuGraphInstantiateWithFlags");
}

void LaunchGraph::run(std::vector<Launch>& launches, CUstream stream) {
  if (executable_ == nullptr || !same_kernels(launches, launches_)) {
    build(launches);
  } else {
    const Api& api = context_->enter();
    for (size_t i = 0; i < launches.size(); ++i) {
      if (launches[i] == launches_[i]) continue;
      void* parameters = nullptr;
      const CUDA_KERNEL_NODE_PARAMS node = launches[i].node(&parameters);
      context_->check(api.cuGraphExecKernelNodeSetParams(executable_, nodes_[i], &node), "cuGraphExecKernelNodeSetParams");
    }
  }
  std::swap(launches_, launches);
  context_->check(context_->enter().cuGraphLaunch(executable_, stream), "cuGraphLaunch");
}

}  // namespace layerstream::cuda
