// Threads that decode compressed chunks, several at once, so that the reader goes on reading.
#pragma once

#include <condition_variable>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "model.h"
#include "tape.h"

namespace layerstream {

class Decoders {
 public:
  // A chunk whose bytes have arrived.
  struct Work {
    const Stage* stage = nullptr;
    const Chunk* chunk = nullptr;
    const std::string* path = nullptr;  // for messages
    const uint8_t* stored = nullptr;    // its stored extent
    uint8_t* memory = nullptr;          // where its rows go
    uint64_t sequence = 0;              // on the tape
    uint64_t unread = 0;                // see Tape::publish
    uint32_t index = 0;                 // of the stage, for the trace
  };

  // `trace` is null where nobody asked for one. It and the tape outlive this object.
  Decoders(uint32_t threads, Tape& tape, Trace* trace);
  // What was submitted has been settled.
  ~Decoders();
  Decoders(const Decoders&) = delete;
  Decoders& operator=(const Decoders&) = delete;

  // The chunk is published when it is decoded; if it cannot be, the tape fails. At most Tape::kSlots are under way.
  void submit(const Work& work);
  // Waits until nothing is under way.
  void settle();

 private:
  void loop(uint8_t thread);
  void decode(const Work& work, uint8_t thread);

  Tape& tape_;
  Trace* trace_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<Work> queue_ = std::vector<Work>(Tape::kSlots);  // submitted_ to begun_, by number
  uint64_t submitted_ = 0, begun_ = 0, done_ = 0;
  bool stop_ = false;
  std::vector<std::thread> threads_;
};

}  // namespace layerstream
