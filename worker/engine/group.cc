#include "worker/engine/group.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/deadline.h"
#include "common/status_macros.h"
#include "glog/logging.h"
#include "worker/parallel/collective_ops.h"

namespace lapidary {
namespace {

// frame = magic:u32 kind:u32 size:u64 payload
//
// The first message of a frame has a fixed size: it takes a whole plan of a few
// streams.  A second one takes what is left of the payload.
constexpr uint32_t kFrameMagic = 0x31465047;  // "GPF1"
constexpr size_t kFirstBytes = 4096;

enum class FrameKind : uint32_t { kStep = 1, kStop = 2 };

struct FrameHeader {
  uint32_t magic = kFrameMagic;
  FrameKind kind = FrameKind::kStep;
  uint64_t size = 0;
};
constexpr size_t kFirstPayload = kFirstBytes - sizeof(FrameHeader);

// Bytes as a tensor, to be moved only.
//
// REQUIRES: `size` is a multiple of 4.
Tensor BytesTensor(void* data, size_t size) {
  const int cols = static_cast<int>(size / sizeof(float));
  return {data, DType::kF32, 1, cols, cols};
}

size_t RoundUp(size_t size) { return (size + 3) / 4 * 4; }

absl::Status SendFrame(Collective& collective, FrameKind kind,
                       std::string payload) {
  if (static_cast<int64_t>(payload.size()) > kMaxPlanBytes) {
    return absl::InternalError(absl::StrCat("a step plan has ", payload.size(),
                                            " bytes, at most ", kMaxPlanBytes));
  }
  alignas(float) std::array<char, kFirstBytes> first = {};
  const FrameHeader header = {.kind = kind, .size = payload.size()};
  const size_t in_first = std::min(payload.size(), kFirstPayload);
  std::memcpy(first.data(), &header, sizeof(header));
  std::memcpy(first.data() + sizeof(header), payload.data(), in_first);
  RETURN_IF_ERROR(Broadcast(collective, Traffic::kControl, /*root=*/0,
                            BytesTensor(first.data(), first.size())));
  payload.erase(0, in_first);
  if (payload.empty()) return absl::OkStatus();
  payload.resize(RoundUp(payload.size()));
  return Broadcast(collective, Traffic::kControl, /*root=*/0,
                   BytesTensor(payload.data(), payload.size()));
}

struct Frame {
  FrameKind kind;
  std::string payload;
};

absl::StatusOr<FrameHeader> CheckedHeader(const char* bytes) {
  FrameHeader header;
  std::memcpy(&header, bytes, sizeof(header));
  const bool known =
      header.kind == FrameKind::kStep || header.kind == FrameKind::kStop;
  if (header.magic != kFrameMagic || !known ||
      header.size > static_cast<uint64_t>(kMaxPlanBytes)) {
    return absl::InvalidArgumentError("rank 0: what it sent is no frame");
  }
  return header;
}

// Waits for its first message for ever.
absl::StatusOr<Frame> ReceiveFrame(Collective& collective) {
  alignas(float) std::array<char, kFirstBytes> first;
  collective.SetDeadline(Deadline::Never());
  RETURN_IF_ERROR(Broadcast(collective, Traffic::kControl, /*root=*/0,
                            BytesTensor(first.data(), first.size())));
  ASSIGN_OR_RETURN(const FrameHeader header, CheckedHeader(first.data()));
  Frame frame = {.kind = header.kind, .payload = std::string()};
  const size_t in_first = std::min<size_t>(header.size, kFirstPayload);
  frame.payload.resize(in_first + RoundUp(header.size - in_first));
  std::memcpy(frame.payload.data(), first.data() + sizeof(header), in_first);
  if (frame.payload.size() > in_first) {
    collective.SetDeadline(Deadline::In(StepTimeLimit(absl::ZeroDuration())));
    RETURN_IF_ERROR(Broadcast(collective, Traffic::kControl, /*root=*/0,
                              BytesTensor(frame.payload.data() + in_first,
                                          frame.payload.size() - in_first)));
  }
  frame.payload.resize(header.size);
  return frame;
}

// All ranks are told to stop before one of them goes: one that is gone would
// be missed by another that still waits for a frame.  When it has failed, they
// go as well.
void AwaitAllStopping(Collective& collective) {
  collective.SetDeadline(Deadline::In(StepTimeLimit(absl::ZeroDuration())));
  std::vector<float> stopping(collective.size());
  const Tensor all = {stopping.data(), DType::kF32, collective.size(), 1, 1};
  AllGather(collective, Traffic::kControl, all.Rows(collective.rank(), 1), all)
      .IgnoreError();
}

// Says that a step runs, and what this rank does in it once it has the plan.
class StepWatch {
 public:
  StepWatch(const StepPlan& plan, const RankParts& parts)
      : step_(plan.step), parts_(parts), start_(parts.clock.Now()) {
    const absl::Duration limit = StepTimeLimit(plan.planned_time);
    parts_.progress.layer = 0;
    parts_.progress.step = step_;
    if (parts_.on_step_begin) parts_.on_step_begin(step_, limit);
    parts_.collective.SetDeadline(Deadline::In(limit));
  }
  ~StepWatch() {
    parts_.progress.step = StepProgress::kIdle;
    if (parts_.on_step_end) parts_.on_step_end();
  }

