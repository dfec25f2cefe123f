// What the engine has for one request, until its reader takes it.
//
//   engine thread ── SetProgress, AddToken, Finish; Notify ──►┐
//                                                         [outbox]
//   reader's thread ◄── callback; Take ─────────────────────┘
//   reader's thread ── Cancel ──► the engine sees it before its next step
//
// A slow reader fills its own outbox and nothing else: progress replaces
// progress, and tokens are bounded by the request's max_tokens.

#ifndef WORKER_ENGINE_OUTBOX_H_
#define WORKER_ENGINE_OUTBOX_H_

#include <atomic>
#include <functional>
#include <optional>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/time/time.h"
#include "common/mutex.h"
#include "worker/model/sampler.h"
#include "worker/schedule/scheduler.h"

namespace lapidary {

// Thread-safe.
class Outbox {
 public:
  struct Finished {
    // Why it ended before its time.  OK: `reason` says how it ended.
    absl::Status status;
    Scheduler::Finish reason = Scheduler::Finish::kStop;
    int cached_tokens = 0;
    int preemptions = 0;
    absl::Duration queued;   // Until its first step.
    absl::Duration prefill;  // From there to its first token.
    absl::Duration decode;   // From there to its last token.
  };

  // In the order in which they are to be read.
  struct Contents {
    std::optional<Scheduler::Progress> progress;  // The latest.
    std::vector<SampledToken> tokens;
    std::optional<Finished> finished;

    bool empty() const {
      return !progress.has_value() && tokens.empty() && !finished.has_value();
    }
  };

  // `on_change` is called by the engine's thread, which waits for it: it should
  // be short, and may call Take().  It may be called once more after the end.
  Outbox(int max_tokens, std::function<void()> on_change);

  Outbox(const Outbox&) = delete;
  Outbox& operator=(const Outbox&) = delete;

  // For the reader.  Takes what there is, at most `max_tokens` tokens;
  // `finished` comes with or after the last of them.
  Contents Take(int max_tokens);

  // For the reader: nobody wants the rest.
  void Cancel() { cancelled_ = true; }
  bool cancelled() const { return cancelled_; }

  // For the engine.
  void SetProgress(const Scheduler::Progress& progress);
  // REQUIRES: fewer than max_tokens were added so far.
  void AddToken(SampledToken token);
  // REQUIRES: nothing follows.
  void Finish(Finished finished);
  // Tells the reader that there is something to take.
  void Notify() const { on_change_(); }

 private:
  const int max_tokens_;
  const std::function<void()> on_change_;
  std::atomic<bool> cancelled_ = false;

  Mutex mutex_;
  int added_tokens_ ABSL_GUARDED_BY(mutex_) = 0;
  Contents contents_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace lapidary

#endif  // WORKER_ENGINE_OUTBOX_H_
