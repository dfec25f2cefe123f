#include "router/metrics.h"

namespace lapidary {
namespace {

constexpr char kRequestsName[] = "lapidary_router_requests_total";
constexpr char kRequestsHelp[] = "Requests that ended, by how they ended.";
constexpr char kRefusalsName[] = "lapidary_router_refusals_total";
constexpr char kRefusalsHelp[] = "Requests that were not served, by cause.";

}  // namespace

RouterMetrics::RouterMetrics(Metrics& metrics)
    : time_to_first_token_seconds(metrics.AddHistogram(
          "lapidary_router_time_to_first_token_seconds",
          "From the arrival of a request to its first token.",
          RequestSecondsBuckets())),
      inter_token_seconds(metrics.AddHistogram(
          "lapidary_router_inter_token_seconds",
          "From one token of a request to its next.", TokenSecondsBuckets())),
      request_seconds(
          metrics.AddHistogram("lapidary_router_request_seconds",
                               "From the arrival of a request to its end.",
                               RequestSecondsBuckets())),
      queue_seconds(metrics.AddHistogram(
          "lapidary_router_queue_seconds",
          "From the arrival of a request to the start of its prefill, "
          "tokenization apart.",
          RequestSecondsBuckets())),
      tokenize_seconds(
          metrics.AddHistogram("lapidary_router_tokenize_seconds",
                               "Reading, rendering and tokenizing a request.",
                               RequestSecondsBuckets())),
      prompt_tokens(metrics.AddHistogram("lapidary_router_prompt_tokens",
                                         "Prompt tokens of a request.",
                                         TokenCountBuckets())),
      output_tokens(metrics.AddHistogram("lapidary_router_output_tokens",
                                         "Output tokens of a request.",
                                         TokenCountBuckets())),
      prompt_tokens_total(
          metrics.AddCounter("lapidary_router_prompt_tokens_total",
                             "Prompt tokens of the requests that ended well.")),
      cached_tokens_total(metrics.AddCounter(
          "lapidary_router_cached_tokens_total",
          "Prompt tokens that groups took from their caches.")),
      output_tokens_total(metrics.AddCounter(
          "lapidary_router_output_tokens_total", "Output tokens received.")),
      metrics_(metrics),
      running_requests_(
          metrics.AddGauge("lapidary_router_running_requests",
                           "Requests that a group has and did not finish.")),
      waiting_requests_(metrics.AddGauge("lapidary_router_waiting_requests",
                                         "Requests that wait for a group.")),
      waiting_tokens_(metrics.AddGauge("lapidary_router_waiting_tokens",
                                       "Prompt tokens that wait for a group.")),
      queued_tokens_(metrics.AddGauge(
          "lapidary_router_queued_tokens",
          "Prompt tokens that the ready groups have still to prefill.")),
      tokenizing_requests_(
          metrics.AddGauge("lapidary_router_tokenize_queue_requests",
                           "Requests that wait to be tokenized.")) {
  for (size_t i = 0; i < groups_by_state_.size(); ++i) {
    groups_by_state_[i] = &metrics.AddGauge(
        "lapidary_router_groups", "Groups of the router's list, by state.",
        {{"state", std::string(GroupStateName(static_cast<GroupState>(i)))}});
  }
  // So that the page shows them before the first of each.
  for (int i = 0; i < kNumRefusalCauses; ++i) {
    metrics.AddCounter(
        kRefusalsName, kRefusalsHelp,
        {{"cause",
          std::string(RefusalCauseName(static_cast<RefusalCause>(i)))}});
  }
  metrics.AddCounter(kRefusalsName, kRefusalsHelp,
                     {{"cause", "tokenize_queue"}});
}

void RouterMetrics::CountRequest(absl::string_view outcome) {
  metrics_
      .AddCounter(kRequestsName, kRequestsHelp,
                  {{"outcome", std::string(outcome)}})
      .Increment();
}

void RouterMetrics::CountRefusal(absl::string_view cause) {
  metrics_
      .AddCounter(kRefusalsName, kRefusalsHelp, {{"cause", std::string(cause)}})
      .Increment();
}

void RouterMetrics::CountRefusal(RefusalCause cause) {
  CountRefusal(RefusalCauseName(cause));
}

void RouterMetrics::SetLoad(const std::vector<Group>& groups,
                            const RouterCore::Load& load, int tokenizing) {
  running_requests_.Set(load.running_requests);
  waiting_requests_.Set(load.backlog.waiting_requests);
  waiting_tokens_.Set(static_cast<double>(load.backlog.waiting_tokens));
  tokenizing_requests_.Set(tokenizing);
  std::array<int, 5> counts = {};
  int64_t queued_tokens = 0;
  for (const Group& group : groups) {
    ++counts[static_cast<size_t>(group.state)];
    if (group.state == GroupState::kReady)
      queued_tokens += group.queued_tokens();
  }
  queued_tokens_.Set(static_cast<double>(queued_tokens));
  for (size_t i = 0; i < counts.size(); ++i)
    groups_by_state_[i]->Set(counts[i]);
  CountFailures(groups);
}

void RouterMetrics::CountFailures(const std::vector<Group>& groups) {
  std::map<std::string, int64_t> failures;
  for (const Group& group : groups) {
    for (const auto& [cause, count] : group.failures) failures[cause] += count;
  }
  for (const auto& [cause, count] : failures) {
    int64_t& counted = failures_[cause];
    if (count == counted) continue;
    metrics_
        .AddCounter("lapidary_router_group_failures_total",
                    "Groups that ended because a rank failed, by cause.",
                    {{"cause", cause}})
        .Increment(static_cast<double>(count - counted));
    counted = count;
  }
}

}  // namespace lapidary
