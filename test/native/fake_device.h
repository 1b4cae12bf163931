// A device that does everything device.h allows and a real one seldom does: commands run late, streams overtake one another
// wherever no event forbids it, copies are interrupted half-way, new memory is full of NaN, memory runs out, and the device
// is lost in the middle. It computes with the CPU's kernels, so that results are the bits of the device `cpu`. Misuse is noted.
#pragma once

#include <algorithm>
#include <condition_variable>
#include <cstring>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <random>
#include <string>
#include <thread>
#include <variant>
#include <vector>

#include "../../native/backend/device.h"
#include "../../native/backend/work.h"
#include "../../native/cpu/execute.h"
#include "../../native/platform/error.h"
#include "op_ranges.h"

namespace layerstream::test {

// Which of the streams that could go on does.
enum class Order : uint8_t {
  kRandom,
  kOldestFirst,  // ops run ahead of copies
  kNewestFirst,  // copies run ahead of ops
  kOnDemand,     // nothing runs before the host waits for it, and then only what that depends on
};
constexpr Order kOrders[] = {Order::kRandom, Order::kOldestFirst, Order::kNewestFirst, Order::kOnDemand};

struct FakeOptions {
  bool unified = false;
  Order order = Order::kRandom;
  uint32_t seed = 1;
  uint64_t failing_allocation = 0;  // of memory, the first is 1; 0: none fails
  uint64_t failures = 1;            // that one and so many in all
  uint64_t failing_handle = 0;      // of streams and events, likewise
  uint64_t lost_after = UINT64_MAX;  // commands
  std::function<void(Op&)> alter = [](Op&) {};  // what it executes instead
  std::function<bool(const Op&)> supports = [](const Op&) { return true; };
};

// What whoever made the device knows of it, also when it is gone.
struct FakeRecord {
  std::mutex mutex;
  uint64_t allocations = 0, handles = 0, commands = 0;
  std::vector<std::string> faults;

  void fault(const std::string& what) {
    std::lock_guard lock(mutex);
    faults.push_back(what);
  }
};

class FakeDevice final : public Device {
 public:
  FakeDevice(FakeOptions options, std::shared_ptr<FakeRecord> record)
      : options_(std::move(options)),
        record_(std::move(record)),
        random_(options_.seed),
        executor_(cpu::best_kernels(), 2),
        scheduler_([this] { schedule(); }) {}

  ~FakeDevice() override {
    {
      std::lock_guard lock(mutex_);
      stop_ = true;
    }
    changed_.notify_all();
    scheduler_.join();
    const std::pair<const char*, size_t> left[] = {
        {"buffers", buffers_.size()}, {"pinned allocations", pinned_.size()}, {"streams", streams_.size()}, {"events", events_.size()}};
    for (const auto& [what, count] : left) {
      if (count > 0) record_->fault(std::to_string(count) + " " + what + " are left behind");
    }
  }

  DeviceInfo info() const override { return {"fake", "fake", options_.unified, 2}; }
  uint64_t free_bytes() const override { return 0; }
  uint64_t scratch_bytes(uint32_t) const override { return 0; }

  Buffer* alloc(uint64_t bytes) override {
    Buffer* buffer = reserve(bytes);
    set_committed({buffer, 0, bytes}, true);
    return buffer;
  }
  Buffer* reserve(uint64_t bytes) override {
    std::lock_guard lock(mutex_);
    count_allocation();
    Arena arena(bytes);
    std::memset(arena.data(), 0xff, bytes);
    return keep(std::make_unique<FakeBuffer>(std::move(arena), bytes));
  }
  void free(Buffer* buffer) override {
    std::lock_guard lock(mutex_);
    for (const auto& stream : streams_) {
      for (const Command& command : stream->commands) {
        for (const Range& range : ranges_of(command)) {
          if (range.buffer == buffer) record_->fault("a buffer is freed that a command uses");
        }
      }
    }
    if (buffers_.erase(buffer) == 0) record_->fault("a buffer is freed that does not exist");
  }
  void commit(Range range) override {
    std::lock_guard lock(mutex_);
    count_allocation();
    check_range(range);
    set_committed(range, true);
  }
  void populate(Range range) override {
    std::lock_guard lock(mutex_);
    check_range(range);
  }
  void discard(Range range) override {
    std::lock_guard lock(mutex_);
    require_alive();
    check_range(range);
    set_committed(range, false);
  }

