#include "worker/parallel/local_collective.h"

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <span>
#include <string>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "common/deadline.h"
#include "common/mutex.h"
#include "common/status_macros.h"
#include "glog/logging.h"
#include "worker/parallel/host_collective.h"
#include "worker/parallel/transport.h"

namespace lapidary {

// The messages from one rank to another.  Thread-safe.
class LocalGroup::Link {
 public:
  Link(int from, int to) : from_(from), to_(to) {}

  // The sender shows a message, and waits until it has been taken.
  void Offer(int64_t exchange, std::span<const char> bytes) {
    MutexLock lock(mutex_);
    offers_.push_back({exchange, bytes, State::kOffered});
    changed_.SignalAll();
  }
  absl::Status AwaitTaken(int64_t exchange, Deadline deadline) {
    MutexLock lock(mutex_);
    absl::Status status;
    // One that is being taken must be waited for: it is being read.
    for (auto it = Find(exchange); it->state != State::kTaken;
         it = Find(exchange)) {
      if (it->state == State::kOffered) {
        status = Check(to_, "did not take", deadline);
        if (!status.ok()) break;
      }
      WaitUntil(it->state == State::kOffered ? deadline : Deadline::Never());
    }
    offers_.erase(Find(exchange));
    return status;
  }

  // The receiver's side: copies the message to `bytes`.
  absl::Status Take(int64_t exchange, std::span<char> bytes,
                    Deadline deadline) {
    std::span<const char> offered;
    {
      MutexLock lock(mutex_);
      while (Find(exchange) == offers_.end()) {
        RETURN_IF_ERROR(Check(from_, "did not send", deadline));
        WaitUntil(deadline);
      }
      RETURN_IF_ERROR(CheckOpen());
      const auto offer = Find(exchange);
      offer->state = State::kTaking;
      offered = offer->bytes;
    }
    CHECK_EQ(offered.size(), bytes.size());
    std::memcpy(bytes.data(), offered.data(), bytes.size());
    MutexLock lock(mutex_);
    Find(exchange)->state = State::kTaken;
    changed_.SignalAll();
    return absl::OkStatus();
  }

  void Close() {
    MutexLock lock(mutex_);
    closed_ = true;
    changed_.SignalAll();
  }

 private:
  enum class State { kOffered, kTaking, kTaken };

  struct Message {
    int64_t exchange;
    std::span<const char> bytes;
    State state;
  };

  std::vector<Message>::iterator Find(int64_t exchange)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    return std::find_if(offers_.begin(), offers_.end(), [&](const Message& m) {
      return m.exchange == exchange;
    });
  }

  absl::Status CheckOpen() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    if (!closed_) return absl::OkStatus();
    return absl::UnavailableError("a rank of the group is gone");
  }

  absl::Status Check(int other, const char* what, Deadline deadline)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    RETURN_IF_ERROR(CheckOpen());
    if (!deadline.has_passed()) return absl::OkStatus();
    return absl::DeadlineExceededError(
        absl::StrCat("rank ", other, " ", what, " its part in time"));
  }

  void WaitUntil(Deadline deadline) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    if (deadline.left() == absl::InfiniteDuration()) {
      changed_.Wait(mutex_);
    } else {
      changed_.WaitFor(mutex_, deadline.left());
    }
  }

  const int from_;
  const int to_;
  Mutex mutex_;
  CondVar changed_;
  std::vector<Message> offers_ ABSL_GUARDED_BY(mutex_);
  bool closed_ ABSL_GUARDED_BY(mutex_) = false;
};

class LocalGroup::Transport : public lapidary::Transport {
 public:
  Transport(const LocalGroup& group, int rank, int size)
      : group_(group), rank_(rank), size_(size) {}

  int rank() const override { return rank_; }
  int size() const override { return size_; }

  absl::Status StartSend(int to, int64_t exchange,
                         std::span<const char> bytes) override {
    link(rank_, to).Offer(exchange, bytes);
    sends_.push_back({to, exchange});
    return absl::OkStatus();
  }

  absl::Status StartReceive(int from, int64_t exchange,
                            std::span<char> bytes) override {
    receives_.push_back({from, exchange, bytes});
    return absl::OkStatus();
  }

  // After an error it waits for nothing more, but ends all messages.
  absl::Status Finish(int64_t exchange, Deadline deadline) override {
    absl::Status status;
    const auto until = [&] {
      return status.ok() ? deadline : Deadline::In(absl::ZeroDuration());
    };
    for (const Receive& receive : receives_) {
      if (receive.exchange != exchange) continue;
      status.Update(
          link(receive.from, rank_).Take(exchange, receive.bytes, until()));
    }
    for (const Send& send : sends_) {
      if (send.exchange != exchange) continue;
      status.Update(link(rank_, send.to).AwaitTaken(exchange, until()));
    }
    const auto is_done = [&](const auto& m) { return m.exchange == exchange; };
    std::erase_if(receives_, is_done);
    std::erase_if(sends_, is_done);
    return status;
  }

 private:
  struct Send {
    int to;
    int64_t exchange;
  };
  struct Receive {
    int from;
    int64_t exchange;
    std::span<char> bytes;
  };

  Link& link(int from, int to) const {
    return *group_.links_[from * size_ + to];
  }

  const LocalGroup& group_;
  const int rank_;
  const int size_;
  std::vector<Send> sends_;
  std::vector<Receive> receives_;
};

LocalGroup::LocalGroup(int num_ranks) {
  CHECK_GT(num_ranks, 0);
  for (int from = 0; from < num_ranks; ++from) {
    for (int to = 0; to < num_ranks; ++to) {
      links_.push_back(std::make_unique<Link>(from, to));
    }
  }
  for (int rank = 0; rank < num_ranks; ++rank) {
    ranks_.push_back(std::make_unique<HostCollective>(
        std::make_unique<Transport>(*this, rank, num_ranks)));
  }
}

LocalGroup::~LocalGroup() = default;

Collective& LocalGroup::rank(int rank) const { return *ranks_[rank]; }

void LocalGroup::Abandon() {
  for (const auto& link : links_) link->Close();
}

}  // namespace lapidary
