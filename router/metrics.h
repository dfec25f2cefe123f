// The router's metrics; docs/metrics.md lists them.

#ifndef ROUTER_METRICS_H_
#define ROUTER_METRICS_H_

#include <array>
#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "common/metrics.h"
#include "router/core/admission.h"
#include "router/core/group.h"
#include "router/core/router_core.h"

namespace lapidary {

// Thread-safe.  `metrics` must outlive it.
class RouterMetrics {
 public:
  explicit RouterMetrics(Metrics& metrics);

  // A request ended: "stop", "length", "stop_string", or the lower-case name of
  // its status, such as "invalid_argument".
  void CountRequest(absl::string_view outcome);
  // A refusal that the core did not make: "invalid", "tokenize_queue".
  void CountRefusal(absl::string_view cause);
  void CountRefusal(RefusalCause cause);
  // What is there now.  Called by one thread at a time.
  void SetLoad(const std::vector<Group>& groups, const RouterCore::Load& load,
               int tokenizing);

  Histogram& time_to_first_token_seconds;
  Histogram& inter_token_seconds;
  Histogram& request_seconds;
  Histogram& queue_seconds;
  Histogram& tokenize_seconds;
  Histogram& prompt_tokens;
  Histogram& output_tokens;
  Counter& prompt_tokens_total;
  Counter& cached_tokens_total;
  Counter& output_tokens_total;

 private:
  void CountFailures(const std::vector<Group>& groups);

  Metrics& metrics_;
  Gauge& running_requests_;
  Gauge& waiting_requests_;
  Gauge& waiting_tokens_;
  Gauge& queued_tokens_;
  Gauge& tokenizing_requests_;
  std::array<Gauge*, 5> groups_by_state_;    // By GroupState.
  std::map<std::string, int64_t> failures_;  // Counted so far, by cause.
};

}  // namespace lapidary

#endif  // ROUTER_METRICS_H_
