#include "router/rpc/grpc_worker_client.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "common/grpc_status.h"
#include "common/mutex.h"
#include "common/request_id.h"
#include "grpcpp/channel.h"
#include "grpcpp/client_context.h"
#include "grpcpp/create_channel.h"
#include "grpcpp/security/credentials.h"
#include "grpcpp/support/channel_arguments.h"
#include "grpcpp/support/client_callback.h"
#include "proto/lapidary/v1/worker.grpc.pb.h"

namespace lapidary {
namespace {

int Milliseconds(absl::Duration duration) {
  return static_cast<int>(absl::ToInt64Milliseconds(duration));
}

std::shared_ptr<grpc::Channel> NewChannel(const std::string& address,
                                          const GrpcWorkerOptions& options) {
  grpc::ChannelArguments arguments;
  arguments.SetMaxReceiveMessageSize(
      static_cast<int>(options.max_message_bytes));
  arguments.SetMaxSendMessageSize(static_cast<int>(options.max_message_bytes));
  arguments.SetInt(GRPC_ARG_KEEPALIVE_TIME_MS,
                   Milliseconds(options.keepalive_interval));
  arguments.SetInt(GRPC_ARG_KEEPALIVE_TIMEOUT_MS,
                   Milliseconds(options.keepalive_timeout));
  arguments.SetInt(GRPC_ARG_HTTP2_MAX_PINGS_WITHOUT_DATA, 0);
  // A group that comes back is found within a second or two.
  arguments.SetInt(GRPC_ARG_INITIAL_RECONNECT_BACKOFF_MS, 100);
  arguments.SetInt(GRPC_ARG_MIN_RECONNECT_BACKOFF_MS, 100);
  arguments.SetInt(GRPC_ARG_MAX_RECONNECT_BACKOFF_MS, 2000);
  arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
  return grpc::CreateCustomChannel(address, grpc::InsecureChannelCredentials(),
                                   arguments);
}

// The calls of one client that have not ended.  Thread-safe.
//
// A context holds on to the channel, and the last to let go of a channel joins
// gRPC's threads.  A callback runs on one of these, so the client, which has
// the channel too, outlives all contexts.
class OpenCalls {
 public:
  class Call {
   public:
    virtual void Cancel() = 0;

   protected:
    ~Call() = default;
  };

  void Add(Call* call) {
    MutexLock lock(mutex_);
    ++open_;
    calls_.push_back(call);
    if (cancelled_) call->Cancel();
  }

  // `call` has ended.  Destroys its context, once nobody cancels it any more.
  void End(Call* call, std::unique_ptr<grpc::ClientContext>& context) {
    {
      MutexLock lock(mutex_);
      std::erase(calls_, call);
    }
    context.reset();
    MutexLock lock(mutex_);
    if (--open_ == 0) none_.SignalAll();
  }

  void CancelAndWait() {
    MutexLock lock(mutex_);
    cancelled_ = true;
    for (Call* call : calls_) call->Cancel();
    while (open_ > 0) none_.Wait(mutex_);
  }

