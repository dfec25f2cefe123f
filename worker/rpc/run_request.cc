#include "worker/rpc/run_request.h"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "common/grpc_status.h"
#include "common/request_id.h"

namespace lapidary {
namespace {

using TokenField = google::protobuf::RepeatedField<uint32_t>;

// Collects what is wrong with a request.
class Checker {
 public:
  explicit Checker(const RunLimits& limits) : limits_(limits) {}

  void Expect(bool holds, absl::string_view field,
              absl::string_view description) {
    if (!holds) {
      violations_.push_back({std::string(field), std::string(description)});
    }
  }

  // [low, high]; a NaN is in no range.
  void ExpectInRange(double value, double low, double high,
                     absl::string_view field) {
    Expect(value >= low && value <= high, field,
           absl::StrCat("expected ", low, " to ", high, ", got ", value));
  }

  // (0, high].
  void ExpectPositive(double value, double high, absl::string_view field) {
    Expect(value > 0 && value <= high, field,
           absl::StrCat("expected more than 0 and at most ", high, ", got ",
                        value));
  }

  void ExpectAtMost(int64_t count, int64_t limit, absl::string_view field) {
    Expect(count <= limit, field,
           absl::StrCat("expected at most ", limit, ", got ", count));
  }

  void ExpectInVocabulary(int64_t id, absl::string_view field) {
    Expect(id < limits_.vocab_size, field,
           absl::StrCat("expected a token id below ", limits_.vocab_size,
                        ", got ", id));
  }

  // The first wrong id stands for all of them.
  void ExpectInVocabulary(const TokenField& ids, absl::string_view field) {
    const auto vocab_size = static_cast<uint32_t>(limits_.vocab_size);
    const auto wrong =
        std::find_if(ids.begin(), ids.end(),
                     [vocab_size](uint32_t id) { return id >= vocab_size; });
    if (wrong != ids.end()) {
      ExpectInVocabulary(*wrong,
                         absl::StrCat(field, "[", wrong - ids.begin(), "]"));
    }
  }

  // OK if nothing was wrong.
  absl::Status status() && {
    if (violations_.empty()) return absl::OkStatus();
    return BadRequestError(std::move(violations_));
  }

