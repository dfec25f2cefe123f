// Tensors as messages: the parts for a rank, one after the other.

#ifndef WORKER_PARALLEL_MESSAGE_PACKER_H_
#define WORKER_PARALLEL_MESSAGE_PACKER_H_

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "worker/parallel/collective.h"

namespace lapidary {

// Memory that grows to the largest use and is kept for the next.
class StagingMemory {
 public:
  // `bytes` bytes, whose content is lost where it grows.
  char* Reserve(int64_t bytes);

  int64_t bytes() const { return bytes_; }

 private:
  std::unique_ptr<char[]> memory_;
  int64_t bytes_ = 0;
};

// The messages of one direction of an exchange.  A message of one dense part
// is where that part is; others are packed in staging memory, the caller's.
//
// Thread-compatible.
class MessagePacker {
 public:
  struct Message {
    int64_t bytes = 0;  // Without any, there is no message.
    char* data = nullptr;
  };

  // Lays the messages of `parts` out.  Nothing is copied.  Returns the bytes of
  // staging memory that they need, which Place() gives them.
  //
  // REQUIRES: their ranks are in [0, num_ranks).
  int64_t Lay(std::span<const RankPart> parts, int num_ranks);
  void Place(char* staging);

  // By rank.
  std::span<const Message> messages() const { return messages_; }
  int64_t total_bytes() const { return total_bytes_; }

  // Copies the parts to their messages, or the messages to their parts.
  void Pack();
  void Unpack();

 private:
  enum class Direction { kPack, kUnpack };

  void Copy(Direction direction);

  std::vector<RankPart> parts_;  // Those that are not their message.
  std::vector<Message> messages_;
  std::vector<char*> cursors_;  // By rank.
  int64_t total_bytes_ = 0;
};

}  // namespace lapidary

#endif  // WORKER_PARALLEL_MESSAGE_PACKER_H_
