#include "worker/engine/group_metrics.h"

#include <string>

namespace lapidary {
namespace {

constexpr std::array<const char*, 2> kLayoutNames = {"head_split",
                                                     "token_split"};

double Rate(const TransferCount& before, const TransferCount& now) {
  return absl::ToDoubleSeconds(now.time - before.time);
}

}  // namespace

GroupMetrics::GroupMetrics(Metrics& metrics) : metrics_(metrics) {
  for (size_t i = 0; i < kLayoutNames.size(); ++i) {
    const Metrics::Labels labels = {{"layout", kLayoutNames[i]}};
    steps_[i] =
        &metrics.AddCounter("lapidary_worker_steps_total",
                            "Steps that this rank has run, by layout.", labels);
    compute_seconds_[i] = &metrics.AddCounter(
        "lapidary_worker_compute_seconds_total",
        "Time of this rank in steps, without transfers, by layout.", labels);
  }
}

void GroupMetrics::CountStep(const StepPlan& plan, const StepReport& report) {
  const auto layout = static_cast<size_t>(plan.layout);
  steps_[layout]->Increment();
  compute_seconds_[layout]->Increment(absl::ToDoubleSeconds(report.compute));
}

void GroupMetrics::CountTransfers(const TransferCounters& counters) {
  for (int k = 0; k < kNumCollectiveKinds; ++k) {
    for (int t = 0; t < kNumTraffics; ++t) {
      const auto kind = static_cast<CollectiveKind>(k);
      const auto traffic = static_cast<Traffic>(t);
      Add(kind, traffic, counted_.of(kind, traffic),
          counters.of(kind, traffic));
    }
  }
  counted_ = counters;
}

void GroupMetrics::Add(CollectiveKind kind, Traffic traffic,
                       const TransferCount& before, const TransferCount& now) {
  if (now.calls == before.calls) return;
  Transfers& transfers =
      transfers_[static_cast<size_t>(kind)][static_cast<size_t>(traffic)];
  if (transfers.calls == nullptr) AddCounters(kind, traffic, transfers);
  transfers.calls->Increment(static_cast<double>(now.calls - before.calls));
  transfers.sent_bytes->Increment(
      static_cast<double>(now.bytes_sent - before.bytes_sent));
  transfers.received_bytes->Increment(
      static_cast<double>(now.bytes_received - before.bytes_received));
  transfers.seconds->Increment(Rate(before, now));
}

void GroupMetrics::AddCounters(CollectiveKind kind, Traffic traffic,
                               Transfers& transfers) {
  const Metrics::Labels labels = {{"collective", std::string(NameOf(kind))},
                                  {"traffic", std::string(NameOf(traffic))}};
  Metrics::Labels sent = labels;
  sent["direction"] = "sent";
  Metrics::Labels received = labels;
  received["direction"] = "received";
  transfers.calls = &metrics_.AddCounter(
      "lapidary_worker_transfers_total",
      "Operations with other ranks, by operation and purpose.", labels);
  transfers.seconds = &metrics_.AddCounter(
      "lapidary_worker_transfer_seconds_total",
      "Time of this rank in them, waiting for slower ranks included.", labels);
  constexpr char kBytes[] = "lapidary_worker_transfer_bytes_total";
  constexpr char kBytesHelp[] = "Bytes that they moved to and from this rank.";
  transfers.sent_bytes = &metrics_.AddCounter(kBytes, kBytesHelp, sent);
  transfers.received_bytes = &metrics_.AddCounter(kBytes, kBytesHelp, received);
}

void GroupMetrics::SetExchangeMemory(int64_t bytes) {
  if (bytes == 0) return;
  if (exchange_memory_ == nullptr) {
    exchange_memory_ = &metrics_.AddGauge(
        "lapidary_worker_exchange_memory_bytes",
        "Memory that messages to and from other ranks are packed in.");
  }
  exchange_memory_->Set(static_cast<double>(bytes));
}

void GroupMetrics::SetRates(const RankRates& rates) {
  const auto set = [this](const char* name, const char* help, double value) {
    metrics_.AddGauge(name, help).Set(value);
  };
  set("lapidary_worker_matmul_flops",
      "Operations a second of matrix products, measured at the start.",
      rates.matmul_flops);
  set("lapidary_worker_attention_flops",
      "Operations a second of attention, measured at the start.",
      rates.attention_flops);
  set("lapidary_worker_read_bytes_per_second",
      "Bytes of weights read a second, measured at the start.",
      rates.read_bytes);
  if (rates.link_bytes <= 0) return;  // A group of one has no link.
  set("lapidary_worker_link_bytes_per_second",
      "Bytes received from other ranks a second, measured at the start.",
      rates.link_bytes);
  set("lapidary_worker_link_latency_seconds",
      "Time of a small exchange with other ranks, measured at the start.",
      absl::ToDoubleSeconds(rates.link_latency));
}

void GroupMetrics::SetBalance(double planned, double measured) {
  if (planned_balance_ == nullptr) {
    const auto add = [this](const char* of) {
      return &metrics_.AddGauge(
          "lapidary_worker_round_balance_ratio",
          "Computing of the slowest rank over the mean, in the last round.",
          {{"of", of}});
    };
    planned_balance_ = add("planned");
    measured_balance_ = add("measured");
  }
  planned_balance_->Set(planned);
  measured_balance_->Set(measured);
}

void GroupMetrics::CountStepsOverDeadline(int64_t steps) {
  if (steps_over_deadline_ == nullptr) {
    steps_over_deadline_ = &metrics_.AddCounter(
        "lapidary_worker_steps_over_deadline_total",
        "Steps beside streams that even at one page were planned to take "
        "longer than the inter-token deadline.");
  }
  steps_over_deadline_->Increment(static_cast<double>(steps));
}

void GroupMetrics::SetReplicaPages(int used, int total) {
  if (used_replica_pages_ == nullptr) {
    const auto add = [this](const char* state) {
      return &metrics_.AddGauge(
          "lapidary_worker_replica_pages",
          "Pages of the replica that a prompt has while it is prefilled in "
          "rounds, on each rank.",
          {{"state", state}});
    };
    used_replica_pages_ = add("used");
    free_replica_pages_ = add("free");
  }
  used_replica_pages_->Set(used);
  free_replica_pages_->Set(total - used);
}

}  // namespace lapidary
