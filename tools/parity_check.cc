#include "tools/parity_check.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "absl/strings/str_format.h"
#include "common/status_macros.h"

namespace lapidary {
namespace {

// The largest logit that is not suppressed, the lowest id on ties.
TokenId Greedy(std::span<const float> logits,
               std::span<const TokenId> suppressed) {
  TokenId best = 0;
  float largest = -std::numeric_limits<float>::infinity();
  for (TokenId id = 0; id < static_cast<TokenId>(logits.size()); ++id) {
    if (logits[id] > largest && std::find(suppressed.begin(), suppressed.end(),
                                          id) == suppressed.end()) {
      largest = logits[id];
      best = id;
    }
  }
  return best;
}

LogitErrors Compare(std::span<const float> ours,
                    std::span<const float> reference) {
  LogitErrors errors;
  for (size_t i = 0; i < ours.size(); ++i) {
    const double error = std::abs(double{ours[i]} - double{reference[i]});
    // A NaN is an error without bound.
    errors.max_abs = error <= errors.max_abs ? errors.max_abs : error;
    errors.sum_squares += error * error;
  }
  errors.count = static_cast<int64_t>(ours.size());
  return errors;
}

// Generates from the prompt's last logits on, until a token differs.
absl::Status CompareGreedy(SequenceDriver& driver,
                           SequenceDriver::Sequence& sequence,
                           const ParityCase& parity_case, TokenId first,
                           std::span<const TokenId> suppressed,
                           ParityResult& result) {
  TokenId token = first;
  const int size = static_cast<int>(parity_case.greedy.size());
  for (int i = 0; i < size; ++i) {
    if (token != parity_case.greedy[i]) {
      result.differing_margin = parity_case.greedy_margin[i];
      return absl::OkStatus();
    }
    ++result.greedy_equal;
    if (i + 1 == size) return absl::OkStatus();
    sequence.tokens.push_back(token);
    const std::vector<int> last = {static_cast<int>(sequence.tokens.size()) -
                                   1};
    RETURN_IF_ERROR(driver.Prefill(sequence, /*chunk=*/1, last,
                                   [&](int, std::span<const float> logits) {
                                     token = Greedy(logits, suppressed);
                                   }));
  }
  return absl::OkStatus();
}

}  // namespace

void LogitErrors::Add(const LogitErrors& other) {
  max_abs = std::max(max_abs, other.max_abs);
  sum_squares += other.sum_squares;
  reference_sum_squares += other.reference_sum_squares;
  count += other.count;
}

double LogitErrors::rms() const {
  return count > 0 ? std::sqrt(sum_squares / static_cast<double>(count)) : 0;
}

std::optional<double> LogitErrors::ratio() const {
  if (reference_sum_squares == 0) return std::nullopt;
  return std::sqrt(sum_squares / reference_sum_squares);
}

ParityBounds BoundsFor(DType compute, int num_tokens) {
  if (compute == DType::kBf16) return {.max_abs = {}, .ratio = 1.4};
  return {.max_abs = num_tokens <= 16384 ? 2e-3 : 1e-2, .ratio = {}};
}

absl::StatusOr<ParityResult> CheckCase(SequenceDriver& driver,
                                       const ParityCase& parity_case,
                                       const SafetensorsFile& reference,
                                       const SequenceDriver::Schedule& schedule,
                                       std::span<const TokenId> suppressed) {
  SequenceDriver::Sequence sequence = driver.NewSequence(parity_case.tokens);
  std::vector<int> positions = parity_case.positions;
  const int last = static_cast<int>(parity_case.tokens.size()) - 1;
  if (positions.empty() || positions.back() != last) positions.push_back(last);

  ParityResult result;
  TokenId first = 0;
  size_t row = 0;
  absl::Status status;
  RETURN_IF_ERROR(driver.Prefill(
      sequence, schedule, positions,
      [&](int position, std::span<const float> logits) {
        if (position == last) first = Greedy(logits, suppressed);
        if (row == parity_case.positions.size()) return;
        const absl::StatusOr<std::span<const float>> expected = ReferenceLogits(
            reference, parity_case, static_cast<int>(logits.size()));
        status.Update(expected.status());
        if (!expected.ok()) return;
        result.errors.Add(Compare(
            logits, expected->subspan(row++ * logits.size(), logits.size())));
      }));
  RETURN_IF_ERROR(status);
  if (parity_case.bf16_rms_error.has_value()) {
    result.errors.reference_sum_squares =
        *parity_case.bf16_rms_error * *parity_case.bf16_rms_error *
        static_cast<double>(result.errors.count);
  }
  RETURN_IF_ERROR(
      CompareGreedy(driver, sequence, parity_case, first, suppressed, result));
  return result;
}

std::string Violation(const ParityResult& result, const ParityBounds& bounds) {
  const LogitErrors& errors = result.errors;
  if (bounds.max_abs.has_value() && !(errors.max_abs <= *bounds.max_abs)) {
    return absl::StrFormat("max error %.3g > %.3g", errors.max_abs,
                           *bounds.max_abs);
  }
  if (bounds.max_abs.has_value() &&
      result.differing_margin.value_or(0) > *bounds.max_abs) {
    return absl::StrFormat("greedy token %d differs, margin %.3g > %.3g",
                           result.greedy_equal, *result.differing_margin,
                           *bounds.max_abs);
  }
  if (bounds.ratio.has_value() && errors.ratio().has_value() &&
      !(*errors.ratio() <= *bounds.ratio)) {
    return absl::StrFormat("error ratio %.3f > %.3f", *errors.ratio(),
                           *bounds.ratio);
  }
  return "";
}

}  // namespace lapidary
