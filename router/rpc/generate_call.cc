#include "router/rpc/generate_call.h"

#include <random>
#include <utility>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "common/grpc_status.h"
#include "common/logging.h"
#include "common/status_macros.h"
#include "glog/logging.h"
#include "router/rpc/call_metadata.h"
#include "router/rpc/request_check.h"
#include "router/rpc/request_parser.h"

namespace lapidary {
namespace {

// When a client may come again if the group is in trouble.
constexpr absl::Duration kGroupRetry = absl::Seconds(1);

uint64_t DrawSeed() {
  thread_local std::random_device entropy;
  const uint64_t high = entropy();
  return high << 32 | entropy();
}

v1::FinishReason ToProto(Session::Finish finish) {
  switch (finish) {
    case Session::Finish::kStopToken:
      return v1::FINISH_REASON_STOP;
    case Session::Finish::kStopString:
      return v1::FINISH_REASON_STOP_STRING;
    case Session::Finish::kLength:
      return v1::FINISH_REASON_LENGTH;
  }
  return v1::FINISH_REASON_UNSPECIFIED;
}

absl::string_view FinishName(Session::Finish finish) {
  switch (finish) {
    case Session::Finish::kStopToken:
      return "stop";
    case Session::Finish::kStopString:
      return "stop_string";
    case Session::Finish::kLength:
      return "length";
  }
  return "unknown";
}

v1::Timings ToProto(const Session::Timings& timings) {
  v1::Timings proto;
  proto.set_queue_seconds(absl::ToDoubleSeconds(timings.queue));
  proto.set_prefill_seconds(absl::ToDoubleSeconds(timings.prefill));
  proto.set_decode_seconds(absl::ToDoubleSeconds(timings.decode));
  proto.set_total_seconds(absl::ToDoubleSeconds(timings.total));
  proto.set_tokenize_seconds(absl::ToDoubleSeconds(timings.tokenize));
  return proto;
}

// Whether a run that ended with `status` did so for no fault of the request.
bool IsGroupTrouble(const absl::Status& status) {
  // CANCELLED: the router did not cancel it, so the group did.
  return absl::IsUnavailable(status) || absl::IsCancelled(status);
}

// The error of a group as the client is told it.
absl::Status ClientError(const std::string& group, const absl::Status& status) {
  const auto message = absl::StrCat("group ", group, ": ", status.message());
  switch (status.code()) {
    case absl::StatusCode::kFailedPrecondition:
    case absl::StatusCode::kDeadlineExceeded:
      return absl::Status(status.code(), message);
    default:
      return absl::InternalError(message);
  }
}

}  // namespace

grpc::ServerWriteReactor<grpc::ByteBuffer>* GenerateCall::Start(
    const CallEnvironment& environment, grpc::CallbackServerContext& context,
    const grpc::ByteBuffer& request) {
  auto call = std::make_shared<GenerateCall>(environment, context);
  call->self_ = call;
  call->Begin(request);
  return call.get();
}

GenerateCall::GenerateCall(const CallEnvironment& environment,
                           grpc::CallbackServerContext& context)
    : environment_(environment),
      context_(context),
      arrival_(environment.clock.Now()),
      deadline_(CallDeadline(context)),
      key_(environment.dispatcher.NewKey()),
      pace_(arrival_) {
  progress_.set_queued(true);
  environment.calls.Add();
}

GenerateCall::~GenerateCall() { environment_.calls.Remove(); }

void GenerateCall::Begin(const grpc::ByteBuffer& request) {
  absl::Status status;
  request_id_ = TakeRequestId(context_, status);
  if (status.ok()) {
    environment_.dispatcher.Add(key_, NewHandler());
    status = environment_.pool.Run(
        static_cast<int64_t>(request.Length()),
        [call = shared_from_this(), request] { call->Prepare(request); });
    if (!status.ok()) {
      environment_.metrics.CountRefusal("tokenize_queue");
      SetRetryDelay(kGroupRetry, status);
    }
  }
  if (!status.ok()) Fail(std::move(status));
}

void GenerateCall::Prepare(const grpc::ByteBuffer& bytes) {
  {
    MutexLock lock(mutex_);
    if (end_.has_value()) return;  // The client has gone.
  }
  v1::GenerateRequest request;
  if (absl::Status status = ParseRequest(bytes, request); !status.ok())
    return Fail(std::move(status));
  if (auto violations = CheckRequest(request, environment_.model);
      !violations.empty()) {
    return Fail(BadRequestError(std::move(violations)));
  }
  auto prompt = BuildPrompt(request, environment_.model);
  if (!prompt.ok()) return Fail(prompt.status());
  const auto prompt_tokens = static_cast<int>(prompt->tokens.size());
  if (auto violation =
          CheckLength(request, prompt_tokens, environment_.model)) {
    return Fail(BadRequestError({*std::move(violation)}));
  }
  {
    MutexLock lock(mutex_);
    if (end_.has_value()) return;
    SetUp(request, *std::move(prompt));
  }
  environment_.dispatcher.Submit(
      {.key = key_,
       .prompt_tokens = prompt_tokens,
       .max_tokens = static_cast<int>(request.max_tokens()),
       .priority = request.priority(),
       .deadline = deadline_});
  // A client that went just before was removed too early.
  MutexLock lock(mutex_);
  if (end_.has_value()) environment_.dispatcher.Remove(key_);
}

void GenerateCall::SetUp(const v1::GenerateRequest& request, Prompt prompt) {
  const absl::Time now = environment_.clock.Now();
  const std::vector<TokenId> stop_tokens =
      StopTokens(request, environment_.model);
  session_.emplace(
      *environment_.model.tokenizer,
      Session::Request{
          .prompt_tokens = static_cast<int>(prompt.tokens.size()),
          .start = prompt.output_start,
          .stop_strings = {request.stop().begin(), request.stop().end()},
          .stop_tokens = stop_tokens,
          .arrival = arrival_,
          .tokenize_time = now - arrival_});
  environment_.metrics.tokenize_seconds.Observe(
      absl::ToDoubleSeconds(now - arrival_));

  run_request_.set_request_id(request_id_);
  run_request_.mutable_prompt_token_ids()->Add(prompt.tokens.begin(),
                                               prompt.tokens.end());
  *run_request_.mutable_sampling() =
      CompleteSampling(request.sampling(), environment_.model, DrawSeed());
  seed_ = run_request_.sampling().seed();
  run_request_.mutable_stop_token_ids()->Add(stop_tokens.begin(),
                                             stop_tokens.end());
  const auto& suppressed = environment_.model.suppressed_tokens;
  run_request_.mutable_suppressed_token_ids()->Add(suppressed.begin(),
                                                   suppressed.end());
  run_request_.set_priority(request.priority());

  progress_.set_prompt_tokens(static_cast<uint32_t>(prompt.tokens.size()));
}

Dispatcher::Handler GenerateCall::NewHandler() {
  return {
      .on_start =
          [call = shared_from_this()](
              WorkerClient& client, const std::string& group, int max_tokens) {
            call->OnStart(client, group, max_tokens);
          },
      .on_failure = [call = shared_from_this()](
                        const Refusal& refusal) { call->OnFailure(refusal); },
      .on_tick =
          [call = shared_from_this()](absl::Time now) { call->OnTick(now); }};
}

void GenerateCall::OnStart(WorkerClient& client, const std::string& group,
                           int max_tokens) {
  std::shared_ptr<WorkerStream> stream;
  {
    MutexLock lock(mutex_);
    if (end_.has_value()) return;
    if (!last_token_.has_value()) stream = StartRun(client, group, max_tokens);
  }
  if (stream != nullptr) return stream->ReadNext();
  // The group that was taken for lost began to answer just then: a second run
  // would say everything again.
  absl::Status status =
      absl::UnavailableError("the group was lost while it served this request");
  SetRetryDelay(kGroupRetry, status);
  Fail(std::move(status));
}

std::shared_ptr<WorkerStream> GenerateCall::StartRun(WorkerClient& client,
                                                     const std::string& group,
                                                     int max_tokens) {
  if (stream_ != nullptr) stream_->Cancel();  // A run that was lost.
  const int run = ++run_;
  group_ = group;
  paused_ = false;
  session_->OnStarted(environment_.clock.Now());
  run_request_.set_max_tokens(static_cast<uint32_t>(max_tokens));
  stream_ = client.Run(
      run_request_, deadline_,
      {.on_message =
           [call = shared_from_this(), run](v1::RunResponse& response) {
             call->OnRunMessage(run, response);
           },
       .on_done =
           [call = shared_from_this(), run](const absl::Status& status) {
             call->OnRunDone(run, status);
           }});
  return stream_;
}

void GenerateCall::OnFailure(const Refusal& refusal) {
  environment_.metrics.CountRefusal(refusal.cause);
  absl::Status status = refusal.status;
  if (refusal.retry_after.has_value())
    SetRetryDelay(*refusal.retry_after, status);
  Fail(std::move(status));
}

void GenerateCall::OnTick(absl::Time now) {
  MutexLock lock(mutex_);
  if (end_.has_value() || last_token_.has_value()) return;
  if (!pace_.IsDue(now)) return;
  pace_.OnMessage(now);
  queue_.AddProgress(progress_);
  Pump();
}

void GenerateCall::OnRunMessage(int run, v1::RunResponse& response) {
  std::shared_ptr<WorkerStream> next;
  bool first_token = false;
  bool ended = false;
  {
    MutexLock lock(mutex_);
    if (end_.has_value() || run != run_) return;  // It was cancelled.
    switch (response.event_case()) {
      case v1::RunResponse::kProgress:
        TakeProgress(response.progress());
        break;
      case v1::RunResponse::kTokens:
        first_token = !last_token_.has_value();
        TakeTokens(*response.mutable_tokens());
        break;
      case v1::RunResponse::kFinished:
        TakeFinished(response.finished());
        break;
      case v1::RunResponse::EVENT_NOT_SET:
        break;
    }
    Pump();
    ended = end_.has_value();
    paused_ = !ended && queue_.full();
    next = paused_ ? nullptr : stream_;
    // The group is told to stop, unless it has said that it did.
    if (ended && response.event_case() != v1::RunResponse::kFinished)
      stream_->Cancel();
  }
  if (response.event_case() == v1::RunResponse::kProgress) {
    environment_.dispatcher.OnPrefilled(
        key_, static_cast<int>(response.progress().prefilled_tokens()));
  }
  if (first_token) environment_.dispatcher.OnFirstToken(key_);
  if (ended) environment_.dispatcher.Remove(key_);
  if (next != nullptr) next->ReadNext();
}

void GenerateCall::OnRunDone(int run, const absl::Status& status) {
  std::string group;
  {
    MutexLock lock(mutex_);
    if (end_.has_value() || run != run_) return;
    group = group_;
  }
  if (status.ok()) {
    Fail(absl::InternalError(
        absl::StrCat("group ", group, " ended the run without saying why")));
  } else if (IsGroupTrouble(status)) {
    environment_.dispatcher.OnRunLost(key_, status);
  } else if (absl::IsResourceExhausted(status)) {
    environment_.dispatcher.OnRunRefused(
        key_, status, GetRetryDelay(status).value_or(kGroupRetry));
  } else {
    Fail(ClientError(group, status));
  }
}

void GenerateCall::TakeProgress(const v1::RunProgress& progress) {
  const absl::Time now = environment_.clock.Now();
  if (!progress.queued()) session_->OnPrefillStarted(now);
  progress_.set_prefilled_tokens(progress.prefilled_tokens());
  progress_.set_cached_tokens(progress.cached_tokens());
  progress_.set_queued(progress.queued());
  if (last_token_.has_value()) return;  // Preempted: the client has tokens.
  pace_.OnMessage(now);
  queue_.AddProgress(progress_);
}

void GenerateCall::TakeTokens(v1::RunTokens& tokens) {
  if (tokens.token_ids().empty()) return;
  const auto limit =
      static_cast<uint32_t>(environment_.model.tokenizer->vocab_size());
  std::vector<TokenId> ids;
  ids.reserve(tokens.token_ids_size());
  for (const uint32_t id : tokens.token_ids()) {
    if (id >= limit) {
      return End(
          absl::InternalError(absl::StrCat("group ", group_, " sent token ", id,
                                           ", the tokenizer has ", limit)));
    }
    ids.push_back(static_cast<TokenId>(id));
  }
  const absl::Time now = environment_.clock.Now();
  Session::Output output = session_->Push(ids, now);
  run_request_.Clear();
  ObserveTokens(output.num_tokens, std::exchange(last_token_, now), now);

  v1::Delta delta;
  delta.set_text(std::move(output.text));
  delta.set_thinking(std::move(output.thinking));
  delta.mutable_token_ids()->Add(ids.begin(), ids.begin() + output.num_tokens);
  const int num_logprobs = std::min(output.num_tokens, tokens.logprobs_size());
  for (int i = 0; i < num_logprobs; ++i)
    *delta.add_logprobs() = std::move(*tokens.mutable_logprobs(i));
  queue_.AddDelta(std::move(delta));
  if (session_->finish().has_value()) Complete(std::nullopt);
}

void GenerateCall::ObserveTokens(int num_tokens,
                                 std::optional<absl::Time> previous,
                                 absl::Time now) {
  RouterMetrics& metrics = environment_.metrics;
  metrics.output_tokens_total.Increment(num_tokens);
  if (!previous.has_value()) {
    metrics.time_to_first_token_seconds.Observe(
        absl::ToDoubleSeconds(now - arrival_));
    return;
  }
  const double seconds = absl::ToDoubleSeconds(now - *previous) / num_tokens;
  for (int i = 0; i < num_tokens; ++i)
    metrics.inter_token_seconds.Observe(seconds);
}

void GenerateCall::TakeFinished(const v1::RunFinished& finished) {
  if (finished.reason() == v1::FINISH_REASON_CANCELLED) {
    return End(absl::DeadlineExceededError(
        absl::StrCat("group ", group_, " gave the request up")));
  }
  Session::Output output = session_->End();
  if (!output.text.empty() || !output.thinking.empty()) {
    v1::Delta delta;
    delta.set_text(std::move(output.text));
    delta.set_thinking(std::move(output.thinking));
    queue_.AddDelta(std::move(delta));
  }
  cached_tokens_ = finished.cached_tokens();
  Complete(Session::GroupTimes{absl::Seconds(finished.queue_seconds())});
}

void GenerateCall::Complete(
    const std::optional<Session::GroupTimes>& group_times) {
  const absl::Time now = environment_.clock.Now();
  const Session& session = *session_;
  const Session::Timings timings = session.TimingsAt(now, group_times);
  v1::Completed completed;
  completed.set_finish_reason(ToProto(*session.finish()));
  if (session.finish() == Session::Finish::kStopString)
    completed.set_stop_string(session.stop_string());
  if (session.finish() == Session::Finish::kStopToken)
    completed.set_stop_token_id(static_cast<uint32_t>(session.stop_token()));
  cached_tokens_ = std::max(cached_tokens_, progress_.cached_tokens());
  v1::Usage& usage = *completed.mutable_usage();
  usage.set_prompt_tokens(static_cast<uint32_t>(session.prompt_tokens()));
  usage.set_cached_tokens(cached_tokens_);
  usage.set_thinking_tokens(static_cast<uint32_t>(session.thinking_tokens()));
  usage.set_output_tokens(static_cast<uint32_t>(session.output_tokens()));
  *completed.mutable_timings() = ToProto(timings);
  completed.set_request_id(request_id_);
  completed.set_group(group_);
  completed.set_seed(seed_);
  queue_.AddCompleted(std::move(completed));

  RouterMetrics& metrics = environment_.metrics;
  metrics.queue_seconds.Observe(absl::ToDoubleSeconds(timings.queue));
  metrics.prompt_tokens.Observe(session.prompt_tokens());
  metrics.output_tokens.Observe(session.output_tokens());
  metrics.prompt_tokens_total.Increment(session.prompt_tokens());
  metrics.cached_tokens_total.Increment(cached_tokens_);
  End(absl::OkStatus());
}

void GenerateCall::Fail(absl::Status status) {
  {
    MutexLock lock(mutex_);
    if (end_.has_value()) return;
    if (absl::IsInvalidArgument(status))
      environment_.metrics.CountRefusal("invalid");
    End(std::move(status));
    if (stream_ != nullptr) stream_->Cancel();
    Pump();
  }
  environment_.dispatcher.Remove(key_);
}

void GenerateCall::End(absl::Status status) {
  const absl::Time now = environment_.clock.Now();
  environment_.metrics.request_seconds.Observe(
      absl::ToDoubleSeconds(now - arrival_));
  environment_.metrics.CountRequest(
      status.ok()
          ? std::string(FinishName(*session_->finish()))
          : absl::AsciiStrToLower(absl::StatusCodeToString(status.code())));
  LogEnd(status, now);
  SetRequestId(request_id_, status);
  end_ = std::move(status);
}

void GenerateCall::LogEnd(const absl::Status& status, absl::Time now) {
  std::string line = absl::StrCat(
      status.ok()
          ? FinishName(*session_->finish())
          : absl::AsciiStrToLower(absl::StatusCodeToString(status.code())),
      " after ",
      absl::FormatDuration(absl::Trunc(now - arrival_, absl::Milliseconds(1))));
  if (session_.has_value()) {
    absl::StrAppend(&line, " prompt_tokens=", session_->prompt_tokens(),
                    " output_tokens=", session_->output_tokens());
    if (const auto first = session_->first_token()) {
      absl::StrAppendFormat(&line, " ttft=%.3fs",
                            absl::ToDoubleSeconds(*first - arrival_));
    }
  }
  if (!group_.empty()) absl::StrAppend(&line, " group=", group_);
  if (!status.ok()) absl::StrAppend(&line, ": ", status.message());
  LOG(INFO) << RequestTag(request_id_) << line;
}

void GenerateCall::Pump() {
  if (writing_ || finished_) return;
  std::optional<v1::GenerateResponse> response;
  if (!gone_) response = queue_.TakeNext();
  if (response.has_value()) {
    writing_ = true;
    message_ = SerializeMessage(*response);
    StartWrite(&message_);
  } else if (end_.has_value()) {
    finished_ = true;
    Finish(ToGrpcStatus(*end_));
  }
}

void GenerateCall::OnWriteDone(bool ok) {
  std::shared_ptr<WorkerStream> next;
  {
    MutexLock lock(mutex_);
    writing_ = false;
    if (!ok) gone_ = true;
    Pump();
    if (paused_ && !queue_.full() && !end_.has_value()) {
      paused_ = false;
      next = stream_;
    }
  }
  if (!ok) Fail(absl::CancelledError("the client has gone"));
  if (next != nullptr) next->ReadNext();
}

void GenerateCall::OnDone() { self_.reset(); }

void GenerateCall::OnCancel() {
  {
    MutexLock lock(mutex_);
    gone_ = true;
  }
  Fail(environment_.clock.Now() >= deadline_
           ? absl::DeadlineExceededError("the deadline has passed")
           : absl::CancelledError("the client has gone"));
}

}  // namespace lapidary
