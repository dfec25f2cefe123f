// One request over N ranks against one rank with as many threads in all.

#include <algorithm>
#include <cstdio>
#include <functional>
#include <memory>
#include <numeric>
#include <string>
#include <utility>
#include <vector>

#include "absl/flags/flag.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "common/command_line.h"
#include "common/status_macros.h"
#include "common/tokens.h"
#include "nlohmann/json.hpp"
#include "tools/in_process_group.h"
#include "tools/model_flags.h"
#include "tools/sequence_driver.h"
#include "worker/model/loaded_model.h"

ABSL_FLAG(int, ranks, 2, "ranks of the group; they divide --threads");
ABSL_FLAG(std::string, prefill, "16384,65536",
          "contexts to prefill up to; empty: none");
ABSL_FLAG(int, measured, 16384,
          "of each prefill, the last tokens that are computed and timed");
ABSL_FLAG(int, chunk, 2048, "tokens a step of the one rank");
ABSL_FLAG(int, range_tokens, 2048,
          "tokens of each rank in a round of the group");
ABSL_FLAG(int, decode, 32, "steps to decode; 0: none");
ABSL_FLAG(int, depth, 16384, "positions before what is decoded");
ABSL_FLAG(int, repeats, 3, "interleaved runs; medians count");
ABSL_FLAG(std::string, link, "gloo",
          "what ranks exchange by: gloo (TCP on loopback) or threads");

namespace lapidary {
namespace {

constexpr char kUsage[] = R"(measures what a split costs.

