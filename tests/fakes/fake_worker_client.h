// A group that a test plays by hand.
//
//   FakeGroup group;                          // Describes itself, sends news.
//   ... NewClient(group) ... the router connects, a client asks ...
//   auto run = group.NextRun();               // What the router sent.
//   run->SendTokens({5, 6});
//   run->Finish(v1::FINISH_REASON_LENGTH);

#ifndef TESTS_FAKES_FAKE_WORKER_CLIENT_H_
#define TESTS_FAKES_FAKE_WORKER_CLIENT_H_

#include <deque>
#include <functional>
#include <memory>
#include <thread>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "common/bounded_queue.h"
#include "common/mutex.h"
#include "proto/lapidary/v1/worker.pb.h"
#include "router/rpc/worker_client.h"

namespace lapidary {

// Where a fake's callbacks run, in order.  Thread-safe.
class CallbackThread {
 public:
  // `when_idle` is called whenever nothing happens for a fifth of a second.
  explicit CallbackThread(std::function<void()> when_idle);
  ~CallbackThread();

  void Post(std::function<void()> callback);

 private:
  BoundedQueue<std::function<void()>> queue_;
  std::thread thread_;
};

// A stream whose messages the test supplies.  Shared by the client of the
// stream, the test, and what waits on the callback thread.
template <typename Message>
class FakeStream : public WorkerStream,
                   public std::enable_shared_from_this<FakeStream<Message>> {
 public:
  FakeStream(StreamHandler<Message> handler, CallbackThread& thread)
      : handler_(std::move(handler)), thread_(thread) {}

  void ReadNext() override {
    MutexLock lock(mutex_);
    ++num_reads_;
    wanted_ = true;
    Deliver();
  }

  void Cancel() override {
    MutexLock lock(mutex_);
    if (done_) return;
    cancelled_ = true;
    messages_.clear();
    status_ = absl::CancelledError("cancelled");
    wanted_ = true;
    Deliver();
    changed_.SignalAll();
  }

  // Delivered when it is asked for.
  void Send(Message message) {
    MutexLock lock(mutex_);
    if (done_ || cancelled_) return;
    messages_.push_back(std::move(message));
    Deliver();
  }

  // Ends the stream after what was sent.
  void End(absl::Status status) {
    MutexLock lock(mutex_);
    if (done_ || cancelled_) return;
    status_ = std::move(status);
    ended_ = true;
    Deliver();
  }

  // Whether the router cancels it within `timeout`.
  bool WaitForCancel(absl::Duration timeout) {
    const absl::Time deadline = absl::Now() + timeout;
    MutexLock lock(mutex_);
    for (absl::Duration left = timeout;
         !cancelled_ && left > absl::ZeroDuration();
         left = deadline - absl::Now()) {
      changed_.WaitFor(mutex_, left);
    }
    return cancelled_;
  }

  // How often the next message was asked for.
  int num_reads() const {
    MutexLock lock(mutex_);
    return num_reads_;
  }

 private:
  void Deliver() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    if (!wanted_ || done_) return;
    if (!messages_.empty()) {
      wanted_ = false;
      thread_.Post([self = this->shared_from_this(),
                    message = std::move(messages_.front())]() mutable {
        if (!self->is_cancelled()) self->handler_.on_message(message);
      });
      messages_.pop_front();
    } else if (ended_ || cancelled_) {
      done_ = true;
      thread_.Post([self = this->shared_from_this(), status = status_] {
        self->handler_.on_done(status);
        self->handler_ = {};
      });
    }
  }

  bool is_cancelled() const {
    MutexLock lock(mutex_);
    return cancelled_;
  }

  StreamHandler<Message> handler_;  // The callback thread's alone.
  CallbackThread& thread_;
  mutable Mutex mutex_;
  CondVar changed_;
  std::deque<Message> messages_ ABSL_GUARDED_BY(mutex_);
  absl::Status status_ ABSL_GUARDED_BY(mutex_);
  int num_reads_ ABSL_GUARDED_BY(mutex_) = 0;
  bool wanted_ ABSL_GUARDED_BY(mutex_) = false;
  bool ended_ ABSL_GUARDED_BY(mutex_) = false;
  bool cancelled_ ABSL_GUARDED_BY(mutex_) = false;
  bool done_ ABSL_GUARDED_BY(mutex_) = false;
};

// A request that the router sent.
class FakeRun {
 public:
  FakeRun(v1::RunRequest request, absl::Time deadline,
          StreamHandler<v1::RunResponse> handler, CallbackThread& thread);

  const v1::RunRequest& request() const { return request_; }
  absl::Time deadline() const { return deadline_; }
  FakeStream<v1::RunResponse>& stream() { return *stream_; }
  std::shared_ptr<WorkerStream> shared_stream() { return stream_; }

  void SendProgress(int prefilled_tokens);
  void SendTokens(const std::vector<int>& ids);
  // Says why, and ends the stream well.
  void Finish(v1::FinishReason reason);

 private:
  const v1::RunRequest request_;
  const absl::Time deadline_;
  const std::shared_ptr<FakeStream<v1::RunResponse>> stream_;
};

// Thread-safe.  Outlives its clients.
class FakeGroup {
 public:
  // `description` is what the group says of itself from the start.
  explicit FakeGroup(v1::DescribeResponse description);

  std::unique_ptr<WorkerClient> NewClient();

  // Describe and Watch fail from now on; open watches end, runs do not.
  void Disconnect();
  void Connect();
  // Its load from now on; sent to those who watch.
  void SetState(const v1::GroupState& state);

  // The next request that comes; null after ten seconds.
  std::shared_ptr<FakeRun> NextRun();

 private:
  class Client;

  void SendNews();

  BoundedQueue<std::shared_ptr<FakeRun>> runs_{1000};
  Mutex mutex_;
  v1::DescribeResponse description_ ABSL_GUARDED_BY(mutex_);
  v1::GroupState state_ ABSL_GUARDED_BY(mutex_);
  bool connected_ ABSL_GUARDED_BY(mutex_) = true;
  std::vector<std::shared_ptr<FakeStream<v1::GroupState>>> watches_
      ABSL_GUARDED_BY(mutex_);
  CallbackThread thread_;  // Ends before what is above.
};

}  // namespace lapidary

#endif  // TESTS_FAKES_FAKE_WORKER_CLIENT_H_
