// The worker's metrics.  docs/metrics.md says what each one means.

#ifndef WORKER_METRICS_H_
#define WORKER_METRICS_H_

#include "common/metrics.h"

namespace lapidary {

// References into a Metrics, which must outlive it.  Thread-safe.
struct WorkerMetrics {
  explicit WorkerMetrics(Metrics& metrics);

  struct PageGauges {
    Gauge& used;
    Gauge& free;
  };

  // How requests ended.
  Counter& finished_stop;
  Counter& finished_length;
  Counter& finished_cancelled;
  Counter& finished_deadline;
  Counter& finished_queue_full;
  Counter& finished_cannot_fit;
  Counter& finished_invalid;
  Counter& finished_unavailable;

  // A request's times, in seconds.
  Histogram& queue_seconds;
  Histogram& prefill_seconds;
  Histogram& time_to_first_token_seconds;
  Histogram& inter_token_seconds;
  Histogram& request_seconds;
  // A request's sizes.
  Histogram& prompt_tokens;
  Histogram& output_tokens;

  // Steps.
  Counter& prefill_tokens;
  Counter& decode_tokens;
  Histogram& batch_sequences;
  Histogram& prefill_step_seconds;
  Histogram& decode_step_seconds;
  Histogram& mixed_step_seconds;

  // Memory and queue.
  PageGauges global_pages;
  PageGauges window_pages;
  Counter& preemptions;
  Gauge& running_requests;
  Gauge& waiting_requests;
  Gauge& waiting_tokens;
  Gauge& unprefilled_tokens;
};

}  // namespace lapidary

#endif  // WORKER_METRICS_H_