  void* alloc_pinned(uint64_t bytes) override {
    std::lock_guard lock(mutex_);
    count_allocation();
    Arena arena(bytes);
    std::memset(arena.data(), 0xff, bytes);
    uint8_t* data = arena.data();
    pinned_.emplace(data, std::make_pair(bytes, std::move(arena)));
    return data;
  }
  void free_pinned(void* memory) override {
    std::lock_guard lock(mutex_);
    const auto found = pinned_.find(static_cast<uint8_t*>(memory));
    if (found == pinned_.end()) return record_->fault("pinned memory is freed that does not exist");
    for (const auto& stream : streams_) {
      for (const Command& command : stream->commands) {
        const auto* copy = std::get_if<CopyCommand>(&command);
        const auto inside = [&](const uint8_t* at) { return at >= found->first && at < found->first + found->second.first; };
        if (copy != nullptr && (inside(copy->source) || inside(copy->destination))) record_->fault("pinned memory is freed that a command uses");
      }
    }
    pinned_.erase(found);
  }
  Buffer* alias_host(void* memory, uint64_t bytes) override {
    if (!options_.unified) throw Error("INTERNAL", "This device cannot alias host memory.");
    std::lock_guard lock(mutex_);
    count_allocation();
    return keep(std::make_unique<FakeBuffer>(memory, bytes));
  }
  void* host_address(Range range) override {
    if (!options_.unified) throw Error("INTERNAL", "This device's memory has no host address.");
    return address(range);
  }

  Stream* create_stream() override {
    std::lock_guard lock(mutex_);
    count_handle();
    return streams_.emplace_back(std::make_unique<FakeStream>()).get();
  }
  void destroy(Stream* stream) override {
    std::unique_lock lock(mutex_);
    FakeStream& drained = of(stream);
    drained.draining = true;
    changed_.notify_all();
    changed_.wait(lock, [&] { return drained.commands.empty(); });
    std::erase_if(streams_, [&](const auto& each) { return each.get() == &drained; });
  }
  Event* create_event() override {
    std::lock_guard lock(mutex_);
    count_handle();
    auto event = std::make_unique<FakeEvent>();
    FakeEvent* const handle = event.get();
    events_.emplace(handle, std::move(event));
    return handle;
  }
  void destroy(Event* event) override {
    std::lock_guard lock(mutex_);
    for (const auto& stream : streams_) {
      for (const Command& command : stream->commands) {
        const auto* record = std::get_if<RecordCommand>(&command);
        const auto* wait = std::get_if<WaitCommand>(&command);
        if ((record != nullptr && record->event == event) || (wait != nullptr && wait->event == event)) {
          record_->fault("an event is destroyed that a command uses");
        }
      }
    }
    if (events_.erase(event) == 0) record_->fault("an event is destroyed that does not exist");
  }
  void record(Event* event, Stream* stream) override {
    std::lock_guard lock(mutex_);
    FakeEvent& recorded = *static_cast<FakeEvent*>(event);
    require_alive();
    push(stream, RecordCommand{&recorded, ++recorded.recorded});
  }
  void wait(Stream* stream, Event* event) override {
    std::lock_guard lock(mutex_);
    FakeEvent& awaited = *static_cast<FakeEvent*>(event);
    require_alive();
    push(stream, WaitCommand{&awaited, awaited.recorded});
  }
  void synchronize(Event* event) override {
    std::unique_lock lock(mutex_);
    FakeEvent& awaited = *static_cast<FakeEvent*>(event);
    const uint64_t sequence = awaited.recorded;
    demands_.push_back({&awaited, sequence});
    changed_.notify_all();
    changed_.wait(lock, [&] { return lost_ || awaited.completed >= sequence; });
    demands_.erase(std::ranges::find_if(demands_, [&](const Demand& demand) { return demand.event == &awaited; }));
    require_alive();
  }