  StepWatch(const StepWatch&) = delete;
  StepWatch& operator=(const StepWatch&) = delete;

  // The plan is here.
  void Begin() {
    start_ = parts_.clock.Now();
    before_ = parts_.collective.counters().Total();
  }

  StepReport Report() const {
    const TransferCount after = parts_.collective.counters().Total();
    const absl::Duration transfer = after.time - before_.time;
    const absl::Duration total = parts_.clock.Now() - start_;
    return {.step = step_,
            .compute = std::max(absl::ZeroDuration(), total - transfer),
            .transfer = std::max(absl::ZeroDuration(), transfer),
            .received_bytes = after.bytes_received - before_.bytes_received,
            .sent_bytes = after.bytes_sent - before_.bytes_sent};
  }

 private:
  const int64_t step_;
  const RankParts& parts_;
  absl::Time start_;
  TransferCount before_;
};

}  // namespace

absl::Duration StepTimeLimit(absl::Duration planned) {
  return std::max(kLeastStepTime, kStepTimeFactor * planned);
}

GroupLeader::GroupLeader(RankParts parts)
    : parts_(std::move(parts)),
      reports_(parts_.collective.size()),
      report_bytes_(parts_.collective.size()) {
  CHECK_EQ(parts_.collective.rank(), 0);
}

absl::StatusOr<StepResult> GroupLeader::Run(const StepPlan& plan) {
  absl::StatusOr<StepResult> result = RunStep(plan);
  if (!result.ok()) failure_ = result.status();
  return result;
}

absl::StatusOr<StepResult> GroupLeader::RunStep(const StepPlan& plan) {
  const absl::Time start = parts_.clock.Now();
  paced_ = plan;
  paced_.planned_time *= pace_.slowdown();
  StepWatch watch(paced_, parts_);
  if (parts_.collective.size() > 1) {
    RETURN_IF_ERROR(
        SendFrame(parts_.collective, FrameKind::kStep, EncodeStepPlan(paced_)));
  }
  watch.Begin();
  ASSIGN_OR_RETURN(const Tensor logits, parts_.forward(plan));
  RETURN_IF_ERROR(CollectReports(watch.Report()));
  pace_.Add(plan.planned_time, parts_.clock.Now() - start);
  return StepResult{.logits = logits, .reports = reports_};
}

absl::Status GroupLeader::CollectReports(const StepReport& ours) {
  reports_[0] = ours;
  report_bytes_[0] = EncodeStepReport(ours);
  Tensor all = BytesTensor(report_bytes_.data(),
                           report_bytes_.size() * kStepReportBytes);
  all.rows = parts_.collective.size();
  all.cols /= all.rows;
  all.stride = all.cols;
  RETURN_IF_ERROR(Gather(parts_.collective, Traffic::kControl, /*root=*/0,
                         all.Rows(0, 1), all));
  for (int rank = 1; rank < all.rows; ++rank) {
    absl::StatusOr<StepReport> report =
        DecodeStepReport(report_bytes_[rank], ours.step);
    if (!report.ok()) {
      return absl::Status(
          report.status().code(),
          absl::StrCat("rank ", rank, ": ", report.status().message()));
    }
    reports_[rank] = *report;
  }
  return absl::OkStatus();
}

absl::Status GroupLeader::Stop() {
  if (!failure_.ok() || parts_.collective.size() == 1) return absl::OkStatus();
  parts_.collective.SetDeadline(
      Deadline::In(StepTimeLimit(absl::ZeroDuration())));
  RETURN_IF_ERROR(SendFrame(parts_.collective, FrameKind::kStop, ""));
  AwaitAllStopping(parts_.collective);
  return absl::OkStatus();
}

absl::Status Follow(
    const RankParts& parts, const PlanLimits& limits,
    const std::function<void(const StepPlan&, const StepReport&)>& on_step) {
  for (;;) {
    ASSIGN_OR_RETURN(const Frame frame, ReceiveFrame(parts.collective));
    if (frame.kind == FrameKind::kStop) {
      AwaitAllStopping(parts.collective);
      return absl::OkStatus();
    }
    ASSIGN_OR_RETURN(const StepPlan plan,
                     DecodeStepPlan(frame.payload, limits));
    StepWatch watch(plan, parts);
    watch.Begin();
    RETURN_IF_ERROR(parts.forward(plan).status());
    const StepReport report = watch.Report();
    StepReportBytes bytes = EncodeStepReport(report);
    RETURN_IF_ERROR(Gather(parts.collective, Traffic::kControl, /*root=*/0,
                           BytesTensor(bytes.data(), bytes.size()), Tensor()));
    on_step(plan, report);
  }
}

}  // namespace lapidary