 private:
  Mutex mutex_;
  CondVar none_;
  std::vector<Call*> calls_ ABSL_GUARDED_BY(mutex_);
  int open_ ABSL_GUARDED_BY(mutex_) = 0;
  bool cancelled_ ABSL_GUARDED_BY(mutex_) = false;
};

template <typename Message>
class GrpcStream : public WorkerStream,
                   public OpenCalls::Call,
                   public grpc::ClientReadReactor<Message>,
                   public std::enable_shared_from_this<GrpcStream<Message>> {
 public:
  GrpcStream(StreamHandler<Message> handler, OpenCalls& open_calls)
      : handler_(std::move(handler)), open_calls_(open_calls) {}

  // REQUIRES: Start() has not been called.
  grpc::ClientContext& context() { return *context_; }

  // After the stub's call: from here on the stream keeps itself alive until
  // its end.
  void Start() {
    self_ = this->shared_from_this();
    open_calls_.Add(this);
    this->AddHold();  // Reads are not always under way.
    this->StartCall();
  }

  void ReadNext() override {
    MutexLock lock(mutex_);
    if (ended_ || reading_) return;  // A cancelled stream reads by itself.
    reading_ = true;
    this->StartRead(&message_);
  }

  void Cancel() override {
    MutexLock lock(mutex_);
    if (context_ != nullptr) context_->TryCancel();
    cancelled_ = true;
    if (ended_ || reading_) return;
    reading_ = true;
    this->StartRead(&message_);
  }

  void OnReadDone(bool ok) override {
    bool cancelled = false;
    Message message;  // Cancel() reads into message_ while this is handled.
    {
      MutexLock lock(mutex_);
      cancelled = cancelled_;
      reading_ = ok && cancelled;
      ended_ = !ok;
      if (ok && !cancelled) message.Swap(&message_);
    }
    if (!ok) {
      this->RemoveHold();
    } else if (cancelled) {
      this->StartRead(&message_);
    } else {
      handler_.on_message(message);
    }
  }

  void OnDone(const grpc::Status& status) override {
    handler_.on_done(FromGrpcStatus(status));
    handler_ = {};  // What it keeps alive may be what keeps this alive.
    std::unique_ptr<grpc::ClientContext> context;
    {
      MutexLock lock(mutex_);
      context = std::move(context_);
    }
    open_calls_.End(this, context);
    self_.reset();
  }

 private:
  StreamHandler<Message> handler_;
  OpenCalls& open_calls_;
  // Null after the end.  Guarded by mutex_ from Start() on; before that the
  // caller alone has it, for which there is no annotation.
  std::unique_ptr<grpc::ClientContext> context_ =
      std::make_unique<grpc::ClientContext>();
  Message message_;  // Written by gRPC while reading_.
  std::shared_ptr<GrpcStream> self_;
  Mutex mutex_;
  bool reading_ ABSL_GUARDED_BY(mutex_) = false;
  bool cancelled_ ABSL_GUARDED_BY(mutex_) = false;
  bool ended_ ABSL_GUARDED_BY(mutex_) = false;
};

class GrpcWorkerClient : public WorkerClient {
 public:
  GrpcWorkerClient(const std::string& address, const GrpcWorkerOptions& options)
      : stub_(v1::Worker::NewStub(NewChannel(address, options))) {}

  ~GrpcWorkerClient() override { open_calls_.CancelAndWait(); }

  void Describe(absl::Duration timeout,
                std::function<void(const absl::StatusOr<v1::DescribeResponse>&)>
                    done) override {
    // Owned by the callback.
    struct DescribeCall final : OpenCalls::Call {
      void Cancel() override { context->TryCancel(); }

      std::unique_ptr<grpc::ClientContext> context =
          std::make_unique<grpc::ClientContext>();
      v1::DescribeRequest request;
      v1::DescribeResponse response;
      std::function<void(const absl::StatusOr<v1::DescribeResponse>&)> done;
    };
    auto* call = new DescribeCall;
    call->done = std::move(done);
    call->context->set_deadline(absl::ToChronoTime(absl::Now() + timeout));
    open_calls_.Add(call);
    stub_->async()->Describe(
        call->context.get(), &call->request, &call->response,
        [this, call](const grpc::Status& status) {
          if (status.ok()) {
            call->done(call->response);
          } else {
            call->done(FromGrpcStatus(status));
          }
          call->done = nullptr;  // What it keeps alive goes before the client.
          open_calls_.End(call, call->context);
          delete call;
        });
  }

  std::shared_ptr<WorkerStream> Watch(
      StreamHandler<v1::GroupState> handler) override {
    auto stream = std::make_shared<GrpcStream<v1::GroupState>>(
        std::move(handler), open_calls_);
    static const v1::WatchRequest request;
    stub_->async()->Watch(&stream->context(), &request, stream.get());
    stream->Start();
    return stream;
  }

  std::shared_ptr<WorkerStream> Run(
      const v1::RunRequest& request, absl::Time deadline,
      StreamHandler<v1::RunResponse> handler) override {
    auto stream = std::make_shared<GrpcStream<v1::RunResponse>>(
        std::move(handler), open_calls_);
    stream->context().AddMetadata(kRequestIdKey, request.request_id());
    if (deadline != absl::InfiniteFuture())
      stream->context().set_deadline(absl::ToChronoTime(deadline));
    // The request is serialized here; it need not outlive the call.
    stub_->async()->Run(&stream->context(), &request, stream.get());
    stream->Start();
    return stream;
  }

 private:
  OpenCalls open_calls_;
  const std::unique_ptr<v1::Worker::Stub> stub_;
};

}  // namespace

std::unique_ptr<WorkerClient> NewGrpcWorkerClient(
    const std::string& address, const GrpcWorkerOptions& options) {
  return std::make_unique<GrpcWorkerClient>(address, options);
}

}  // namespace lapidary
