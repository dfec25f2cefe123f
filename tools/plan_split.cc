// Prints how long prefills take on groups of several ranks, on paper.

#include <cstdint>
#include <cstdio>
#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "absl/flags/flag.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_split.h"
#include "absl/time/time.h"
#include "common/byte_size.h"
#include "common/command_line.h"
#include "common/read_file.h"
#include "common/status_macros.h"
#include "common/tokens.h"
#include "kernels/tensor.h"
#include "nlohmann/json.hpp"
#include "tools/split_plan.h"
#include "worker/model/gemma_config.h"
#include "worker/model/model_shape.h"
#include "worker/model/rank_weights.h"
#include "worker/schedule/cost_model.h"

ABSL_FLAG(std::string, model, "", "model directory, or a config.json");
ABSL_FLAG(std::string, ranks, "1,2,4,8", "numbers of ranks");
ABSL_FLAG(std::string, context, "8192,32768,131072,262144", "prompt lengths");
ABSL_FLAG(std::string, device, "h200", "h200, h100 or cpu");
ABSL_FLAG(std::string, link, "nvlink", "nvlink, infiniband or ethernet");
ABSL_FLAG(double, matmul_flops, 0, "a second; 0: the device's");
ABSL_FLAG(double, attention_flops, 0, "a second; 0: the device's");
ABSL_FLAG(double, read_bytes, 0, "a second; 0: the device's");
ABSL_FLAG(double, link_bytes, 0,
          "that a rank receives a second; 0: the link's");
ABSL_FLAG(absl::Duration, link_latency, absl::ZeroDuration(),
          "of an exchange; 0: the link's");
ABSL_FLAG(int, round, 2048, "tokens of a rank in a round, a multiple of 64");
ABSL_FLAG(int, chunk, 8192, "tokens of a head-split step");
ABSL_FLAG(bool, replica, true, "each rank keeps the prompt's global keys");
ABSL_FLAG(std::string, gather_memory, "64MiB",
          "buffer for global pages that come from other ranks, as the "
          "worker's");
ABSL_FLAG(bool, json, false, "JSON lines instead of a table");

namespace lapidary {
namespace {

constexpr char kUsage[] =
    R"(prints how long prefills take on groups of several ranks, on paper.

