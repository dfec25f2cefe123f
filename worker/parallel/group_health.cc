#include "worker/parallel/group_health.h"

#include <algorithm>
#include <tuple>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "glog/logging.h"

namespace lapidary {
namespace {

std::string Seconds(absl::Duration duration) {
  return absl::StrFormat("%.1f s", absl::ToDoubleSeconds(duration));
}

}  // namespace

absl::string_view NameOf(FailureCause cause) {
  switch (cause) {
    case FailureCause::kSilent:
      return "silent";
    case FailureCause::kDisconnected:
      return "disconnected";
    case FailureCause::kMalformed:
      return "malformed";
    case FailureCause::kOverdue:
      return "overdue";
    case FailureCause::kReported:
      return "reported";
  }
  LOG(FATAL) << "no cause of a failure: " << static_cast<int>(cause);
}

std::string DescribeSilence(absl::Duration silence) {
  return absl::StrCat("no heartbeat for ", Seconds(silence));
}

GroupHealth::GroupHealth(int rank, const std::vector<Hello>& hellos,
                         const GroupHealthOptions& options, absl::Time now)
    : rank_(rank), options_(options), ranks_(hellos.size()) {
  for (const Hello& hello : hellos) {
    names_.push_back(NameOf(hello));
    Rank& other = ranks_[hello.rank];
    other.last_heard = now;
    other.watched = rank == 0 ? hello.rank != 0 : hello.rank == 0;
  }
}

void GroupHealth::OnHeartbeat(int rank, RankProgress progress, absl::Time now) {
  ranks_[rank].last_heard = now;
  ranks_[rank].progress = progress;
  if (progress.step != StepProgress::kIdle) {
    ranks_[rank].last_step = progress.step;
  }
}

void GroupHealth::OnClosed(int rank, absl::string_view why) {
  if (!ranks_[rank].watched) return;
  Fail(FailureCause::kDisconnected, rank, why);
}

void GroupHealth::OnMalformed(int rank, absl::string_view why) {
  Fail(FailureCause::kMalformed, rank, why);
}

void GroupHealth::OnLeave(int rank) { ranks_[rank].watched = false; }

void GroupHealth::OnReport(int rank, absl::string_view error, absl::Time now) {
  if (report_.has_value()) return;
  report_ = {.rank = rank, .error = std::string(error), .time = now};
}

void GroupHealth::OnAnnouncement(const GroupFailure& failure) {
  if (!failure_.has_value()) failure_ = failure;
}

void GroupHealth::OnStepBegin(int64_t step, absl::Duration limit,
                              absl::Time now) {
  step_ = {.number = step, .limit = limit, .begin = now};
}

void GroupHealth::OnStepEnd() { step_.reset(); }

std::optional<GroupFailure> GroupHealth::Decide(absl::Time now) {
  CheckLiveness(now);
  CheckStep(now);
  CheckReport(now);
  return failure_;
}

// The first cause stays.
void GroupHealth::Fail(FailureCause cause, int rank, absl::string_view what) {
  if (failure_.has_value()) return;
  failure_ = {.cause = cause,
              .message = absl::StrCat(names_[rank], ": ", what, PlaceOf(rank))};
}

// Of several silent ranks, the one that was silent first.
void GroupHealth::CheckLiveness(absl::Time now) {
  const Rank* silent = nullptr;
  for (const Rank& rank : ranks_) {
    if (!rank.watched) continue;
    if (silent == nullptr || rank.last_heard < silent->last_heard) {
      silent = &rank;
    }
  }
  if (silent == nullptr) return;
  const absl::Duration silence = now - silent->last_heard;
  if (silence < options_.liveness_timeout) return;
  Fail(FailureCause::kSilent, static_cast<int>(silent - ranks_.data()),
       DescribeSilence(silence));
}

// After the limit the collectives of the step give up as well, and their errors
// name the rank that they wait for: those may come first.
void GroupHealth::CheckStep(absl::Time now) {
  if (!step_.has_value()) return;
  if (now - step_->begin <= step_->limit + options_.report_grace) return;
  Fail(FailureCause::kOverdue, SlowestRank(),
       absl::StrCat("step ", step_->number, " takes longer than ",
                    Seconds(step_->limit)));
}

// Another rank than the leader waits for what the leader makes of it, too.
void GroupHealth::CheckReport(absl::Time now) {
  if (!report_.has_value()) return;
  const int graces = rank_ == 0 ? 1 : 2;
  if (now - report_->time < graces * options_.report_grace) return;
  Fail(FailureCause::kReported, report_->rank, report_->error);
}

// " (at step 17, layer 3)"
std::string GroupHealth::PlaceOf(int rank) const {
  const RankProgress& progress = ranks_[rank].progress;
  if (progress.step == StepProgress::kIdle) return " (idle)";
  return absl::StrCat(" (at step ", progress.step, ", layer ", progress.layer,
                      ")");
}

// Of those that have not ended the step, be it as they gave up to wait for
// another.
int GroupHealth::SlowestRank() const {
  const auto place = [&](const Rank& rank) {
    const bool ended = rank.progress.step == StepProgress::kIdle &&
                       rank.last_step >= step_->number;
    return std::tuple(ended, rank.progress.step, rank.progress.layer);
  };
  const auto slowest = std::min_element(
      ranks_.begin(), ranks_.end(),
      [&](const Rank& a, const Rank& b) { return place(a) < place(b); });
  return static_cast<int>(slowest - ranks_.begin());
}

}  // namespace lapidary
