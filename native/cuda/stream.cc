#include "stream.h"

#include <cstring>

#include "../platform/error.h"

namespace layerstream::cuda {

namespace {

// Shorter runs are launched one by one: the device has the first while the host prepares the others.
constexpr size_t kLeastRun = 16;

}  // namespace

DeviceEvent::DeviceEvent(std::shared_ptr<Context> context) : context_(std::move(context)) {
  // Blocking: threads that spin would take processors from those that read and decode.
  context_->check(context_->enter().cuEventCreate(&handle_, CU_EVENT_BLOCKING_SYNC | CU_EVENT_DISABLE_TIMING), "cuEventCreate");
}

DeviceEvent::~DeviceEvent() {
  if (const Api* const api = context_->enter_quietly()) api->cuEventDestroy(handle_);
}

void DeviceEvent::set_record(Record record) {
  std::lock_guard lock(mutex_);
  record_ = std::move(record);
}

DeviceEvent::Record DeviceEvent::last_record() {
  std::lock_guard lock(mutex_);
  return record_;
}

void DeviceEvent::synchronize() {
  const Record record = last_record();
  const Api& api = context_->enter();
  if (record.log == nullptr) return;
  context_->check(api.cuEventSynchronize(handle_), "cuEventSynchronize");
  record.log->harvest();
  if (!record.failure.empty()) throw Error("DEVICE_FAILED", record.failure);
}

DeviceStream::DeviceStream(std::shared_ptr<Context> context)
    : context_(std::move(context)), log_(std::make_shared<CommandLog>(context_)), graph_(context_) {
  context_->check(context_->enter().cuStreamCreate(&handle_, CU_STREAM_NON_BLOCKING), "cuStreamCreate");
}

DeviceStream::~DeviceStream() {
  const Api* const api = context_->enter_quietly();
  if (api == nullptr) return;
  end_run();
  api->cuStreamSynchronize(handle_);
  api->cuStreamDestroy(handle_);
}

template <class Enqueue>
void DeviceStream::submit(const char* call, const Enqueue& enqueue) {
  const Api& api = context_->enter();
  log_->throw_failure();
  log_->begin(activity_, stage_, work_, handle_);
  const std::string failure = context_->failure(enqueue(api), call);
  if (failure.empty()) return;
  // What follows depends on what failed.
  log_->fail(failure);
  throw Error("DEVICE_FAILED", failure);
}

void DeviceStream::record(DeviceEvent& event) {
  const Api& api = context_->enter();
  end_run();
  log_->pause(handle_);
  context_->check(api.cuEventRecord(event.handle(), handle_), "cuEventRecord");
  event.set_record({log_, log_->failure()});
  log_->harvest();
}

void DeviceStream::wait(DeviceEvent& event) {
  const Api& api = context_->enter();
  const DeviceEvent::Record record = event.last_record();
  if (record.log == nullptr || record.log == log_) return;
  end_run();
  log_->pause(handle_);
  context_->check(api.cuStreamWaitEvent(handle_, event.handle(), 0), "cuStreamWaitEvent");
  if (!record.failure.empty()) log_->fail(record.failure);
}

void DeviceStream::upload(CUdeviceptr target, const void* source, uint64_t bytes) {
  end_run();
  begin(Activity::kCopy, {bytes, 0});
  submit("cuMemcpyHtoDAsync", [&](const Api& api) { return api.cuMemcpyHtoDAsync(target, source, bytes, handle_); });
  end();
}

void DeviceStream::download(void* target, CUdeviceptr source, uint64_t bytes) {
  end_run();
  begin(Activity::kCopy, {bytes, 0});
  submit("cuMemcpyDtoHAsync", [&](const Api& api) { return api.cuMemcpyDtoHAsync(target, source, bytes, handle_); });
  end();
}

void DeviceStream::copy(CUdeviceptr target, CUdeviceptr source, uint64_t bytes) {
  end_run();
  begin(Activity::kCopy, {bytes, 0});
  submit("cuMemcpyDtoDAsync", [&](const Api& api) { return api.cuMemcpyDtoDAsync(target, source, bytes, handle_); });
  end();
}

void DeviceStream::submit(const char* name, Launch& launch) {
  void* parameters[] = {launch.arguments.data()};
  submit(name, [&](const Api& api) {
    return api.cuLaunchKernel(launch.function, launch.grid.x, launch.grid.y, launch.grid.z, launch.threads, 1, 1, launch.shared_bytes,
                              handle_, parameters, nullptr);
  });
}

void DeviceStream::launch(const char* name, Grid grid, uint32_t threads, uint32_t shared_bytes, const void* arguments, size_t bytes) {
  if (bytes > Launch::kMostArgumentBytes) throw Error("INTERNAL", std::string("The arguments of the kernel ") + name + " are too long.");
  Launch launch{context_->function(name, shared_bytes), grid, threads, shared_bytes, {}};
  std::memcpy(launch.arguments.data(), arguments, bytes);
  const size_t place = run_.size();
  run_.push_back(launch.function);
  if (context_->driver().graphs && !observed_ && pending_.size() == place && place < last_run_.size() && last_run_[place] == launch.function) {
    pending_.push_back(launch);
    return;
  }
  submit_pending();
  submit(name, launch);
}

void DeviceStream::submit_pending() {
  for (Launch& launch : pending_) submit("cuLaunchKernel", launch);
  pending_.clear();
}

void DeviceStream::end_run() {
  if (run_.empty()) return;
  try {
    if (!pending_.empty() && pending_.size() == last_run_.size()) {
      context_->enter();
      log_->throw_failure();
      log_->begin(activity_, stage_, work_, handle_);
      graph_.run(pending_, handle_);
    } else {
      submit_pending();
    }
  } catch (const Error& error) {
    log_->fail(error.what());
  }
  pending_.clear();
  if (run_.size() >= kLeastRun) std::swap(run_, last_run_);
  run_.clear();
}

CUdeviceptr DeviceStream::scratch(uint64_t bytes) {
  if (bytes > kScratchBytes) throw Error("INTERNAL", "An op asks for " + std::to_string(bytes) + " bytes of scratch memory.");
  if (!scratch_) scratch_ = std::make_unique<DeviceMemory>(context_, kScratchBytes, true);
  if (scratch_bytes_ < bytes) {
    scratch_->commit(0, bytes);
    scratch_bytes_ = bytes;
  }
  return scratch_->address();
}

void DeviceStream::begin(Activity activity, Work work) {
  context_->enter();
  log_->throw_failure();
  activity_ = activity;
  work_ = work;
}

void DeviceStream::end() { log_->end(handle_); }

void DeviceStream::observe(Trace* trace, Track track) {
  end_run();
  observed_ = true;
  log_->observe(trace, track, handle_);
}

}  // namespace layerstream::cuda