  plan_split --model DIR|config.json --ranks 1,2,4,8 --context 8192,131072
             --device h200 --link nvlink --round 2048

A line for each number of ranks and each prompt, which runs alone in bf16:
  rounds+chunks   steps under token split + under head split
  matrices window global
                  seconds of computation, each of the rank with most of it;
                  window and global attention
  transfers       seconds, and what of them runs while the rank computes
  total           seconds, if nothing overlaps: what the scheduler plans with
  efficiency      one rank's seconds / N, over the total; with the overlap; and
                  if besides ranks did not wait for each other in every layer
  balance         work of the rank with most / mean, over the rounds
  received        by a rank
With --json, also the bytes, exchanges and seconds of each kind of transfer.

Devices: h200 711 TFLOP/s of matrices, 569 of attention, 4.3 TB/s; h100 the same
at 3.0 TB/s; cpu (two cores with AVX-512 BF16) 0.87, 0.6 TFLOP/s, 41 GB/s.
Links: nvlink 360 GB/s and 20 us; infiniband (400 Gb/s a GPU) 45 GB/s and 30 us;
ethernet (25 Gb/s) 2.8 GB/s and 50 us.)";

struct Device {
  double matmul_flops;
  double attention_flops;
  double read_bytes;
};

struct Link {
  double bytes;
  absl::Duration latency;
};

const std::map<std::string, Device>& Devices() {
  static const auto* devices =
      new std::map<std::string, Device>{{"h200", {711e12, 569e12, 4.3e12}},
                                        {"h100", {711e12, 569e12, 3.0e12}},
                                        {"cpu", {0.87e12, 0.6e12, 41e9}}};
  return *devices;
}

const std::map<std::string, Link>& Links() {
  static const auto* links = new std::map<std::string, Link>{
      {"nvlink", {360e9, absl::Microseconds(20)}},
      {"infiniband", {45e9, absl::Microseconds(30)}},
      {"ethernet", {2.8e9, absl::Microseconds(50)}}};
  return *links;
}

template <typename Value>
absl::StatusOr<Value> Named(absl::string_view flag, const std::string& name,
                            const std::map<std::string, Value>& values) {
  const auto found = values.find(name);
  if (found != values.end()) return found->second;
  std::string known;
  for (const auto& [key, value] : values) absl::StrAppend(&known, " ", key);
  return absl::InvalidArgumentError(absl::StrCat(
      "--", flag, " needs one of", known, ", it has '", name, "'"));
}

absl::StatusOr<RankRates> RatesFromFlags() {
  ASSIGN_OR_RETURN(const Device device,
                   Named("device", absl::GetFlag(FLAGS_device), Devices()));
  ASSIGN_OR_RETURN(const Link link,
                   Named("link", absl::GetFlag(FLAGS_link), Links()));
  const auto or_default = [](double flag, double value) {
    return flag > 0 ? flag : value;
  };
  const absl::Duration latency = absl::GetFlag(FLAGS_link_latency);
  return RankRates{
      .matmul_flops =
          or_default(absl::GetFlag(FLAGS_matmul_flops), device.matmul_flops),
      .attention_flops = or_default(absl::GetFlag(FLAGS_attention_flops),
                                    device.attention_flops),
      .read_bytes =
          or_default(absl::GetFlag(FLAGS_read_bytes), device.read_bytes),
      .link_bytes = or_default(absl::GetFlag(FLAGS_link_bytes), link.bytes),
      .link_latency = latency > absl::ZeroDuration() ? latency : link.latency};
}

// Errors: INVALID_ARGUMENT, naming the flag.
absl::StatusOr<std::vector<int>> ParseNumbers(absl::string_view flag,
                                              const std::string& text) {
  std::vector<int> numbers;
  for (const absl::string_view part :
       absl::StrSplit(text, ',', absl::SkipEmpty())) {
    int number = 0;
    if (!absl::SimpleAtoi(part, &number) || number < 1) {
      return absl::InvalidArgumentError(
          absl::StrCat("--", flag,
                       " needs numbers from 1 on, separated by "
                       "commas, it has '",
                       part, "'"));
    }
    numbers.push_back(number);
  }
  return numbers;
}

absl::StatusOr<GemmaConfig> ConfigFromFlags() {
  std::string path = absl::GetFlag(FLAGS_model);
  if (path.empty()) return absl::InvalidArgumentError("--model is missing");
  if (std::filesystem::is_directory(path)) path += "/config.json";
  ASSIGN_OR_RETURN(const std::string text, ReadFile(path));
  return ParseGemmaConfig(text);
}

void PrintHeading() {
  std::puts(
      "ranks  context  rounds  matrices  window  global  transfers  (hidden)"
      "   total  tokens/s  efficiency           balance  received\n"
      "               +chunks         s       s       s          s         s"
      "       s                                               GB");
}

void PrintRow(const SplitPlan& plan, const CostModel& model) {
  absl::PrintF(
      "%5d  %7d  %4d+%-2d  %8.4f  %6.4f  %6.4f  %9.4f  %8.4f  %6.3f  %8.0f"
      "  %.3f %.3f %.3f  %9.3f  %8.3f\n",
      plan.num_ranks, plan.context, plan.num_rounds, plan.num_chunks,
      plan.cost.matmul + plan.cost.head, plan.cost.window_attention,
      plan.cost.global_attention, plan.transfer_seconds(model),
      plan.hidden_seconds, plan.seconds, plan.context / plan.seconds,
      plan.efficiency, plan.overlapped_efficiency, plan.relaxed_efficiency,
      plan.balance, static_cast<double>(plan.received_bytes()) / 1e9);
}

void PrintJson(const SplitPlan& plan, const CostModel& model) {
  nlohmann::ordered_json line = {
      {"ranks", plan.num_ranks},
      {"context", plan.context},
      {"rounds", plan.num_rounds},
      {"chunks", plan.num_chunks},
      {"matmul_seconds", plan.cost.matmul},
      {"window_attention_seconds", plan.cost.window_attention},
      {"global_attention_seconds", plan.cost.global_attention},
      {"head_seconds", plan.cost.head},
      {"transfer_seconds", plan.transfer_seconds(model)},
      {"hidden_seconds", plan.hidden_seconds},
      {"seconds", plan.seconds},
      {"efficiency", plan.efficiency},
      {"overlapped_efficiency", plan.overlapped_efficiency},
      {"relaxed_efficiency", plan.relaxed_efficiency},
      {"balance", plan.balance}};
  for (int i = 0; i < kNumTransfers; ++i) {
    const auto transfer = static_cast<Transfer>(i);
    const StepCost::Exchanged& exchanged = plan.cost.of(transfer);
    if (exchanged.exchanges == 0) continue;
    line["transfers"][TransferName(transfer)] = {
        {"bytes", exchanged.bytes},
        {"exchanges", exchanged.exchanges},
        {"seconds", model.TransferSeconds(exchanged)}};
  }
  std::puts(line.dump().c_str());
}

absl::Status Run() {
  ASSIGN_OR_RETURN(const GemmaConfig config, ConfigFromFlags());
  ASSIGN_OR_RETURN(const std::vector<int> ranks,
                   ParseNumbers("ranks", absl::GetFlag(FLAGS_ranks)));
  ASSIGN_OR_RETURN(const std::vector<int> contexts,
                   ParseNumbers("context", absl::GetFlag(FLAGS_context)));
  for (const int num_ranks : ranks) {
    RETURN_IF_ERROR(CheckDivides(config, num_ranks));
  }
  for (const int context : contexts) {
    RETURN_IF_ERROR(CheckContext(context, config.max_context_tokens));
  }
  SplitPlanOptions options;
  options.shape = ShapeOfModel(config);
  ASSIGN_OR_RETURN(options.rates, RatesFromFlags());
  options.round_tokens = absl::GetFlag(FLAGS_round);
  options.chunk_tokens = absl::GetFlag(FLAGS_chunk);
  options.has_replica = absl::GetFlag(FLAGS_replica);
  const absl::StatusOr<int64_t> gather_memory =
      ParseByteSize(absl::GetFlag(FLAGS_gather_memory));
  if (!gather_memory.ok()) {
    return absl::InvalidArgumentError(
        absl::StrCat("--gather-memory: ", gather_memory.status().message()));
  }
  options.gather_pages = GatherPages(config, *gather_memory, DType::kBf16);
  if (options.round_tokens <= 0 || options.round_tokens % kPageTokens != 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("--round needs a multiple of ", kPageTokens, ", it has ",
                     options.round_tokens));
  }
  if (options.chunk_tokens <= 0) {
    return absl::InvalidArgumentError("--chunk must be positive");
  }
  const bool json = absl::GetFlag(FLAGS_json);
  if (!json) PrintHeading();
  for (const int context : contexts) {
    for (const int num_ranks : ranks) {
      const SplitPlan plan = PlanSplit(options, num_ranks, context);
      (json ? PrintJson : PrintRow)(plan, ModelOf(options, num_ranks));
    }
  }
  return absl::OkStatus();
}

}  // namespace
}  // namespace lapidary

int main(int argc, char** argv) {
  lapidary::ParseFlags(lapidary::kUsage, argc, argv);
  const absl::Status status = lapidary::Run();
  if (status.ok()) return 0;
  absl::FPrintF(stderr, "plan_split: %s\n", status.message());
  return 1;
}
