// Runs reference cases and says how far the model's results are off.

#ifndef TOOLS_PARITY_CHECK_H_
#define TOOLS_PARITY_CHECK_H_

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "common/tokens.h"
#include "kernels/tensor.h"
#include "tools/parity_cases.h"
#include "tools/sequence_driver.h"

namespace lapidary {

// Differences of logits from the stored ones, over one case or several.
struct LogitErrors {
  double max_abs = 0;
  double sum_squares = 0;
  // What sum_squares is for the reference's own bf16 run; 0 if it is not known.
  double reference_sum_squares = 0;
  int64_t count = 0;

  void Add(const LogitErrors& other);
  double rms() const;
  // Of our error to that of the reference in bf16; nullopt if that is not
  // known.
  std::optional<double> ratio() const;
};

struct ParityResult {
  LogitErrors errors;
  // Greedy tokens before the first that differs, of those in the case.
  int greedy_equal = 0;
  // The reference's margin where they differ; nullopt if they do not.
  std::optional<double> differing_margin;
};

// What parity means (tests/testdata/README.md).
struct ParityBounds {
  std::optional<double>
      max_abs;                  // fp32.  Also the margin of a greedy near-tie.
  std::optional<double> ratio;  // bf16, of a single case.
};

// Bounds of a model's cases taken together, in bf16.
inline constexpr double kMaxPooledRatio = 1.1;

ParityBounds BoundsFor(DType compute, int num_tokens);

// Runs the prompt as `schedule` says, and generates greedily as
// long as the case does and as the tokens agree; `suppressed` tokens are never
// generated.
//
// Errors: the driver's; those of ReferenceLogits().
absl::StatusOr<ParityResult> CheckCase(SequenceDriver& driver,
                                       const ParityCase& parity_case,
                                       const SafetensorsFile& reference,
                                       const SequenceDriver::Schedule& schedule,
                                       std::span<const TokenId> suppressed);

// Empty if `result` is in bounds, else what is not: "max error 0.1 > 0.002".
std::string Violation(const ParityResult& result, const ParityBounds& bounds);

}  // namespace lapidary

#endif  // TOOLS_PARITY_CHECK_H_