  split_benchmark --model DIR --threads 2 --ranks 2 --prefill 16384,65536

JSON lines.  A group of --ranks with --threads / --ranks threads each and one
rank with --threads take turns; efficiency is the seconds of the one rank by
those of the group: 1 is a split that costs nothing.  Positions before those
that are measured are not computed; their pages are zero.)";

// What is timed: a group of ranks, or one.
struct Contender {
  std::unique_ptr<InProcessGroup> group;
  std::unique_ptr<SequenceDriver> driver;
  SequenceDriver::Schedule schedule;
};

struct Limits {
  int max_tokens = 0;  // Of a sequence.
  int ranks = 0;
  int threads = 0;
};

absl::StatusOr<Contender> NewContender(ModelOptions options, int num_ranks,
                                       const Limits& limits) {
  Contender contender;
  const int chunk = absl::GetFlag(FLAGS_chunk);
  const int range = absl::GetFlag(FLAGS_range_tokens);
  options.cpu.threads = limits.threads / num_ranks;
  options.max_step_tokens = chunk;
  options.max_range_tokens = num_ranks > 1 ? range : 0;
  ASSIGN_OR_RETURN(contender.group,
                   InProcessGroup::Load(options, num_ranks,
                                        absl::GetFlag(FLAGS_link) == "gloo"
                                            ? InProcessGroup::Link::kGloo
                                            : InProcessGroup::Link::kThreads));
  ASSIGN_OR_RETURN(contender.driver,
                   SequenceDriver::Create(
                       *contender.group,
                       {.max_sequences = 1,
                        .max_tokens = limits.max_tokens,
                        .max_step_tokens = std::max(chunk, range * num_ranks),
                        .num_ranks = num_ranks},
                       num_ranks > 1 ? NumPages(limits.max_tokens) : 0));
  contender.schedule.chunk = chunk;
  if (num_ranks > 1) {
    contender.schedule.rounds =
        SequenceDriver::Rounds{.round_tokens = range * num_ranks,
                               .max_range_tokens = range,
                               .cost = {},
                               .replica = SequenceDriver::Replica::kUse};
  }
  return contender;
}

std::vector<TokenId> SomeTokens(int count, int vocab_size) {
  std::vector<TokenId> tokens(count);
  for (int i = 0; i < count; ++i) tokens[i] = (i * 7919 + 11) % vocab_size;
  return tokens;
}

// Seconds to prefill up to `context`.
absl::StatusOr<double> TimePrefill(Contender& contender, int context) {
  const int vocab_size = contender.group->model(0).config().vocab_size;
  SequenceDriver::Sequence sequence =
      contender.driver->NewSequence(SomeTokens(context, vocab_size));
  const int skipped = std::max(0, context - absl::GetFlag(FLAGS_measured));
  if (skipped > 0) {
    RETURN_IF_ERROR(contender.driver->Skip(skipped, sequence));
  }
  const int last = context - 1;
  const absl::Time begin = absl::Now();
  RETURN_IF_ERROR(
      contender.driver->Prefill(sequence, contender.schedule, {&last, 1},
                                [](int, std::span<const float>) {}));
  return absl::ToDoubleSeconds(absl::Now() - begin);
}

// Seconds of a decode step, the median of --decode.
absl::StatusOr<double> TimeDecode(Contender& contender, int depth) {
  const int steps = absl::GetFlag(FLAGS_decode);
  const int vocab_size = contender.group->model(0).config().vocab_size;
  SequenceDriver::Sequence sequence =
      contender.driver->NewSequence(SomeTokens(depth + steps, vocab_size));
  RETURN_IF_ERROR(contender.driver->Skip(depth, sequence));
  std::vector<double> seconds;
  for (int i = 0; i < steps; ++i) {
    const SequenceDriver::Part part = {
        .sequence = &sequence, .num_tokens = 1, .logit_positions = {depth + i}};
    const absl::Time begin = absl::Now();
    RETURN_IF_ERROR(contender.driver->Step({&part, 1}).status());
    seconds.push_back(absl::ToDoubleSeconds(absl::Now() - begin));
  }
  std::nth_element(seconds.begin(), seconds.begin() + steps / 2, seconds.end());
  return seconds[steps / 2];
}

double Median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

using Timer = std::function<absl::StatusOr<double>(Contender&)>;

// Runs both in turns and prints a line.
absl::Status Compare(const char* what, int context, Contender& one,
                     Contender& group, const Timer& timer) {
  std::vector<double> one_seconds, group_seconds, ratios;
  for (int i = 0; i < absl::GetFlag(FLAGS_repeats); ++i) {
    ASSIGN_OR_RETURN(const double alone, timer(one));
    const TransferCount before = group.group->collective(0).counters().Total();
    ASSIGN_OR_RETURN(const double split, timer(group));
    const TransferCount after = group.group->collective(0).counters().Total();
    one_seconds.push_back(alone);
    group_seconds.push_back(split);
    ratios.push_back(alone / split);
    if (i > 0) continue;
    std::printf(
        "%s\n",
        nlohmann::json(
            {{"what", absl::StrCat(what, "_transfers")},
             {"context", context},
             {"calls", after.calls - before.calls},
             {"bytes_received", after.bytes_received - before.bytes_received},
             {"seconds", absl::ToDoubleSeconds(after.time - before.time)}})
            .dump()
            .c_str());
  }
  std::printf("%s\n", nlohmann::json({{"what", what},
                                      {"context", context},
                                      {"ranks", absl::GetFlag(FLAGS_ranks)},
                                      {"one_rank_seconds", Median(one_seconds)},
                                      {"group_seconds", Median(group_seconds)},
                                      {"efficiency", Median(ratios)},
                                      {"efficiency_of_runs", ratios}})
                          .dump()
                          .c_str());
  std::fflush(stdout);
  return absl::OkStatus();
}

absl::StatusOr<std::vector<int>> Contexts() {
  std::vector<int> contexts;
  for (const absl::string_view part :
       absl::StrSplit(absl::GetFlag(FLAGS_prefill), ',', absl::SkipEmpty())) {
    int context = 0;
    if (!absl::SimpleAtoi(part, &context) || context < 1) {
      return absl::InvalidArgumentError(absl::StrCat(
          "--prefill needs numbers from 1 on, separated by commas, it has '",
          part, "'"));
    }
    contexts.push_back(context);
  }
  return contexts;
}

absl::Status RunAll() {
  ASSIGN_OR_RETURN(const std::vector<int> contexts, Contexts());
  ASSIGN_OR_RETURN(const ModelOptions options, ModelOptionsFromFlags());
  const int decode = absl::GetFlag(FLAGS_decode);
  const int depth = absl::GetFlag(FLAGS_depth);
  Limits limits = {.max_tokens = depth + decode,
                   .ranks = absl::GetFlag(FLAGS_ranks),
                   .threads = options.cpu.threads};
  for (const int context : contexts) {
    limits.max_tokens = std::max(limits.max_tokens, context);
  }
  if (limits.ranks < 2 || limits.threads < limits.ranks ||
      limits.threads % limits.ranks != 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("needs --ranks of 2 or more that divide --threads, got ",
                     limits.ranks, " and ", limits.threads));
  }
  ASSIGN_OR_RETURN(Contender one, NewContender(options, 1, limits));
  ASSIGN_OR_RETURN(Contender group,
                   NewContender(options, limits.ranks, limits));
  for (const int context : contexts) {
    RETURN_IF_ERROR(Compare(
        "prefill", context, one, group,
        [&](Contender& contender) { return TimePrefill(contender, context); }));
  }
  if (decode == 0) return absl::OkStatus();
  return Compare("decode", depth, one, group, [&](Contender& contender) {
    return TimeDecode(contender, depth);
  });
}

}  // namespace
}  // namespace lapidary

int main(int argc, char** argv) {
  lapidary::ParseCommandLine(lapidary::kUsage, argc, argv);
  const absl::Status status = lapidary::RunAll();
  if (!status.ok()) {
    std::fprintf(stderr, "split_benchmark: %s\n",
                 std::string(status.message()).c_str());
    return 1;
  }
  return 0;
}
