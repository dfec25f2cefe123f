#include "worker/parallel/watchdog.h"

#include <poll.h>
#include <pthread.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <optional>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "common/deadline.h"
#include "common/mutex.h"
#include "common/steady_time.h"
#include "glog/logging.h"
#include "worker/parallel/frame_connection.h"
#include "worker/parallel/wire.h"

namespace lapidary {
namespace {

// How often it looks at its deadlines.
constexpr absl::Duration kLookPeriod = absl::Milliseconds(100);

// How long a rank waits for the others to take its last frame: they end their
// side when they have it.
constexpr absl::Duration kFarewell = absl::Seconds(1);

std::string EncodeProgress(const RankProgress& progress) {
  WireWriter writer;
  writer.PutInt(progress.step);
  writer.PutInt(progress.layer);
  return writer.bytes();
}

std::optional<RankProgress> DecodeProgress(absl::string_view bytes) {
  if (bytes.empty()) return RankProgress();
  WireReader reader(bytes);
  RankProgress progress;
  progress.step = reader.Int();
  progress.layer = static_cast<int>(reader.Int());
  if (!reader.done()) return std::nullopt;
  return progress;
}

std::string EncodeFailure(const GroupFailure& failure) {
  WireWriter writer;
  writer.PutInt(static_cast<int64_t>(failure.cause));
  writer.PutString(failure.message);
  return writer.bytes();
}

std::optional<GroupFailure> DecodeFailure(absl::string_view bytes) {
  WireReader reader(bytes);
  GroupFailure failure;
  failure.cause =
      static_cast<FailureCause>(reader.Count(kNumFailureCauses - 1));
  failure.message = reader.String();
  if (!reader.done()) return std::nullopt;
  return failure;
}

}  // namespace

// What the thread does.
class Watchdog::Loop {
 public:
  Loop(std::unique_ptr<ControlChannel> channel, const StepProgress& progress,
       const GroupHealthOptions& options, OnFailure on_failure)
      : channel_(std::move(channel)),
        progress_(progress),
        options_(options),
        on_failure_(std::move(on_failure)),
        wakes_(eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC)),
        health_(channel_->rank(), channel_->hellos(), options, SteadyNow()),
        next_heartbeat_(SteadyNow()) {
    PCHECK(wakes_ >= 0);
    for (int rank = 0; rank < channel_->size(); ++rank) {
      if (channel_->connection(rank) != nullptr) open_.push_back(rank);
    }
  }
  ~Loop() { close(wakes_); }

  // Until a failure, or what the owner asks for.
  void Run();

  // Any thread.
  void BeginStep(int64_t step, absl::Duration limit) {
    MutexLock lock(mutex_);
    step_ = {.number = step, .limit = limit, .begin = SteadyNow()};
  }
  void EndStep() {
    MutexLock lock(mutex_);
    step_.reset();
  }
  void Report(const absl::Status& error) {
    MutexLock lock(mutex_);
    if (!report_.has_value()) report_ = std::string(error.message());
    Wake();
  }
  void Leave() { End(Ending::kLeave); }
  void Stop() { End(Ending::kStop); }

 private:
  enum class Ending { kNone, kLeave, kStop };

  struct Step {
    int64_t number;
    absl::Duration limit;
    absl::Time begin;
  };

  void End(Ending ending) {
    MutexLock lock(mutex_);
    // The first stands: a destructor after a Leave() changes nothing.
    if (ending_ == Ending::kNone) ending_ = ending;
    Wake();
  }
  void Wake() const {
    const uint64_t one = 1;
    // It fails only where it is woken already.
    [[maybe_unused]] const ssize_t count = write(wakes_, &one, sizeof(one));
  }

  void WaitForEvents(Deadline deadline);
  Ending TakeRequests(absl::Time now);
  void Hear(absl::Time now);
  // Whether the connection to `rank` stays open.
  bool HearFrom(int rank, absl::Time now);
  bool Take(int rank, const Frame& frame, absl::Time now);
  void BeatHeart(absl::Time now);
  void SendToAll(FrameType type, const std::string& payload);
  void Announce(const GroupFailure& failure);
  void SayFarewell();

  const std::unique_ptr<ControlChannel> channel_;
  const StepProgress& progress_;
  const GroupHealthOptions options_;
  const OnFailure on_failure_;
  const int wakes_;  // eventfd

  // Of the thread.
  GroupHealth health_;
  absl::Time next_heartbeat_;
  std::vector<int> open_;  // Ranks whose connections are open.

  Mutex mutex_;
  std::optional<Step> step_ ABSL_GUARDED_BY(mutex_);
  std::optional<std::string> report_ ABSL_GUARDED_BY(mutex_);
  Ending ending_ ABSL_GUARDED_BY(mutex_) = Ending::kNone;
};

void Watchdog::Loop::Run() {
  while (true) {
    WaitForEvents(Deadline::In(kLookPeriod));
    const absl::Time now = SteadyNow();
    Hear(now);
    switch (TakeRequests(now)) {
      case Ending::kNone:
        break;
      case Ending::kLeave:
        SendToAll(FrameType::kLeave, "");
        SayFarewell();
        return;
      case Ending::kStop:
        return;
    }
    BeatHeart(now);
    if (const auto failure = health_.Decide(now); failure.has_value()) {
      if (channel_->leads()) Announce(*failure);
      on_failure_(*failure);
      return;
    }
  }
}