  void upload(Stream* stream, Range destination, const void* source) override {
    std::lock_guard lock(mutex_);
    const auto* begin = static_cast<const uint8_t*>(source);
    const auto holds = [&](const auto& pinned) { return begin >= pinned.first && begin + destination.size <= pinned.first + pinned.second.first; };
    if (!options_.unified && std::ranges::none_of(pinned_, holds)) record_->fault("an upload from memory that is not pinned");
    push_copy(stream, {address(destination), begin, destination.size, {destination}});
  }
  void download(Stream* stream, void* destination, Range source) override {
    std::lock_guard lock(mutex_);
    push_copy(stream, {static_cast<uint8_t*>(destination), address(source), source.size, {source}});
  }
  void copy(Stream* stream, Range destination, Range source) override {
    std::lock_guard lock(mutex_);
    push_copy(stream, {address(destination), address(source), source.size, {destination, source}});
  }

  bool supports(const Op& op) const override { return options_.supports(op); }
  void launch(Stream* stream, std::span<const Op> ops) override {
    std::lock_guard lock(mutex_);
    require_alive();
    for (const Op& op : ops) {
      if (!options_.supports(op)) record_->fault("an op that is not supported");
      for (const Range& range : test::ranges_of(op)) {
        if (range.buffer != nullptr) check_range(range);
      }
      push(stream, op);
    }
  }

  void observe(Stream* stream, Trace* trace, Track track) override {
    of(stream).trace = trace;
    of(stream).track = track;
  }
  void label(Stream* stream, uint32_t stage) override {
    std::lock_guard lock(mutex_);
    require_alive();
    push(stream, LabelCommand{stage});
  }
  uint64_t busy_nanoseconds(Stream* stream) override {
    std::lock_guard lock(mutex_);
    return of(stream).busy_nanoseconds;
  }
  double measure_peak(PeakKind, double) override { return 0; }

 private:
  struct FakeBuffer : cpu::CpuBuffer {
    FakeBuffer(Arena memory, uint64_t bytes) : CpuBuffer(std::move(memory)), size(bytes), committed(bytes / kPageBytes + 1) {}
    FakeBuffer(void* memory, uint64_t bytes) : CpuBuffer(memory), size(bytes), committed(bytes / kPageBytes + 1, true) {}

    uint64_t size;
    std::vector<bool> committed;  // pages
  };
  struct FakeEvent : Event {
    uint64_t recorded = 0, completed = 0;
  };
  struct RecordCommand {
    FakeEvent* event;
    uint64_t sequence;
  };
  struct WaitCommand {
    FakeEvent* event;
    uint64_t sequence;
  };
  using Demand = WaitCommand;
  struct CopyCommand {
    uint8_t* destination;
    const uint8_t* source;
    uint64_t bytes;
    std::vector<Range> ranges;
  };
  struct LabelCommand {
    uint32_t stage;
  };
  using Command = std::variant<Op, CopyCommand, RecordCommand, WaitCommand, LabelCommand>;
  struct FakeStream : Stream {
    std::deque<Command> commands;
    bool draining = false;
    uint64_t busy_nanoseconds = 0;
    Trace* trace = nullptr;
    Track track = Track::kCompute;
    uint32_t stage = Trace::kNoStage;
  };

  static FakeStream& of(Stream* stream) { return *static_cast<FakeStream*>(stream); }
  static uint8_t* address(Range range) { return cpu::address<uint8_t>(range); }

