#include "tests/fakes/fake_worker_client.h"

namespace lapidary {

CallbackThread::CallbackThread(std::function<void()> when_idle)
    : queue_(100000) {
  thread_ = std::thread([this, when_idle = std::move(when_idle)] {
    while (!queue_.closed()) {
      const auto callbacks = queue_.PopAllFor(absl::Milliseconds(200));
      for (const auto& callback : callbacks) callback();
      if (callbacks.empty()) when_idle();
    }
  });
}

CallbackThread::~CallbackThread() {
  queue_.Close();
  thread_.join();
}

void CallbackThread::Post(std::function<void()> callback) {
  // Dropped once the thread ends.
  static_cast<void>(queue_.TryPush(std::move(callback)));
}

FakeRun::FakeRun(v1::RunRequest request, absl::Time deadline,
                 StreamHandler<v1::RunResponse> handler, CallbackThread& thread)
    : request_(std::move(request)),
      deadline_(deadline),
      stream_(std::make_shared<FakeStream<v1::RunResponse>>(std::move(handler),
                                                            thread)) {}

void FakeRun::SendProgress(int prefilled_tokens) {
  v1::RunResponse response;
  response.mutable_progress()->set_prefilled_tokens(
      static_cast<uint32_t>(prefilled_tokens));
  stream_->Send(std::move(response));
}

void FakeRun::SendTokens(const std::vector<int>& ids) {
  v1::RunResponse response;
  for (const int id : ids) {
    response.mutable_tokens()->add_token_ids(static_cast<uint32_t>(id));
    if (!request_.sampling().has_logprobs()) continue;
    auto& logprobs = *response.mutable_tokens()->add_logprobs();
    logprobs.mutable_chosen()->set_token_id(static_cast<uint32_t>(id));
    logprobs.mutable_chosen()->set_logprob(-1);
  }
  stream_->Send(std::move(response));
}

void FakeRun::Finish(v1::FinishReason reason) {
  v1::RunResponse response;
  response.mutable_finished()->set_reason(reason);
  stream_->Send(std::move(response));
  stream_->End(absl::OkStatus());
}

class FakeGroup::Client : public WorkerClient {
 public:
  explicit Client(FakeGroup& group) : group_(group) {}

  // Cancels what it started and waits for the callbacks.
  ~Client() override {
    for (const auto& stream : streams_) stream->Cancel();
    BoundedQueue<int> done(1);
    group_.thread_.Post([&done] { static_cast<void>(done.TryPush(1)); });
    done.Pop();
  }

  void Describe(absl::Duration,
                std::function<void(const absl::StatusOr<v1::DescribeResponse>&)>
                    done) override {
    group_.thread_.Post([&group = group_, done = std::move(done)] {
      absl::StatusOr<v1::DescribeResponse> description =
          absl::UnavailableError("connection refused");
      {
        MutexLock lock(group.mutex_);
        if (group.connected_) description = group.description_;
      }
      done(description);
    });
  }

  std::shared_ptr<WorkerStream> Watch(
      StreamHandler<v1::GroupState> handler) override {
    auto stream = std::make_shared<FakeStream<v1::GroupState>>(
        std::move(handler), group_.thread_);
    Keep(stream);
    MutexLock lock(group_.mutex_);
    if (group_.connected_) {
      stream->Send(group_.state_);
      group_.watches_.push_back(stream);
    } else {
      stream->End(absl::UnavailableError("connection refused"));
    }
    return stream;
  }

  std::shared_ptr<WorkerStream> Run(
      const v1::RunRequest& request, absl::Time deadline,
      StreamHandler<v1::RunResponse> handler) override {
    auto run = std::make_shared<FakeRun>(request, deadline, std::move(handler),
                                         group_.thread_);
    Keep(run->shared_stream());
    static_cast<void>(group_.runs_.TryPush(run));
    return run->shared_stream();
  }

 private:
  void Keep(std::shared_ptr<WorkerStream> stream) {
    MutexLock lock(mutex_);
    streams_.push_back(std::move(stream));
  }

  FakeGroup& group_;
  Mutex mutex_;
  std::vector<std::shared_ptr<WorkerStream>> streams_ ABSL_GUARDED_BY(mutex_);
};

FakeGroup::FakeGroup(v1::DescribeResponse description)
    : description_(std::move(description)), thread_([this] { SendNews(); }) {}

std::unique_ptr<WorkerClient> FakeGroup::NewClient() {
  return std::make_unique<Client>(*this);
}

void FakeGroup::Disconnect() {
  MutexLock lock(mutex_);
  connected_ = false;
  for (const auto& watch : watches_)
    watch->End(absl::UnavailableError("connection reset"));
  watches_.clear();
}

void FakeGroup::Connect() {
  MutexLock lock(mutex_);
  connected_ = true;
  description_.set_epoch(description_.epoch() + 1);
}

void FakeGroup::SetState(const v1::GroupState& state) {
  {
    MutexLock lock(mutex_);
    state_ = state;
  }
  SendNews();
}

void FakeGroup::SendNews() {
  MutexLock lock(mutex_);
  for (const auto& watch : watches_) watch->Send(state_);
}

std::shared_ptr<FakeRun> FakeGroup::NextRun() {
  // PopAllFor() takes all; the rest goes back in order.
  std::vector<std::shared_ptr<FakeRun>> runs =
      runs_.PopAllFor(absl::Seconds(10));
  if (runs.empty()) return nullptr;
  for (size_t i = 1; i < runs.size(); ++i)
    static_cast<void>(runs_.TryPush(runs[i]));
  return runs[0];
}

}  // namespace lapidary
