// One request inside the engine, from its arrival to its last token.

#ifndef WORKER_ENGINE_ACTIVE_REQUEST_H_
#define WORKER_ENGINE_ACTIVE_REQUEST_H_

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "common/tokens.h"
#include "worker/engine/outbox.h"
#include "worker/metrics.h"
#include "worker/model/sampler.h"
#include "worker/schedule/scheduler.h"
#include "worker/schedule/step_plan.h"

namespace lapidary {

// What a client asks of the engine.
struct EngineRequest {
  std::string id;  // For logs.
  std::vector<TokenId> prompt;
  SamplingOptions sampling;
  int max_tokens = 0;
  std::vector<TokenId> stop_tokens;  // Each is sent, and ends the request.
  int priority = 0;                  // Higher first.
  absl::Time deadline = absl::InfiniteFuture();
  // How many of the last prompt tokens are output for the penalties.
  int resumed_output_tokens = 0;
};

// Thread-compatible.
class ActiveRequest {
 public:
  // The outbox is shared: with its reader, and with the engine's list of
  // readers to notify.
  ActiveRequest(SequenceId sequence, EngineRequest request,
                std::shared_ptr<Outbox> outbox, absl::Time now);

  // For the scheduler.  The prompt moves there: call it once.
  Scheduler::NewSequence TakeSequence();

  SequenceId sequence() const { return sequence_; }
  const std::string& id() const { return request_.id; }
  const SamplingOptions& sampling() const { return request_.sampling; }
  const TokenHistory& history() const { return history_; }
  const std::shared_ptr<Outbox>& outbox() const { return outbox_; }
  int num_prompt_tokens() const { return num_prompt_tokens_; }
  int output_tokens() const { return output_tokens_; }
  int max_tokens() const { return request_.max_tokens; }
  absl::Time deadline() const { return request_.deadline; }
  bool has_token() const { return output_tokens_ > 0; }
  bool IsStop(TokenId token) const;

  // What happened to it, at `now`.  Each is counted in `metrics`.
  void Admit(absl::Time now, WorkerMetrics& metrics);
  void Preempt(WorkerMetrics& metrics);
  void SetProgress(const Scheduler::Progress& progress);
  void AddToken(SampledToken token, absl::Time now, WorkerMetrics& metrics);

  // Closes the outbox, and tells log and metrics: `status`, or if that is OK
  // `reason`, is why it ends.  Nothing may follow.
  void Finish(absl::Status status, Scheduler::Finish reason, absl::Time now,
              WorkerMetrics& metrics);

 private:
  const SequenceId sequence_;
  EngineRequest request_;
  const std::shared_ptr<Outbox> outbox_;
  const int num_prompt_tokens_;
  TokenHistory history_;  // Empty where no penalty asks for it.

  int output_tokens_ = 0;
  int cached_tokens_ = 0;
  int preemptions_ = 0;
  const absl::Time arrived_;
  std::optional<absl::Time> admitted_;
  std::optional<absl::Time> first_token_;
  std::optional<absl::Time> last_token_;
};

// The counter of requests that ended so.
Counter& FinishedCounter(const absl::Status& status, Scheduler::Finish reason,
                         WorkerMetrics& metrics);

}  // namespace lapidary

#endif  // WORKER_ENGINE_ACTIVE_REQUEST_H_
