// Holds a model's logits and greedy tokens against stored reference values.

#include <algorithm>
#include <cstdio>
#include <string>
#include <vector>

#include "absl/flags/flag.h"
#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "common/command_line.h"
#include "common/generation_config.h"
#include "common/status_macros.h"
#include "common/tokens.h"
#include "tools/in_process_group.h"
#include "tools/model_flags.h"
#include "tools/parity_cases.h"
#include "tools/parity_check.h"
#include "tools/sequence_driver.h"
#include "worker/loader/safetensors.h"
#include "worker/model/loaded_model.h"

ABSL_FLAG(std::string, cases, "", "cases.json or cases_long.json");
ABSL_FLAG(std::string, reference, "",
          "safetensors with ID.logits for each case");
ABSL_FLAG(int, chunk, 512, "prompt tokens a step, at most");
ABSL_FLAG(int, ranks, 1,
          "ranks, as threads of this process; --threads are those of each");
ABSL_FLAG(int, round_tokens, 0,
          "prefill in rounds of this many tokens, split over the ranks; 0: in "
          "chunks under head split");
ABSL_FLAG(bool, replica, true,
          "whether the ranks keep a replica of the prompt's latents in rounds");
ABSL_FLAG(std::string, only, "", "run the case of this id alone");

namespace lapidary {
namespace {

constexpr char kUsage[] = R"(compares a model with stored reference logits.

