// What a rank tells the leader of a step that it has run.

#ifndef WORKER_ENGINE_STEP_REPORT_H_
#define WORKER_ENGINE_STEP_REPORT_H_

#include <array>
#include <cstdint>

#include "absl/status/statusor.h"
#include "absl/time/time.h"

namespace lapidary {

struct StepReport {
  int64_t step = 0;  // StepPlan::step
  absl::Duration compute = absl::ZeroDuration();
  absl::Duration transfer =
      absl::ZeroDuration();  // Moving bytes, and waiting for other ranks.
  int64_t received_bytes = 0;
  int64_t sent_bytes = 0;

  bool operator==(const StepReport&) const = default;
};

// Six 64-bit numbers, little-endian: a magic number, then the fields in their
// order, times in nanoseconds.
inline constexpr int kStepReportBytes = 48;
using StepReportBytes = std::array<char, kStepReportBytes>;

StepReportBytes EncodeStepReport(const StepReport& report);

// Errors: INVALID_ARGUMENT if it is no report, not of `step`, or if a number in
// it is negative.
absl::StatusOr<StepReport> DecodeStepReport(const StepReportBytes& bytes,
                                            int64_t step);

}  // namespace lapidary

#endif  // WORKER_ENGINE_STEP_REPORT_H_
