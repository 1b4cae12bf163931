// What the commands of a stream have cost, and whether one failed. Events keep it beyond their stream.
#pragma once

#include <cstdint>
#include <deque>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "../platform/trace.h"
#include "context.h"

namespace layerstream::cuda {

// Times are those of CUDA events around commands. Without a trace there is a pair around everything between two waits.
class CommandLog {
 public:
  explicit CommandLog(std::shared_ptr<Context> context) : context_(std::move(context)) {}
  ~CommandLog();

  // Before the first command.
  void observe(Trace* trace, Track track, CUstream stream);
  // Around each command; only the first begin() counts until the end.
  void begin(Activity activity, uint32_t stage, Work work, CUstream stream);
  void end(CUstream stream);
  // The stream waits for others, or others for it.
  void pause(CUstream stream);
  // Takes note of the commands that have run.
  void harvest();
  // The stream skips what follows: every synchronize tells why.
  void fail(const std::string& reason);
  void throw_failure();
  // Empty if nothing failed.
  std::string failure();
  uint64_t busy_nanoseconds();

 private:
  struct Command {
    CUevent first, last;
    Activity activity;
    uint32_t stage;
    Work work;
  };

  CUevent record(CUstream stream);
  void close(CUstream stream);
  CUevent take_note(const Command& command);
  double milliseconds(CUevent from, CUevent to);

  const std::shared_ptr<Context> context_;
  std::mutex mutex_;
  std::vector<CUevent> idle_;  // for the next commands
  std::deque<Command> commands_;
  Command current_{};
  std::string failure_;
  uint64_t busy_nanoseconds_ = 0;
  Trace* trace_ = nullptr;
  Track track_ = Track::kCompute;
  CUevent clock_ = nullptr;  // has run at clock_time_
  Trace::Time clock_time_{};
};

}  // namespace layerstream::cuda
