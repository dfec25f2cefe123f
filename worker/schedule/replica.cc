#include "worker/schedule/replica.h"

#include "common/tokens.h"
#include "glog/logging.h"

namespace lapidary {

int Replica::TokensFor(SequenceId sequence, int num_tokens) const {
  if (owner_.has_value()) {
    return *owner_ == sequence ? num_tokens_ : kNoReplica;
  }
  return NumPages(num_tokens) <= num_pages_ ? 0 : kNoReplica;
}

void Replica::Take(SequenceId sequence) {
  CHECK(!owner_.has_value() || *owner_ == sequence);
  owner_ = sequence;
}

void Replica::Hold(SequenceId sequence, int num_tokens) {
  CHECK(owner_ == sequence);
  num_tokens_ = num_tokens;
}

void Replica::Release(SequenceId sequence) {
  if (owner_ != sequence) return;
  owner_.reset();
  num_tokens_ = 0;
}

}  // namespace lapidary