void Watchdog::Loop::WaitForEvents(Deadline deadline) {
  std::vector<pollfd> events = {{wakes_, POLLIN, 0}};
  for (const int rank : open_) {
    const FrameConnection& connection = *channel_->connection(rank);
    const short wanted = connection.has_unsent() ? POLLIN | POLLOUT : POLLIN;
    events.push_back({connection.socket().fd(), wanted, 0});
  }
  poll(events.data(), events.size(), deadline.PollTimeout());
  uint64_t count = 0;
  // Nobody has woken it, mostly.
  [[maybe_unused]] const ssize_t size = read(wakes_, &count, sizeof(count));
}

Watchdog::Loop::Ending Watchdog::Loop::TakeRequests(absl::Time now) {
  std::optional<std::string> report;
  Ending ending;
  {
    MutexLock lock(mutex_);
    if (step_.has_value()) {
      health_.OnStepBegin(step_->number, step_->limit, step_->begin);
    } else {
      health_.OnStepEnd();
    }
    report = std::exchange(report_, std::nullopt);
    ending = ending_;
  }
  if (report.has_value()) {
    health_.OnReport(channel_->rank(), *report, now);
    if (!channel_->leads()) SendToAll(FrameType::kReport, *report);
  }
  return ending;
}

void Watchdog::Loop::Hear(absl::Time now) {
  std::erase_if(open_, [&](int rank) { return !HearFrom(rank, now); });
}

bool Watchdog::Loop::HearFrom(int rank, absl::Time now) {
  FrameConnection& connection = *channel_->connection(rank);
  while (true) {
    const absl::StatusOr<std::optional<Frame>> frame = connection.Next();
    if (absl::IsUnavailable(frame.status())) {
      health_.OnClosed(rank, frame.status().message());
      return false;
    }
    if (!frame.ok()) {
      health_.OnMalformed(rank, frame.status().message());
      return false;
    }
    if (!frame->has_value()) return true;
    if ((*frame)->type == FrameType::kLeave) {
      health_.OnLeave(rank);
      connection.EndSending();  // That rank waits for it.
      return false;
    }
    if (!Take(rank, **frame, now)) {
      health_.OnMalformed(rank, "it sent a malformed frame");
      return false;
    }
  }
}

// Whether the frame is one that this rank may get from that.
bool Watchdog::Loop::Take(int rank, const Frame& frame, absl::Time now) {
  switch (frame.type) {
    case FrameType::kHeartbeat: {
      const auto progress = DecodeProgress(frame.payload);
      if (progress.has_value()) health_.OnHeartbeat(rank, *progress, now);
      return progress.has_value();
    }
    case FrameType::kReport:
      health_.OnReport(rank, frame.payload, now);
      return channel_->leads();
    case FrameType::kFailure: {
      const auto failure = DecodeFailure(frame.payload);
      if (failure.has_value()) health_.OnAnnouncement(*failure);
      return failure.has_value() && rank == 0;
    }
    default:
      return false;
  }
}

void Watchdog::Loop::BeatHeart(absl::Time now) {
  const RankProgress progress = {.step = progress_.step,
                                 .layer = progress_.layer};
  health_.OnHeartbeat(channel_->rank(), progress, now);
  if (now < next_heartbeat_) return;
  next_heartbeat_ = now + options_.heartbeat_period;
  SendToAll(FrameType::kHeartbeat, EncodeProgress(progress));
}

// An error shows again, when the connection is read.
void Watchdog::Loop::SendToAll(FrameType type, const std::string& payload) {
  for (const int rank : open_) {
    channel_->connection(rank)->Send(type, payload).IgnoreError();
  }
}

void Watchdog::Loop::Announce(const GroupFailure& failure) {
  SendToAll(FrameType::kFailure, EncodeFailure(failure));
  SayFarewell();
}

// A connection that is closed before what came over it has been read may lose
// what was sent over it.
void Watchdog::Loop::SayFarewell() {
  const Deadline end = Deadline::In(kFarewell);
  while (!open_.empty() && !end.has_passed()) {
    WaitForEvents(std::min(end, Deadline::In(kLookPeriod)));
    std::erase_if(open_, [&](int rank) {
      FrameConnection& connection = *channel_->connection(rank);
      absl::StatusOr<std::optional<Frame>> frame = connection.Next();
      while (frame.ok() && frame->has_value()) frame = connection.Next();
      return !frame.ok() || !connection.Flush().ok();
    });
  }
}

Watchdog::Watchdog(std::unique_ptr<ControlChannel> channel,
                   const StepProgress& progress,
                   const GroupHealthOptions& options, OnFailure on_failure) {
  if (channel->size() == 1) return;
  loop_ = std::make_unique<Loop>(std::move(channel), progress, options,
                                 std::move(on_failure));
  thread_ = std::thread([this] { loop_->Run(); });
  pthread_setname_np(thread_.native_handle(), "watchdog");
}

Watchdog::~Watchdog() {
  if (loop_ == nullptr) return;
  loop_->Stop();
  thread_.join();
}

void Watchdog::BeginStep(int64_t step, absl::Duration limit) {
  if (loop_ != nullptr) loop_->BeginStep(step, limit);
}

void Watchdog::EndStep() {
  if (loop_ != nullptr) loop_->EndStep();
}

void Watchdog::Report(const absl::Status& error) {
  if (loop_ != nullptr) loop_->Report(error);
}

void Watchdog::Leave() {
  if (loop_ == nullptr) return;
  loop_->Leave();
}

}  // namespace lapidary
