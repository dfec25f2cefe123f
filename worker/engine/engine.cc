#include "worker/engine/engine.h"

#include <pthread.h>

#include <algorithm>
#include <optional>
#include <span>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/status_macros.h"
#include "glog/logging.h"
#include "worker/parallel/context_split.h"

namespace lapidary {
namespace {

using Finish = Scheduler::Finish;

absl::Status StoppingError() {
  return absl::UnavailableError("the worker is shutting down");
}

absl::Status DeadlineError(const ActiveRequest& request) {
  return absl::DeadlineExceededError(
      absl::StrCat("the deadline passed after ", request.output_tokens(),
                   " of at most ", request.max_tokens(), " output tokens"));
}

}  // namespace

Engine::Engine(const Options& options, RunStep run_step, Clock& clock,
               const Outlets& outlets, std::function<void()> on_stopped)
    : options_(options),
      run_step_(std::move(run_step)),
      clock_(clock),
      metrics_(outlets.metrics),
      group_metrics_(outlets.group_metrics),
      board_(outlets.board),
      on_stopped_(std::move(on_stopped)),
      inbox_(options.scheduler.max_waiting),
      cache_(options.cache),
      scheduler_(options.scheduler, cache_),
      sampler_(options.vocab_size),
      split_log_(options.cache.num_ranks) {
  PublishState();
  thread_ = std::thread([this] { Loop(); });
  pthread_setname_np(thread_.native_handle(), "engine");
}

Engine::~Engine() {
  Abort();
  if (thread_.joinable()) thread_.join();
}

absl::Status Engine::Submit(EngineRequest request,
                            std::shared_ptr<Outbox> outbox) {
  const absl::Status status = Enqueue(std::move(request), std::move(outbox));
  if (!status.ok()) {
    FinishedCounter(status, Finish::kStop, metrics_).Increment();
  }
  return status;
}

absl::Status Engine::Enqueue(EngineRequest request,
                             std::shared_ptr<Outbox> outbox) {
  if (draining_) return StoppingError();
  const auto tokens = static_cast<int64_t>(request.prompt.size());
  const int64_t limit = options_.scheduler.max_waiting_tokens;
  const int64_t before = inbox_tokens_.fetch_add(tokens);
  if ((before == 0 || before + tokens <= limit) &&
      inbox_.TryPush(std::make_unique<ActiveRequest>(
          next_id_++, std::move(request), std::move(outbox), clock_.Now()))) {
    return absl::OkStatus();
  }
  inbox_tokens_ -= tokens;
  if (draining_) return StoppingError();
  return absl::ResourceExhaustedError(absl::StrCat(
      "the queue is full: needs room for ", tokens, " prompt tokens, ", before,
      " of ", limit, " are taken, and ", options_.scheduler.max_waiting,
      " requests at most"));
}

void Engine::Drain() {
  draining_ = true;
  board_.PublishDraining();
  inbox_.Close();
}

void Engine::Abort() {
  aborting_ = true;
  Drain();
}

absl::Status Engine::Join() {
  thread_.join();
  return failure_;
}

void Engine::Loop() {
  while (TakeRequests()) {
    EndCancelled();
    failure_ = Step();
    if (!failure_.ok()) break;
    ShowChanges();
  }
  Drain();
  for (auto& request : inbox_.PopAll()) Accept(std::move(request));
  EndAll(failure_.ok() ? StoppingError()
                       : absl::UnavailableError(absl::StrCat(
                             "the worker failed: ", failure_.message())));
  stopped_ = failure_.ok();  // Else whoever owns the engine says why.
  ShowChanges();
  on_stopped_();
}

bool Engine::TakeRequests() {
  if (requests_.empty()) {
    auto request = inbox_.Pop();
    if (!request.has_value()) return false;
    Accept(*std::move(request));
  }
  for (auto& request : inbox_.PopAll()) Accept(std::move(request));
  return !aborting_;
}

void Engine::Accept(std::unique_ptr<ActiveRequest> request) {
  inbox_tokens_ -= request->num_prompt_tokens();
  metrics_.prompt_tokens.Observe(request->num_prompt_tokens());
  const SequenceId id = request->sequence();
  request->SetProgress({});
  changed_.push_back(request->outbox());
  const absl::Status added =
      scheduler_.Add(request->TakeSequence(), clock_.Now());
  requests_.emplace(id, std::move(request));
  if (!added.ok()) End(id, added, Finish::kStop);
}

void Engine::EndCancelled() {
  ended_.clear();
  for (const auto& [id, request] : requests_) {
    if (request->outbox()->cancelled()) ended_.push_back(id);
  }
  for (const SequenceId id : ended_) {
    // A caller that stops listening at its deadline cancels, too.
    const ActiveRequest& request = *requests_.at(id);
    absl::Status status = clock_.Now() < request.deadline()
                              ? absl::CancelledError("cancelled by the caller")
                              : DeadlineError(request);
    scheduler_.Cancel(id);
    End(id, std::move(status), Finish::kStop);
  }
}

absl::Status Engine::Step() {
  const absl::Time start = clock_.Now();
  events_.clear();
  const StepPlan& plan = scheduler_.Plan(start, events_);
  if (plan.empty() && events_.empty() && !requests_.empty()) {
    return absl::InternalError(
        absl::StrCat("nothing is planned for ", requests_.size(), " requests"));
  }
  HandleEvents(start);
  if (plan.empty()) return absl::OkStatus();

  ShowChanges();  // A step can take long.
  const StepSize size = SizeOf(plan);
  ASSIGN_OR_RETURN(const StepResult result, run_step_(plan));
  LogSplit(plan, result.reports);
  SampleRows(plan, result.logits);
  const absl::Time end = clock_.Now();
  DeliverTokens(end);
  events_.clear();
  scheduler_.Commit(sampled_, events_);
  HandleEvents(end);
  ReportProgress(plan);
  CountStep(plan, size, end - start);
  return absl::OkStatus();
}

void Engine::SampleRows(const StepPlan& plan, Tensor logits) {
  drawn_.clear();
  sampled_.clear();
  for (const SequenceStep& step : plan.sequences) {
    const size_t row = drawn_.size();
    const int last = step.first_token + step.num_tokens - 1;
    if (row == plan.logit_rows.size() || plan.logit_rows[row] != last) continue;
    const ActiveRequest& request = *requests_.at(step.sequence);
    const std::span<float> row_logits(
        static_cast<float*>(logits.row(static_cast<int>(row))), logits.cols);
    drawn_.push_back(sampler_.Sample(row_logits, request.sampling(),
                                     request.history(),
                                     step.start + step.num_tokens));
    const TokenId token = drawn_.back().token;
    sampled_.push_back({step.sequence, token, request.IsStop(token)});
  }
  CHECK_EQ(drawn_.size(), plan.logit_rows.size());
}

void Engine::DeliverTokens(absl::Time now) {
  for (size_t i = 0; i < drawn_.size(); ++i) {
    ActiveRequest& request = *requests_.at(sampled_[i].sequence);
    request.AddToken(std::move(drawn_[i]), now, metrics_);
    changed_.push_back(request.outbox());
  }
}

void Engine::HandleEvents(absl::Time now) {
  for (const Scheduler::Event& event : events_) {
    const auto it = requests_.find(event.sequence);
    if (it == requests_.end()) continue;
    ActiveRequest& request = *it->second;
    switch (event.kind) {
      case Scheduler::Event::Kind::kAdmitted:
        request.Admit(now, metrics_);
        request.SetProgress(scheduler_.progress(event.sequence));
        changed_.push_back(request.outbox());
        break;
      case Scheduler::Event::Kind::kPrefilled:
        break;
      case Scheduler::Event::Kind::kPreempted:
        request.Preempt(metrics_);
        // It waits again; before its first token the caller hears of it.
        request.SetProgress(scheduler_.progress(event.sequence));
        changed_.push_back(request.outbox());
        break;
      case Scheduler::Event::Kind::kFinished:
        End(event.sequence,
            event.finish == Finish::kDeadline ? DeadlineError(request)
                                              : absl::OkStatus(),
            event.finish);
        break;
    }
  }
}

void Engine::ReportProgress(const StepPlan& plan) {
  for (const SequenceStep& step : plan.sequences) {
    const auto it = requests_.find(step.sequence);
    if (it == requests_.end() || it->second->has_token()) continue;
    it->second->SetProgress(scheduler_.progress(step.sequence));
    changed_.push_back(it->second->outbox());
  }
}

StepSize Engine::SizeOf(const StepPlan& plan) const {
  StepSize size;
  for (const SequenceStep& step : plan.sequences) {
    const int prompt_tokens = requests_.at(step.sequence)->num_prompt_tokens();
    const bool decodes = step.num_tokens == 1 && step.start >= prompt_tokens;
    (decodes ? size.decode_tokens : size.prefill_tokens) += step.num_tokens;
  }
  return size;
}

void Engine::CountStep(const StepPlan& plan, const StepSize& size,
                       absl::Duration duration) {
  rates_.Add(size, duration);
  metrics_.prefill_tokens.Increment(size.prefill_tokens);
  metrics_.decode_tokens.Increment(size.decode_tokens);
  metrics_.batch_sequences.Observe(static_cast<double>(plan.sequences.size()));
  Histogram& seconds = size.prefill_tokens == 0  ? metrics_.decode_step_seconds
                       : size.decode_tokens == 0 ? metrics_.prefill_step_seconds
                                                 : metrics_.mixed_step_seconds;
  seconds.Observe(absl::ToDoubleSeconds(duration));
}

void Engine::LogSplit(const StepPlan& plan,
                      std::span<const StepReport> reports) {
  group_metrics_.CountStep(plan, reports[0]);
  for (const SequenceStep& part : plan.sequences) {
    const int prompt_tokens = requests_.at(part.sequence)->num_prompt_tokens();
    if (part.start >= prompt_tokens) continue;
    split_log_.AddStep(plan, part, prompt_tokens, reports);
  }
  const int64_t over = scheduler_.counts().over_deadline - over_deadline_;
  if (over > 0) {
    over_deadline_ += over;
    group_metrics_.CountStepsOverDeadline(over);
    split_log_.AddOverLimit();
  }
  if (plan.layout == Layout::kTokenSplit) LogRound(plan, reports);
}

void Engine::LogRound(const StepPlan& plan,
                      std::span<const StepReport> reports) {
  const SequenceStep& part = plan.sequences.front();
  const std::optional<CostModel>& costs = options_.scheduler.cost_model;
  group_metrics_.SetBalance(
      costs.has_value()
          ? Balance(part.start, plan.range_ends, costs->token_cost())
          : 1,
      MeasuredBalance(reports));
  if (plan.replica_tokens == kNoReplica) return;
  replica_sequence_ = part.sequence;
  replica_tokens_ = part.start + part.num_tokens;
}

// A prompt has the replica from its first round until it is prefilled.
int Engine::UsedReplicaPages() const {
  const auto it = requests_.find(replica_sequence_);
  if (it == requests_.end()) return 0;
  const int prefilled = scheduler_.progress(replica_sequence_).prefilled_tokens;
  if (prefilled >= it->second->num_prompt_tokens()) return 0;
  return NumPages(std::min(prefilled, replica_tokens_));
}

void Engine::ShowChanges() {
  PublishState();
  for (const std::shared_ptr<Outbox>& outbox : changed_) outbox->Notify();
  changed_.clear();
}

void Engine::PublishState() {
  EngineState state{
      .stopped = stopped_,
      .load = scheduler_.load(),
      .global_pages = cache_.global_use(),
      .window_pages = cache_.window_use(),
      .prefill_tokens_per_second = rates_.prefill_tokens_per_second(),
      .decode_tokens_per_second = rates_.decode_tokens_per_second(),
      .replica_pages = UsedReplicaPages(),
      .last_split = split_log_.last()};
  for (int rank = 0; rank < options_.cache.num_ranks; ++rank) {
    state.rank_global_pages.push_back(cache_.global_use(rank));
  }
  if (options_.scheduler.replica_pages > 0) {
    group_metrics_.SetReplicaPages(state.replica_pages,
                                   options_.scheduler.replica_pages);
  }
  metrics_.running_requests.Set(state.load.running);
  metrics_.waiting_requests.Set(state.load.waiting);
  metrics_.waiting_tokens.Set(static_cast<double>(state.load.waiting_tokens));
  metrics_.unprefilled_tokens.Set(
      static_cast<double>(state.load.unprefilled_tokens));
  metrics_.global_pages.used.Set(state.global_pages.used);
  metrics_.global_pages.free.Set(state.global_pages.total -
                                 state.global_pages.used);
  metrics_.window_pages.used.Set(state.window_pages.used);
  metrics_.window_pages.free.Set(state.window_pages.total -
                                 state.window_pages.used);
  board_.Publish(std::move(state));
}

void Engine::End(SequenceId id, absl::Status status, Finish reason) {
  const auto it = requests_.find(id);
  if (it == requests_.end()) return;
  const std::unique_ptr<ActiveRequest> request = std::move(it->second);
  requests_.erase(it);
  split_log_.Forget(id);
  request->Finish(std::move(status), reason, clock_.Now(), metrics_);
  changed_.push_back(request->outbox());
}

void Engine::EndAll(const absl::Status& status) {
  while (!requests_.empty()) {
    const SequenceId id = requests_.begin()->first;
    scheduler_.Cancel(id);
    End(id, status, Finish::kStop);
  }
}

}  // namespace lapidary