 private:
  const RunLimits& limits_;
  std::vector<FieldViolation> violations_;
};

void CheckTokens(const v1::RunRequest& request, const RunLimits& limits,
                 Checker& checker) {
  const int64_t prompt_tokens = request.prompt_token_ids_size();
  const int64_t max_tokens = request.max_tokens();
  checker.Expect(prompt_tokens > 0, "prompt_token_ids",
                 "expected at least one token, got none");
  checker.ExpectInVocabulary(request.prompt_token_ids(), "prompt_token_ids");
  checker.Expect(max_tokens > 0, "max_tokens", "expected at least 1, got 0");
  checker.Expect(prompt_tokens + max_tokens <= limits.max_context_tokens,
                 "max_tokens",
                 absl::StrCat("expected prompt and output of at most ",
                              limits.max_context_tokens, " tokens, got ",
                              prompt_tokens, " and ", max_tokens));
  checker.ExpectAtMost(request.resumed_output_tokens(), prompt_tokens,
                       "resumed_output_tokens");

  checker.ExpectAtMost(request.stop_token_ids_size(), RunLimits::kStopTokens,
                       "stop_token_ids");
  checker.ExpectInVocabulary(request.stop_token_ids(), "stop_token_ids");
  checker.ExpectAtMost(request.suppressed_token_ids_size(),
                       RunLimits::kSuppressedTokens, "suppressed_token_ids");
  checker.ExpectInVocabulary(request.suppressed_token_ids(),
                             "suppressed_token_ids");
}

void CheckSampling(const v1::Sampling& sampling, Checker& checker) {
  const std::pair<bool, absl::string_view> required[] = {
      {sampling.has_temperature(), "sampling.temperature"},
      {sampling.has_top_k(), "sampling.top_k"},
      {sampling.has_top_p(), "sampling.top_p"},
      {sampling.has_min_p(), "sampling.min_p"},
      {sampling.has_repetition_penalty(), "sampling.repetition_penalty"},
      {sampling.has_presence_penalty(), "sampling.presence_penalty"},
      {sampling.has_frequency_penalty(), "sampling.frequency_penalty"},
      {sampling.has_seed(), "sampling.seed"},
  };
  bool complete = true;
  for (const auto& [is_set, field] : required) {
    checker.Expect(is_set, field, "expected a value, got none");
    complete &= is_set;
  }
  if (!complete) return;

  checker.ExpectInRange(sampling.temperature(), 0, 100, "sampling.temperature");
  checker.ExpectAtMost(sampling.top_k(), INT32_MAX, "sampling.top_k");
  checker.ExpectPositive(sampling.top_p(), 1, "sampling.top_p");
  checker.ExpectInRange(sampling.min_p(), 0, 1, "sampling.min_p");
  checker.ExpectPositive(sampling.repetition_penalty(), 100,
                         "sampling.repetition_penalty");
  checker.ExpectInRange(sampling.presence_penalty(), -100, 100,
                        "sampling.presence_penalty");
  checker.ExpectInRange(sampling.frequency_penalty(), -100, 100,
                        "sampling.frequency_penalty");
  checker.ExpectAtMost(sampling.logprobs(), RunLimits::kLogprobs,
                       "sampling.logprobs");
  checker.ExpectAtMost(static_cast<int64_t>(sampling.logit_bias_size()),
                       RunLimits::kLogitBiases, "sampling.logit_bias");
  // One violation says enough of millions of entries.
  if (sampling.logit_bias_size() > RunLimits::kLogitBiases) return;
  for (const auto& [id, bias] : sampling.logit_bias()) {
    const std::string field = absl::StrCat("sampling.logit_bias[", id, "]");
    checker.ExpectInVocabulary(id, field);
    checker.ExpectInRange(bias, -100, 100, field);
  }
}

SamplingOptions ToSamplingOptions(const v1::RunRequest& request) {
  const v1::Sampling& sampling = request.sampling();
  SamplingOptions options;
  options.temperature = sampling.temperature();
  options.top_k = static_cast<int>(sampling.top_k());
  options.top_p = sampling.top_p();
  options.min_p = sampling.min_p();
  options.repetition_penalty = sampling.repetition_penalty();
  options.presence_penalty = sampling.presence_penalty();
  options.frequency_penalty = sampling.frequency_penalty();
  options.logit_bias.assign(sampling.logit_bias().begin(),
                            sampling.logit_bias().end());
  // A map has no order of its own.
  std::sort(options.logit_bias.begin(), options.logit_bias.end());
  options.suppressed.assign(request.suppressed_token_ids().begin(),
                            request.suppressed_token_ids().end());
  options.seed = sampling.seed();
  if (sampling.has_logprobs()) {
    options.logprobs = static_cast<int>(sampling.logprobs());
  }
  return options;
}

}  // namespace

absl::StatusOr<EngineRequest> ParseRunRequest(const v1::RunRequest& request,
                                              const RunLimits& limits) {
  Checker checker(limits);
  checker.Expect(
      request.request_id().empty() || IsRequestId(request.request_id()),
      "request_id",
      absl::StrCat("expected at most ", kMaxRequestIdBytes,
                   " printable ASCII characters without blanks"));
  CheckTokens(request, limits, checker);
  CheckSampling(request.sampling(), checker);
  if (absl::Status status = std::move(checker).status(); !status.ok()) {
    return status;
  }

  EngineRequest parsed;
  parsed.prompt.assign(request.prompt_token_ids().begin(),
                       request.prompt_token_ids().end());
  parsed.sampling = ToSamplingOptions(request);
  parsed.max_tokens = static_cast<int>(request.max_tokens());
  parsed.stop_tokens.assign(request.stop_token_ids().begin(),
                            request.stop_token_ids().end());
  parsed.priority = request.priority();
  parsed.resumed_output_tokens =
      static_cast<int>(request.resumed_output_tokens());
  return parsed;
}

}  // namespace lapidary