  // --- under the mutex, but for run() ----------------------------------------------------------------------------

  void require_alive() const {
    if (lost_) throw Error("DEVICE_FAILED", "The fake device is lost.");
  }
  void count_allocation() {
    require_alive();
    const uint64_t number = ++record_->allocations, first = options_.failing_allocation;
    if (first > 0 && number >= first && number - first < options_.failures) throw Error("DEVICE_FAILED", "The fake device is out of memory.");
  }
  void count_handle() {
    require_alive();
    if (++record_->handles == options_.failing_handle) throw Error("DEVICE_FAILED", "The fake device has no more streams or events.");
  }
  Buffer* keep(std::unique_ptr<FakeBuffer> buffer) {
    FakeBuffer* const handle = buffer.get();
    buffers_.emplace(handle, std::move(buffer));
    return handle;
  }
  FakeBuffer* check_range(Range range) {
    const auto found = buffers_.find(range.buffer);
    if (found == buffers_.end()) {
      record_->fault("a range of a buffer that does not exist");
      return nullptr;
    }
    FakeBuffer& buffer = *found->second;
    if (range.offset > buffer.size || range.size > buffer.size - range.offset) record_->fault("a range outside of its buffer");
    return &buffer;
  }
  // Whole pages lose their content.
  void set_committed(Range range, bool committed) {
    auto& buffer = *static_cast<FakeBuffer*>(range.buffer);
    const uint64_t end = range.offset + range.size;
    const uint64_t first = committed ? range.offset / kPageBytes : (range.offset + kPageBytes - 1) / kPageBytes;
    const uint64_t last = committed ? (end + kPageBytes - 1) / kPageBytes : end / kPageBytes;
    for (uint64_t page = first; page < last; ++page) {
      buffer.committed[page] = committed;
      if (!committed) std::memset(buffer.data + page * kPageBytes, 0xff, kPageBytes);
    }
  }
  void push(Stream* stream, Command command) {
    of(stream).commands.push_back(std::move(command));
    changed_.notify_all();
  }
  void push_copy(Stream* stream, CopyCommand command) {
    require_alive();
    for (const Range& range : command.ranges) {
      const FakeBuffer* buffer = check_range(range);
      for (uint64_t page = range.offset / kPageBytes; buffer != nullptr && page * kPageBytes < range.offset + range.size; ++page) {
        if (!buffer->committed[page]) {
          record_->fault("a copy of memory that is not committed");
          break;
        }
      }
    }
    push(stream, std::move(command));
  }
  static std::vector<Range> ranges_of(const Command& command) {
    if (const auto* op = std::get_if<Op>(&command)) return test::ranges_of(*op);
    if (const auto* copy = std::get_if<CopyCommand>(&command)) return copy->ranges;
    return {};
  }

  // Whether nothing but the scheduler keeps the stream's first command from running.
  static bool can_run(const FakeStream& stream) {
    if (stream.commands.empty()) return false;
    const auto* wait = std::get_if<WaitCommand>(&stream.commands.front());
    return wait == nullptr || wait->event->completed >= wait->sequence;
  }
  // A stream that can run and that the record depends on.
  FakeStream* provider_of(const Demand& demand) {
    for (const auto& stream : streams_) {
      for (const Command& command : stream->commands) {
        const auto* record = std::get_if<RecordCommand>(&command);
        if (record != nullptr && record->event == demand.event && record->sequence >= demand.sequence) return mover_of(*stream);
      }
    }
    return nullptr;
  }
  FakeStream* mover_of(FakeStream& stream) {
    if (can_run(stream)) return &stream;
    const auto* wait = stream.commands.empty() ? nullptr : std::get_if<WaitCommand>(&stream.commands.front());
    return wait == nullptr ? nullptr : provider_of(*wait);
  }
  FakeStream* choose() {
    if (options_.order == Order::kOnDemand) {
      FakeStream* chosen = nullptr;
      for (const Demand& demand : demands_) {
        if (demand.event->completed < demand.sequence && chosen == nullptr) chosen = provider_of(demand);
      }
      for (const auto& stream : streams_) {
        if (stream->draining && chosen == nullptr) chosen = mover_of(*stream);
      }
      return chosen;
    }
    std::vector<FakeStream*> ready;
    for (const auto& stream : streams_) {
      if (can_run(*stream)) ready.push_back(stream.get());
    }
    if (ready.empty()) return nullptr;
    if (options_.order == Order::kOldestFirst) return ready.front();
    if (options_.order == Order::kNewestFirst) return ready.back();
    return ready[random_() % ready.size()];
  }

