#include "worker/group_plan.h"

#include <algorithm>
#include <limits>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "common/status_macros.h"
#include "common/tokens.h"
#include "glog/logging.h"
#include "nlohmann/json.hpp"

namespace lapidary {
namespace {

using nlohmann::json;

absl::StatusOr<json> Parse(absl::string_view text) {
  json value = json::parse(text.begin(), text.end(), nullptr, false);
  if (value.is_object()) return value;
  return absl::InvalidArgumentError("expected a JSON object of another rank");
}

absl::Status Wrong(absl::string_view field) {
  return absl::InvalidArgumentError(
      absl::StrCat("what another rank sent has no valid ", field));
}

absl::Status Get(const json& object, const char* field, std::string& value) {
  const auto it = object.find(field);
  if (it == object.end() || !it->is_string()) return Wrong(field);
  value = it->get<std::string>();
  return absl::OkStatus();
}

absl::Status Get(const json& object, const char* field, int64_t& value) {
  const auto it = object.find(field);
  if (it == object.end() || !it->is_number_integer()) return Wrong(field);
  value = it->get<int64_t>();
  return value >= 0 ? absl::OkStatus() : Wrong(field);
}

absl::Status Get(const json& object, const char* field, int& value) {
  int64_t wide = 0;
  RETURN_IF_ERROR(Get(object, field, wide));
  if (wide > std::numeric_limits<int>::max()) return Wrong(field);
  value = static_cast<int>(wide);
  return absl::OkStatus();
}

absl::Status Get(const json& object, const char* field, double& value) {
  const auto it = object.find(field);
  if (it == object.end() || !it->is_number()) return Wrong(field);
  value = it->get<double>();
  return value >= 0 ? absl::OkStatus() : Wrong(field);
}

RankRates Slowest(const std::vector<RankReport>& reports) {
  RankRates slowest = reports.front().rates;
  for (const RankReport& report : reports) {
    const RankRates& rates = report.rates;
    slowest.matmul_flops = std::min(slowest.matmul_flops, rates.matmul_flops);
    slowest.attention_flops =
        std::min(slowest.attention_flops, rates.attention_flops);
    slowest.read_bytes = std::min(slowest.read_bytes, rates.read_bytes);
    slowest.link_bytes = std::min(slowest.link_bytes, rates.link_bytes);
    slowest.link_latency = std::max(slowest.link_latency, rates.link_latency);
  }
  return slowest;
}

}  // namespace

std::string EncodeRankReport(const RankReport& report) {
  const RankRates& rates = report.rates;
  return json{{"host", report.host},
              {"device", report.device},
              {"kv_bytes", report.kv_bytes},
              {"replica_bytes", report.replica_bytes},
              {"matmul_flops", rates.matmul_flops},
              {"attention_flops", rates.attention_flops},
              {"read_bytes", rates.read_bytes},
              {"link_bytes", rates.link_bytes},
              {"link_latency", absl::ToDoubleSeconds(rates.link_latency)}}
      .dump(-1, ' ', false, json::error_handler_t::replace);
}

absl::StatusOr<RankReport> DecodeRankReport(absl::string_view text) {
  ASSIGN_OR_RETURN(const json object, Parse(text));
  RankReport report;
  RankRates& rates = report.rates;
  double link_latency = 0;
  RETURN_IF_ERROR(Get(object, "host", report.host));
  RETURN_IF_ERROR(Get(object, "device", report.device));
  RETURN_IF_ERROR(Get(object, "kv_bytes", report.kv_bytes));
  RETURN_IF_ERROR(Get(object, "replica_bytes", report.replica_bytes));
  RETURN_IF_ERROR(Get(object, "matmul_flops", rates.matmul_flops));
  RETURN_IF_ERROR(Get(object, "attention_flops", rates.attention_flops));
  RETURN_IF_ERROR(Get(object, "read_bytes", rates.read_bytes));
  RETURN_IF_ERROR(Get(object, "link_bytes", rates.link_bytes));
  RETURN_IF_ERROR(Get(object, "link_latency", link_latency));
  rates.link_latency = absl::Seconds(link_latency);
  return report;
}

std::string EncodeRankPages(const RankPages& pages) {
  return json{{"global", pages.global},
              {"window", pages.window},
              {"replica", pages.replica}}
      .dump();
}

absl::StatusOr<RankPages> DecodeRankPages(absl::string_view text) {
  ASSIGN_OR_RETURN(const json object, Parse(text));
  RankPages pages;
  RETURN_IF_ERROR(Get(object, "global", pages.global));
  RETURN_IF_ERROR(Get(object, "window", pages.window));
  RETURN_IF_ERROR(Get(object, "replica", pages.replica));
  return pages;
}

absl::StatusOr<GroupPlan> PlanGroup(const std::vector<RankReport>& reports,
                                    const GroupPlanOptions& options) {
  CHECK(!reports.empty());
  const auto smallest =
      std::min_element(reports.begin(), reports.end(),
                       [](const RankReport& a, const RankReport& b) {
                         return a.kv_bytes < b.kv_bytes;
                       });
  MemoryPlanOptions memory = options.memory;
  memory.kv_memory_bytes = smallest->kv_bytes;
  memory.num_ranks = static_cast<int>(reports.size());
  GroupPlan plan;
  absl::StatusOr<MemoryPlan> planned = PlanMemory(memory);
  if (!planned.ok() && reports.size() > 1) {
    return absl::Status(
        planned.status().code(),
        absl::StrCat("rank ", smallest - reports.begin(), " (", smallest->host,
                     "): ", planned.status().message()));
  }
  RETURN_IF_ERROR(planned.status());
  plan.memory = *planned;
  plan.slowest = Slowest(reports);
  int64_t replica_bytes = std::numeric_limits<int64_t>::max();
  for (const RankReport& report : reports) {
    replica_bytes = std::min(replica_bytes, report.replica_bytes);
  }
  plan.replica_pages = static_cast<int>(
      std::min<int64_t>(replica_bytes / memory.global_page_bytes,
                        NumPages(plan.memory.max_sequence_tokens)));
  return plan;
}

}  // namespace lapidary