  parity --model DIR --cases FILE --reference FILE --compute fp32

A line a case: largest and rms error against the stored logits, ratio to the
reference's own bf16 error, greedy tokens.

Exit code 1 if anything is out of bounds: in fp32 an error above 2e-3 (1e-2
beyond 16384 tokens), or another greedy token where the margin is larger than
that; in bf16 a ratio above 1.4, or above 1.1 over all cases.  Exit code 2 if it
cannot run.)";

std::string FormatRatio(const LogitErrors& errors) {
  return errors.ratio().has_value() ? absl::StrFormat("%.3f", *errors.ratio())
                                    : "-";
}

std::string FormatGreedy(const ParityCase& parity_case,
                         const ParityResult& result) {
  if (parity_case.greedy.empty()) return "-";
  if (!result.differing_margin.has_value()) {
    return absl::StrFormat("all %d equal", result.greedy_equal);
  }
  return absl::StrFormat("differs at %d of %d, margin %.3g",
                         result.greedy_equal, parity_case.greedy.size(),
                         *result.differing_margin);
}

void PrintCase(const ParityCase& parity_case, const ParityResult& result,
               absl::Duration time, const std::string& violation) {
  absl::PrintF(
      "%-12s tokens %6d  max %.3e  rms %.3e  ratio %5s  greedy %s  "
      "%.2f s  %s\n",
      parity_case.id, parity_case.tokens.size(), result.errors.max_abs,
      result.errors.rms(), FormatRatio(result.errors),
      FormatGreedy(parity_case, result), absl::ToDoubleSeconds(time),
      violation.empty() ? "ok" : "OUT OF BOUNDS: " + violation);
  std::fflush(stdout);
}

absl::StatusOr<std::vector<ParityCase>> SelectedCases() {
  if (absl::GetFlag(FLAGS_cases).empty()) {
    return absl::InvalidArgumentError("needs --cases FILE");
  }
  if (absl::GetFlag(FLAGS_reference).empty()) {
    return absl::InvalidArgumentError("needs --reference FILE");
  }
  ASSIGN_OR_RETURN(std::vector<ParityCase> cases,
                   ReadParityCases(absl::GetFlag(FLAGS_cases)));
  const std::string only = absl::GetFlag(FLAGS_only);
  if (!only.empty()) {
    std::erase_if(cases, [&](const ParityCase& c) { return c.id != only; });
  }
  if (cases.empty()) {
    return absl::NotFoundError(
        absl::StrCat("no case", only.empty() ? "" : " '" + only + "'", " in ",
                     absl::GetFlag(FLAGS_cases)));
  }
  return cases;
}

SequenceDriver::Options DriverOptions(const std::vector<ParityCase>& cases,
                                      int chunk) {
  SequenceDriver::Options options;
  for (const ParityCase& c : cases) {
    options.max_tokens =
        std::max(options.max_tokens,
                 static_cast<int>(c.tokens.size() + c.greedy.size()));
  }
  options.max_step_tokens = chunk;
  return options;
}

// In chunks, or in rounds if --round-tokens says so.
absl::StatusOr<SequenceDriver::Schedule> ScheduleFromFlags() {
  SequenceDriver::Schedule schedule = {.chunk = absl::GetFlag(FLAGS_chunk)};
  const int round_tokens = absl::GetFlag(FLAGS_round_tokens);
  const int num_ranks = absl::GetFlag(FLAGS_ranks);
  if (round_tokens == 0) return schedule;
  if (round_tokens < 0 || round_tokens % kPageTokens != 0 || num_ranks < 2) {
    return absl::InvalidArgumentError(
        absl::StrCat("--round-tokens must be a multiple of ", kPageTokens,
                     " and needs --ranks of 2 or more, got ", round_tokens,
                     " with ", num_ranks));
  }
  schedule.rounds = SequenceDriver::Rounds{
      .round_tokens = round_tokens,
      .max_range_tokens = round_tokens,
      .cost = {},
      .replica = absl::GetFlag(FLAGS_replica) ? SequenceDriver::Replica::kUse
                                              : SequenceDriver::Replica::kNone};
  return schedule;
}

int ReplicaPages(const SequenceDriver::Schedule& schedule,
                 const SequenceDriver::Options& options) {
  const bool uses = schedule.rounds.has_value() &&
                    schedule.rounds->replica == SequenceDriver::Replica::kUse;
  return uses ? NumPages(options.max_tokens) : 0;
}

std::string Describe(const SequenceDriver::Schedule& schedule) {
  if (!schedule.rounds.has_value()) {
    return absl::StrCat("chunk ", schedule.chunk);
  }
  return absl::StrCat("rounds of ", schedule.rounds->round_tokens,
                      schedule.rounds->replica == SequenceDriver::Replica::kUse
                          ? " with a replica"
                          : " without a replica");
}

// Whether all cases are in bounds.
absl::StatusOr<bool> RunAll() {
  const int chunk = absl::GetFlag(FLAGS_chunk);
  if (chunk <= 0) return absl::InvalidArgumentError("--chunk must be positive");
  ASSIGN_OR_RETURN(const std::vector<ParityCase> cases, SelectedCases());
  ASSIGN_OR_RETURN(const auto reference,
                   SafetensorsFile::Open(absl::GetFlag(FLAGS_reference)));
  ASSIGN_OR_RETURN(ModelOptions model_options, ModelOptionsFromFlags());
  const int num_ranks = absl::GetFlag(FLAGS_ranks);
  SequenceDriver::Options options = DriverOptions(cases, chunk);
  options.num_ranks = num_ranks;
  model_options.max_step_tokens = std::min(chunk, options.max_tokens);
  ASSIGN_OR_RETURN(const SequenceDriver::Schedule schedule,
                   ScheduleFromFlags());
  if (schedule.rounds.has_value()) {
    model_options.max_range_tokens = schedule.rounds->max_range_tokens;
  }
  ASSIGN_OR_RETURN(const GenerationConfig generation,
                   ReadGenerationConfig(model_options.model_dir));
  ASSIGN_OR_RETURN(const auto group,
                   InProcessGroup::Load(model_options, num_ranks));
  ASSIGN_OR_RETURN(
      const auto driver,
      SequenceDriver::Create(*group, options, ReplicaPages(schedule, options)));
  absl::PrintF("%s, %s, ranks %d, each %s, %s\n", model_options.model_dir,
               model_options.compute == DType::kF32 ? "fp32" : "bf16",
               num_ranks, group->model(0).backend().Description(),
               Describe(schedule));

  LogitErrors pooled;
  bool in_bounds = true;
  for (const ParityCase& parity_case : cases) {
    const absl::Time begin = absl::Now();
    ASSIGN_OR_RETURN(const ParityResult result,
                     CheckCase(*driver, parity_case, *reference, schedule,
                               generation.suppress_tokens));
    const std::string violation = Violation(
        result, BoundsFor(model_options.compute,
                          static_cast<int>(parity_case.tokens.size())));
    in_bounds = in_bounds && violation.empty();
    PrintCase(parity_case, result, absl::Now() - begin, violation);
    pooled.Add(result.errors);
  }
  absl::PrintF("%-12s max %.3e  rms %.3e  ratio %5s\n", "pooled",
               pooled.max_abs, pooled.rms(), FormatRatio(pooled));
  if (model_options.compute == DType::kBf16 &&
      pooled.ratio().value_or(0) > kMaxPooledRatio) {
    absl::PrintF("OUT OF BOUNDS: pooled ratio > %.2f\n", kMaxPooledRatio);
    in_bounds = false;
  }
  return in_bounds;
}

}  // namespace
}  // namespace lapidary

int main(int argc, char** argv) {
  lapidary::ParseFlags(lapidary::kUsage, argc, argv);
  const absl::StatusOr<bool> in_bounds = lapidary::RunAll();
  if (!in_bounds.ok()) {
    absl::FPrintF(stderr, "parity: %s\n", in_bounds.status().message());
    return 2;
  }
  return *in_bounds ? 0 : 1;
}
