#include "reader.h"

#include <cerrno>

#include "../platform/error.h"
#include "../platform/memory.h"

namespace layerstream {

namespace {

std::string place(const ReadRequest& request, uint64_t done) {
  return request.file->path() + " at byte " + std::to_string(request.offset + done);
}

}  // namespace

void Reader::submit(const ReadRequest& request) {
  const uint32_t slot = free_slots_.back();
  free_slots_.pop_back();
  slots_[slot] = {request, 0, trace_ == nullptr ? Trace::Time{} : Trace::Clock::now()};
  start(slot);
}

void Reader::finish(uint32_t index, uint64_t bytes) {
  free_slots_.push_back(index);
  if (trace_ == nullptr) return;
  const Slot& slot = slots_[index];
  trace_->record(track_, Activity::kRead, slot.request.stage, slot.submitted, Trace::Clock::now(), {bytes, 0},
                 static_cast<uint8_t>(index));
}

void Reader::start(uint32_t index) {
  const Slot& slot = slots_[index];
  start(index, slot.request.file->descriptor(), slot.request.offset + slot.done, slot.request.length - slot.done,
        slot.request.destination + slot.done);
}

uint64_t Reader::wait() {
  for (;;) {
    const Completion completion = complete();
    Slot& slot = slots_[completion.slot];
    if (completion.result == -EINTR || completion.result == -EAGAIN) {
      start(completion.slot);
      continue;
    }
    if (completion.result < 0) {
      finish(completion.slot, 0);
      throw Error("IO_ERROR", "Reading failed: " + place(slot.request, slot.done) + ": " +
                                  describe_errno(static_cast<int>(-completion.result)) + ".");
    }
    const uint64_t done = slot.done + static_cast<uint64_t>(completion.result);
    if (done >= slot.request.length) {
      finish(completion.slot, slot.request.length);
      return slot.request.tag;
    }
    // A direct read must continue on a page boundary; the bytes before it are read again. Where it brings less than a
    // page, as at the end of a truncated file, it would do so for ever.
    const uint64_t next = slot.request.file->direct() ? align_down(done, kPageBytes) : done;
    if (next == slot.done) {
      finish(completion.slot, 0);
      throw Error("IO_ERROR", "The file ends too early: " + place(slot.request, done) + ". Run `layerstream verify` on the store.");
    }
    slot.done = next;
    start(completion.slot);
  }
}

void Reader::drain() {
  while (!idle()) {
    try {
      wait();
    } catch (const Error&) {
    }
  }
}

std::unique_ptr<Reader> make_reader(uint32_t depth, std::string* reason) {
  std::unique_ptr<Reader> reader = make_uring_reader(depth, reason);
  return reader ? std::move(reader) : make_pread_reader(depth);
}

}  // namespace layerstream
