#include "worker/parallel/message_packer.h"

#include <cstring>

#include "glog/logging.h"

namespace lapidary {
namespace {

int64_t RowBytes(const Tensor& tensor) {
  return int64_t{tensor.cols} * SizeOf(tensor.dtype);
}

int64_t BytesOf(const Tensor& tensor) { return RowBytes(tensor) * tensor.rows; }

}  // namespace

char* StagingMemory::Reserve(int64_t bytes) {
  if (bytes > bytes_) {
    memory_.reset();
    memory_.reset(new char[bytes]);
    bytes_ = bytes;
  }
  return memory_.get();
}

int64_t MessagePacker::Lay(std::span<const RankPart> parts, int num_ranks) {
  messages_.assign(num_ranks, {});
  parts_.clear();
  total_bytes_ = 0;
  for (const RankPart& part : parts) {
    CHECK_GE(part.rank, 0);
    CHECK_LT(part.rank, num_ranks);
    Message& message = messages_[part.rank];
    const int64_t bytes = BytesOf(part.tensor);
    if (bytes == 0) continue;
    const bool alone = message.bytes == 0 && part.tensor.IsDense();
    message.data = alone ? static_cast<char*>(part.tensor.data) : nullptr;
    message.bytes += bytes;
    total_bytes_ += bytes;
  }

  int64_t staging_bytes = 0;
  for (const Message& message : messages_) {
    if (message.data == nullptr) staging_bytes += message.bytes;
  }
  for (const RankPart& part : parts) {
    if (messages_[part.rank].data == nullptr && BytesOf(part.tensor) > 0) {
      parts_.push_back(part);
    }
  }
  return staging_bytes;
}

void MessagePacker::Place(char* staging) {
  for (Message& message : messages_) {
    if (message.data != nullptr) continue;
    message.data = staging;
    staging += message.bytes;
  }
}

void MessagePacker::Pack() { Copy(Direction::kPack); }

void MessagePacker::Unpack() { Copy(Direction::kUnpack); }

void MessagePacker::Copy(Direction direction) {
  cursors_.clear();
  for (const Message& message : messages_) cursors_.push_back(message.data);
  for (const RankPart& part : parts_) {
    const Tensor& tensor = part.tensor;
    // One copy for a dense tensor, else one a row.
    const bool dense = tensor.IsDense();
    const int64_t bytes = dense ? BytesOf(tensor) : RowBytes(tensor);
    for (int r = 0; r < (dense ? 1 : tensor.rows); ++r) {
      char*& cursor = cursors_[part.rank];
      if (direction == Direction::kPack) {
        std::memcpy(cursor, tensor.row(r), bytes);
      } else {
        std::memcpy(tensor.row(r), cursor, bytes);
      }
      cursor += bytes;
    }
  }
}

}  // namespace lapidary
