#include "worker/engine/step_report.h"

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"

namespace lapidary {
namespace {

constexpr int64_t kMagic = 0x317472706552504c;  // "LPReprt1"

void Put(int64_t value, int index, StepReportBytes& bytes) {
  for (int i = 0; i < 8; ++i) {
    bytes[8 * index + i] =
        static_cast<char>(static_cast<uint64_t>(value) >> (8 * i) & 0xff);
  }
}

int64_t Get(const StepReportBytes& bytes, int index) {
  uint64_t value = 0;
  for (int i = 0; i < 8; ++i) {
    const auto byte = static_cast<unsigned char>(bytes[8 * index + i]);
    value |= uint64_t{byte} << (8 * i);
  }
  return static_cast<int64_t>(value);
}

}  // namespace

StepReportBytes EncodeStepReport(const StepReport& report) {
  StepReportBytes bytes;
  Put(kMagic, 0, bytes);
  Put(report.step, 1, bytes);
  Put(absl::ToInt64Nanoseconds(report.compute), 2, bytes);
  Put(absl::ToInt64Nanoseconds(report.transfer), 3, bytes);
  Put(report.received_bytes, 4, bytes);
  Put(report.sent_bytes, 5, bytes);
  return bytes;
}

absl::StatusOr<StepReport> DecodeStepReport(const StepReportBytes& bytes,
                                            int64_t step) {
  if (Get(bytes, 0) != kMagic) {
    return absl::InvalidArgumentError("what it sent is no step report");
  }
  if (Get(bytes, 1) != step) {
    return absl::InvalidArgumentError(absl::StrCat(
        "expected a report of step ", step, ", got one of ", Get(bytes, 1)));
  }
  for (int i = 2; i < 6; ++i) {
    if (Get(bytes, i) < 0) {
      return absl::InvalidArgumentError(absl::StrCat(
          "a number of its report of step ", step, " is ", Get(bytes, i)));
    }
  }
  return StepReport{.step = step,
                    .compute = absl::Nanoseconds(Get(bytes, 2)),
                    .transfer = absl::Nanoseconds(Get(bytes, 3)),
                    .received_bytes = Get(bytes, 4),
                    .sent_bytes = Get(bytes, 5)};
}

}  // namespace lapidary
