#include "stream.h"

#include "../platform/error.h"

namespace layerstream::opencl {

namespace {

void check_committed(uint64_t found, uint64_t bytes) {
  if (found != bytes) throw Error("INTERNAL", std::to_string(bytes - found) + " bytes of device memory are used but not committed.");
}

}  // namespace

DeviceEvent::~DeviceEvent() {
  if (marker_ != nullptr) context_->api().clReleaseEvent(marker_);
}

void DeviceEvent::set(cl_event marker, std::shared_ptr<CommandLog> log) {
  std::lock_guard lock(mutex_);
  if (marker_ != nullptr) context_->api().clReleaseEvent(marker_);
  marker_ = marker;
  log_ = std::move(log);
}

cl_event DeviceEvent::get(std::shared_ptr<CommandLog>* log) {
  std::lock_guard lock(mutex_);
  if (marker_ != nullptr) context_->api().clRetainEvent(marker_);
  *log = log_;
  return marker_;
}

void DeviceEvent::synchronize() {
  std::shared_ptr<CommandLog> log;
  const cl_event marker = get(&log);
  if (marker == nullptr) return;
  const cl_int status = context_->api().clWaitForEvents(1, &marker);
  log->set_clock(marker);
  context_->api().clReleaseEvent(marker);
  log->harvest();
  log->throw_failure();
  check(status, "clWaitForEvents");
}

DeviceStream::DeviceStream(std::shared_ptr<Context> context, Programs& programs)
    : context_(std::move(context)), programs_(programs), log_(std::make_shared<CommandLog>(context_)), queue_(context_->create_queue()),
      scratch_(*context_), prepared_(*context_) {}

DeviceStream::~DeviceStream() {
  const Api& api = context_->api();
  api.clFinish(queue_);
  release_waits();
  log_->harvest();
  for (const auto& [number, kernel] : kernels_) api.clReleaseKernel(kernel);
  api.clReleaseCommandQueue(queue_);
}

void DeviceStream::release_waits() {
  for (const cl_event event : waits_) context_->api().clReleaseEvent(event);
  waits_.clear();
}

template <class Enqueue>
void DeviceStream::submit(const char* call, const Enqueue& enqueue) {
  log_->throw_failure();
  cl_event event = nullptr;
  const cl_int status = enqueue(static_cast<cl_uint>(waits_.size()), waits_.empty() ? nullptr : waits_.data(), &event);
  release_waits();
  if (status != CL_SUCCESS) {
    try {
      check(status, call);
    } catch (const Error& error) {
      // What follows depends on what failed.
      log_->fail(error.what());
      throw;
    }
  }
  if (first_ == nullptr) {
    first_ = last_ = event;
    return;
  }
  if (last_ != first_) context_->api().clReleaseEvent(last_);
  last_ = event;
}

void DeviceStream::begin(Activity activity, Work work) {
  activity_ = activity;
  work_ = work;
}

void DeviceStream::end() {
  if (first_ != nullptr) log_->add(first_, last_, activity_, stage_, work_);
  first_ = last_ = nullptr;
}

void DeviceStream::record(DeviceEvent& event) {
  cl_event marker = nullptr;
  const cl_int status = context_->api().clEnqueueMarkerWithWaitList(queue_, static_cast<cl_uint>(waits_.size()),
                                                                     waits_.empty() ? nullptr : waits_.data(), &marker);
  release_waits();
  check(status, "clEnqueueMarkerWithWaitList");
  event.set(marker, log_);
  flush();
  log_->harvest();
}

void DeviceStream::wait(DeviceEvent& event) {
  std::shared_ptr<CommandLog> log;
  const cl_event marker = event.get(&log);
  if (marker == nullptr) return;
  if (log == log_) {
    context_->api().clReleaseEvent(marker);
    return;
  }
  waits_.push_back(marker);
}

void DeviceStream::upload(DeviceMemory& memory, uint64_t offset, uint64_t bytes, const void* source) {
  begin(Activity::kCopy, {bytes, 0});
  const uint64_t found = memory.for_each_part(offset, bytes, [&](Operand part, uint64_t first, uint64_t size) {
    submit("clEnqueueWriteBuffer", [&](cl_uint count, const cl_event* list, cl_event* event) {
      return context_->api().clEnqueueWriteBuffer(queue_, part.memory, CL_FALSE, part.offset, size,
                                                  static_cast<const uint8_t*>(source) + first, count, list, event);
    });
  });
  check_committed(found, bytes);
  end();
}

void DeviceStream::download(DeviceMemory& memory, uint64_t offset, uint64_t bytes, void* target) {
  begin(Activity::kCopy, {bytes, 0});
  memory.for_each_part(offset, bytes, [&](Operand part, uint64_t first, uint64_t size) {
    submit("clEnqueueReadBuffer", [&](cl_uint count, const cl_event* list, cl_event* event) {
      return context_->api().clEnqueueReadBuffer(queue_, part.memory, CL_FALSE, part.offset, size,
                                                 static_cast<uint8_t*>(target) + first, count, list, event);
    });
  });
  end();
}

void DeviceStream::copy(DeviceMemory& target, uint64_t target_offset, DeviceMemory& source, uint64_t source_offset, uint64_t bytes) {
  begin(Activity::kCopy, {bytes, 0});
  // Parts of one memory are told before those of the other are asked for: they may be the same memory.
  std::vector<std::pair<Operand, uint64_t>> sources;
  const uint64_t found = source.for_each_part(source_offset, bytes, [&](Operand part, uint64_t, uint64_t size) { sources.push_back({part, size}); });
  check_committed(found, bytes);
  size_t index = 0;
  uint64_t used = 0;
  const uint64_t copied = target.for_each_part(target_offset, bytes, [&](Operand part, uint64_t, uint64_t size) {
    for (uint64_t done = 0; done < size;) {
      const auto& [from, available] = sources[index];
      const uint64_t length = std::min(available - used, size - done);
      submit("clEnqueueCopyBuffer", [&](cl_uint count, const cl_event* list, cl_event* event) {
        return context_->api().clEnqueueCopyBuffer(queue_, from.memory, part.memory, from.offset + used, part.offset + done, length, count,
                                                   list, event);
      });
      done += length;
      used += length;
      if (used == available) {
        ++index;
        used = 0;
      }
    }
  });
  check_committed(copied, bytes);
  end();
}

void DeviceStream::flush() { check(context_->api().clFlush(queue_), "clFlush"); }

cl_kernel DeviceStream::kernel(const KernelKey& key) {
  const auto found = kernels_.find(key.number());
  if (found != kernels_.end()) return found->second;
  return kernels_.emplace(key.number(), programs_.create_kernel(source_of(key, *context_))).first->second;
}

void DeviceStream::enqueue(cl_kernel kernel, size_t x, size_t y, size_t local_x) {
  const size_t local[] = {local_x, 1};
  const size_t global[] = {(x + local_x - 1) / local_x * local_x, y};
  submit("clEnqueueNDRangeKernel", [&](cl_uint count, const cl_event* list, cl_event* event) {
    return context_->api().clEnqueueNDRangeKernel(queue_, kernel, 2, nullptr, global, local, count, list, event);
  });
}

cl_mem ScratchMemory::at_least(uint64_t bytes) {
  if (bytes_ >= bytes) return memory_;
  release();
  memory_ = context_.create_buffer(bytes);
  bytes_ = bytes;
  return memory_;
}

// Commands that use it keep it.
void ScratchMemory::release() {
  if (memory_ != nullptr) context_.release_buffer(memory_, bytes_);
  memory_ = nullptr;
  bytes_ = 0;
}

void DeviceStream::copy_to_scratch(DeviceMemory& source, uint64_t offset, uint64_t bytes, cl_mem target) {
  const uint64_t found = source.for_each_part(offset, bytes, [&](Operand part, uint64_t first, uint64_t size) {
    submit("clEnqueueCopyBuffer", [&](cl_uint count, const cl_event* list, cl_event* event) {
      return context_->api().clEnqueueCopyBuffer(queue_, part.memory, target, part.offset, first, size, count, list, event);
    });
  });
  check_committed(found, bytes);
}

}  // namespace layerstream::opencl