  void schedule() {
    std::unique_lock lock(mutex_);
    for (;;) {
      FakeStream* const stream = choose();
      if (stream == nullptr) {
        if (stop_) return;
        changed_.wait(lock);
        continue;
      }
      const bool late = random_() % 16 == 0;
      const uint64_t part = random_();
      lock.unlock();
      // The host goes on meanwhile, and enqueues what may overtake.
      if (late) std::this_thread::sleep_for(std::chrono::microseconds(part % 200));
      const bool finished = run(*stream, part);
      lock.lock();
      if (finished) stream->commands.pop_front();
      if (record_->commands == options_.lost_after) lose();
      changed_.notify_all();
    }
  }

  void lose() {
    lost_ = true;
    for (const auto& stream : streams_) stream->commands.clear();
  }

  // The stream's first command, or the first part of a copy. Whether it has to be taken away.
  bool run(FakeStream& stream, uint64_t part) {
    Command* command = nullptr;
    {
      std::lock_guard lock(mutex_);
      command = &stream.commands.front();
      if (const auto* record = std::get_if<RecordCommand>(command)) {
        record->event->completed = std::max(record->event->completed, record->sequence);
        // Gone at once: who waits for the event may destroy it now.
        stream.commands.pop_front();
        return false;
      }
      if (const auto* label = std::get_if<LabelCommand>(command)) stream.stage = label->stage;
    }
    auto* copy = std::get_if<CopyCommand>(command);
    const auto* op = std::get_if<Op>(command);
    if (copy == nullptr && op == nullptr) return true;
    const Trace::Time begin = Trace::Clock::now();
    bool finished = true;
    OpWork done{Activity::kCopy};
    if (op != nullptr) {
      Op executed = *op;
      options_.alter(executed);
      executor_.execute(executed);
      done = work_of(*op);
    } else {
      const uint64_t bytes = copy->bytes > 1 ? 1 + part % copy->bytes : copy->bytes;
      std::memmove(copy->destination, copy->source, bytes);
      done.work.bytes = bytes;
    }
    const Trace::Time end = Trace::Clock::now();
    std::lock_guard lock(mutex_);
    if (copy != nullptr) {
      copy->destination += done.work.bytes;
      copy->source += done.work.bytes;
      copy->bytes -= done.work.bytes;
      finished = copy->bytes == 0;
    }
    ++record_->commands;
    stream.busy_nanoseconds += static_cast<uint64_t>(std::chrono::nanoseconds(end - begin).count());
    if (stream.trace != nullptr && finished) stream.trace->record(stream.track, done.activity, stream.stage, begin, end, done.work);
    return finished;
  }

  const FakeOptions options_;
  const std::shared_ptr<FakeRecord> record_;
  std::mt19937 random_;
  cpu::Executor executor_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::map<Buffer*, std::unique_ptr<FakeBuffer>> buffers_;
  std::map<uint8_t*, std::pair<uint64_t, Arena>> pinned_;
  std::vector<std::unique_ptr<FakeStream>> streams_;
  std::map<Event*, std::unique_ptr<FakeEvent>> events_;
  std::vector<Demand> demands_;
  bool lost_ = false, stop_ = false;
  std::thread scheduler_;
};

}  // namespace layerstream::test
