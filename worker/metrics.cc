#include "worker/metrics.h"

#include <string>

namespace lapidary {
namespace {

Counter& Finished(Metrics& metrics, const std::string& reason) {
  return metrics.AddCounter("lapidary_worker_requests_finished_total",
                            "Requests that ended, by reason.",
                            {{"reason", reason}});
}

Histogram& StepSeconds(Metrics& metrics, const std::string& kind) {
  return metrics.AddHistogram(
      "lapidary_worker_step_seconds",
      "Time of a step, sampling included, by what it computed.",
      RequestSecondsBuckets(), {{"kind", kind}});
}

Gauge& Pages(Metrics& metrics, const std::string& family,
             const std::string& state) {
  return metrics.AddGauge("lapidary_worker_pages",
                          "Pages of key/value memory, by family and state.",
                          {{"family", family}, {"state", state}});
}

}  // namespace

WorkerMetrics::WorkerMetrics(Metrics& metrics)
    : finished_stop(Finished(metrics, "stop")),
      finished_length(Finished(metrics, "length")),
      finished_cancelled(Finished(metrics, "cancelled")),
      finished_deadline(Finished(metrics, "deadline")),
      finished_queue_full(Finished(metrics, "queue_full")),
      finished_cannot_fit(Finished(metrics, "cannot_fit")),
      finished_invalid(Finished(metrics, "invalid")),
      finished_unavailable(Finished(metrics, "unavailable")),
      queue_seconds(metrics.AddHistogram(
          "lapidary_worker_queue_seconds",
          "From the arrival of a request to its first step.",
          RequestSecondsBuckets())),
      prefill_seconds(metrics.AddHistogram(
          "lapidary_worker_prefill_seconds",
          "From a request's first step to its first token.",
          RequestSecondsBuckets())),
      time_to_first_token_seconds(metrics.AddHistogram(
          "lapidary_worker_time_to_first_token_seconds",
          "From the arrival of a request to its first token.",
          RequestSecondsBuckets())),
      inter_token_seconds(metrics.AddHistogram(
          "lapidary_worker_inter_token_seconds",
          "From one token of a request to the next.", TokenSecondsBuckets())),
      request_seconds(metrics.AddHistogram(
          "lapidary_worker_request_seconds",
          "From the arrival of a request to its end, if it got a token.",
          RequestSecondsBuckets())),
      prompt_tokens(metrics.AddHistogram("lapidary_worker_prompt_tokens",
                                         "Tokens of a prompt.",
                                         TokenCountBuckets())),
      output_tokens(metrics.AddHistogram(
          "lapidary_worker_output_tokens",
          "Tokens that a request got, if it got any.", TokenCountBuckets())),
      prefill_tokens(
          metrics.AddCounter("lapidary_worker_prefill_tokens_total",
                             "Prompt tokens computed, recomputed ones too.")),
      decode_tokens(metrics.AddCounter(
          "lapidary_worker_decode_tokens_total",
          "Output tokens that a step computed the next one from.")),
      batch_sequences(metrics.AddHistogram("lapidary_worker_batch_sequences",
                                           "Requests in a step.",
                                           BatchSizeBuckets())),
      prefill_step_seconds(StepSeconds(metrics, "prefill")),
      decode_step_seconds(StepSeconds(metrics, "decode")),
      mixed_step_seconds(StepSeconds(metrics, "mixed")),
      global_pages{Pages(metrics, "global", "used"),
                   Pages(metrics, "global", "free")},
      window_pages{Pages(metrics, "window", "used"),
                   Pages(metrics, "window", "free")},
      preemptions(metrics.AddCounter(
          "lapidary_worker_preemptions_total",
          "Times that a running request gave its pages back for another.")),
      running_requests(metrics.AddGauge("lapidary_worker_running_requests",
                                        "Requests that hold pages.")),
      waiting_requests(metrics.AddGauge("lapidary_worker_waiting_requests",
                                        "Requests that wait for pages.")),
      waiting_tokens(metrics.AddGauge("lapidary_worker_waiting_tokens",
                                      "Prompt tokens of waiting requests.")),
      unprefilled_tokens(metrics.AddGauge(
          "lapidary_worker_unprefilled_tokens",
          "Prompt tokens still to prefill, of waiting and running "
          "requests.")) {}

}  // namespace lapidary
