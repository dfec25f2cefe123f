#include "worker/worker.h"

#include <filesystem>
#include <random>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "common/byte_size.h"
#include "common/deadline.h"
#include "common/status_macros.h"
#include "glog/logging.h"
#include "worker/model/model_shape.h"

namespace lapidary {
namespace {

// What open calls get to read their last messages.
constexpr absl::Duration kShutdownGrace = absl::Seconds(2);
// What a step gets to end once all requests are cancelled.
constexpr absl::Duration kAbortGrace = absl::Seconds(5);
// What the ranks get to agree on why the group fails.
constexpr absl::Duration kVerdictTimeout = absl::Seconds(4);
// What routers get to hear why the group failed.
constexpr absl::Duration kFailureGrace = absl::Milliseconds(200);

const char* NameOf(DType compute) {
  return compute == DType::kF32 ? "fp32" : "bf16";
}

uint64_t RandomEpoch() {
  std::random_device entropy;
  const uint64_t high = entropy();
  return high << 32 | entropy();
}

// "12b" of "/models/12b/".
std::string NameOfDirectory(const std::string& directory) {
  std::error_code error;
  std::filesystem::path path = std::filesystem::canonical(directory, error);
  if (error) path = directory;
  return path.filename().string();
}

}  // namespace

Worker::Worker(const WorkerOptions& options, ShutdownWaiter& waiter)
    : options_(options), waiter_(waiter), group_metrics_(metrics_registry_) {}

Worker::~Worker() = default;

absl::StatusOr<std::unique_ptr<Worker>> Worker::Start(
    const WorkerOptions& options, ShutdownWaiter& waiter) {
  std::unique_ptr<Worker> worker(new Worker(options, waiter));
  ASSIGN_OR_RETURN(worker->rank_, Rank::Start(options, worker->steady_clock_));
  const absl::Status status = worker->StartServing();
  if (status.ok()) return worker;
  // Left to the end of the process: a follower's thread may wait for ever.
  return worker.release()->Fail(status);
}

absl::Status Worker::StartServing() {
  if (rank_->rates().matmul_flops > 0) group_metrics_.SetRates(rank_->rates());
  rank_->links().Watch(rank_->progress(), [this](const GroupFailure& failure) {
    OnFailure(failure);
  });
  if (rank_->leads()) {
    StartEngine();
    RETURN_IF_ERROR(StartServer());
  } else {
    StartFollower();
  }
  // Last: it takes seconds to stop again.
  ASSIGN_OR_RETURN(metrics_page_, MetricsPage::Serve(options_.metrics_listen,
                                                     metrics_registry_));
  LOG(INFO) << "metrics at http://" << metrics_page_->address() << "/metrics";
  return WritePortFile();
}

Scheduler::Options Worker::SchedulerOptions() const {
  Scheduler::Options options = {
      .max_step_tokens = options_.step_tokens,
      .max_sequences = options_.max_sequences,
      .max_waiting = options_.max_waiting,
      .max_waiting_tokens = options_.max_waiting_tokens};
  if (options_.ranks == 1) return options;
  options.cost_model =
      CostModel(ShapeOfModel(rank_->model().config()), rank_->plan().slowest,
                {.num_ranks = options_.ranks,
                 .activation_bytes = SizeOf(options_.compute),
                 .gather_pages = rank_->gather_pages()});
  options.max_range_tokens = options_.round_tokens;
  options.replica_pages = rank_->pages().replica;
  options.inter_token_deadline = options_.inter_token_deadline;
  return options;
}

void Worker::StartEngine() {
  const GemmaConfig& config = rank_->model().config();
  metrics_ = std::make_unique<WorkerMetrics>(metrics_registry_);
  leader_ = std::make_unique<GroupLeader>(rank_->parts());
  engine_ = std::make_unique<Engine>(
      Engine::Options{.scheduler = SchedulerOptions(),
                      .cache = {.num_ranks = options_.ranks,
                                .global_pages_per_rank = rank_->pages().global,
                                .window_pages = rank_->pages().window,
                                .window = config.window},
                      .vocab_size = config.vocab_size},
      [this](const StepPlan& plan) {
        absl::StatusOr<StepResult> result = leader_->Run(plan);
        const Collective& collective = rank_->links().collective();
        group_metrics_.CountTransfers(collective.counters());
        group_metrics_.SetExchangeMemory(collective.memory_bytes());
        return result;
      },
      clock_,
      Engine::Outlets{.metrics = *metrics_,
                      .group_metrics = group_metrics_,
                      .board = board_},
      [this] {
        const absl::Status stopped = leader_->Stop();
        LOG_IF(WARNING, !stopped.ok())
            << "the other ranks were not told to stop: " << stopped.message();
        waiter_.Wake();
      });
}

absl::Status Worker::StartServer() {
  LoadedModel& model = rank_->model();
  const PageBytes page_bytes = model.page_bytes(options_.ranks);
  std::vector<RankDescription> ranks;
  for (const RankReport& report : rank_->reports()) {
    ranks.push_back({.host = report.host, .device = report.device});
  }
  GroupDescription group = {
      .epoch = RandomEpoch(),
      .model_name = NameOfDirectory(options_.model),
      .model_type = model.config().model_type,
      .config_digest = rank_->digests().config,
      .tokenizer_digest = rank_->digests().tokenizer,
      .vocab_size = model.config().vocab_size,
      .max_context_tokens = rank_->plan().memory.max_sequence_tokens,
      .compute = NameOf(options_.compute),
      .device = model.backend().Description(),
      .global_page_bytes = page_bytes.global,
      .window_page_bytes = page_bytes.window,
      .ranks = std::move(ranks),
      .replica_bytes = rank_->pages().replica * page_bytes.global,
      .gather_bytes = options_.ranks > 1 ? options_.gather_memory : 0};
  ASSIGN_OR_RETURN(server_, WorkerServer::Start({.listen = options_.listen,
                                                 .max_message_bytes =
                                                     options_.max_message_bytes,
                                                 .group = std::move(group)},
                                                *engine_, board_, *metrics_));
  LOG(INFO) << "rpc at " << server_->address();
  return absl::OkStatus();
}

void Worker::StartFollower() {
  follower_ =
      std::make_unique<Follower>(rank_->parts(), rank_->limits(),
                                 group_metrics_, [this] { waiter_.Wake(); });
}

absl::Status Worker::WritePortFile() const {
  if (options_.port_file.empty()) return absl::OkStatus();
  const std::string rpc =
      server_ == nullptr ? "" : absl::StrCat("rpc ", server_->address(), "\n");
  return WriteFileAtomically(
      options_.port_file,
      absl::StrCat(rpc, "metrics ", metrics_page_->address(), "\n"));
}

absl::Status Worker::Serve() {
  const auto reason = waiter_.Wait(absl::InfiniteDuration());
  absl::Status status;
  if (reason == ShutdownWaiter::Reason::kSignal) {
    status = rank_->leads() ? FinishInTime() : AwaitLeader();
  }
  // Woken: by the engine's end, or by the watchdog.
  if (status.ok() && !failure().has_value()) status = JoinEngine();
  if (!status.ok() || failure().has_value()) return Fail(status);
  rank_->links().StopWatching();
  if (server_ != nullptr) server_->Shutdown(kShutdownGrace);
  LOG(INFO) << "stopped; peak resident memory "
            << FormatByteSize(PeakResidentBytes());
  return absl::OkStatus();
}

absl::Status Worker::JoinEngine() {
  return engine_ != nullptr ? engine_->Join() : follower_->Join();
}

absl::Status Worker::FinishInTime() {
  LOG(INFO) << "draining: "
            << board_.state().load.running + board_.state().load.waiting
            << " requests have " << options_.drain_timeout << " to finish";
  engine_->Drain();
  if (waiter_.Wait(options_.drain_timeout) == ShutdownWaiter::Reason::kWoken) {
    return absl::OkStatus();
  }
  LOG(WARNING) << "cancelling "
               << board_.state().load.running + board_.state().load.waiting
               << " requests";
  engine_->Abort();
  if (waiter_.Wait(kAbortGrace) == ShutdownWaiter::Reason::kWoken) {
    return absl::OkStatus();
  }
  return absl::DeadlineExceededError(
      absl::StrCat("a step did not end within ",
                   absl::FormatDuration(kAbortGrace), " of the shutdown"));
}

// Where all ranks are told to stop together, the leader drains and then stops
// this one.  After a second signal nothing is waited for.
absl::Status Worker::AwaitLeader() {
  const absl::Duration longest = options_.drain_timeout + 2 * kAbortGrace;
  LOG(INFO) << "stopping once the leader stops, within " << longest;
  if (waiter_.Wait(longest) == ShutdownWaiter::Reason::kWoken) {
    return absl::OkStatus();
  }
  return absl::CancelledError("told to stop, before the leader did");
}

void Worker::OnFailure(const GroupFailure& failure) {
  {
    MutexLock lock(mutex_);
    failure_ = failure;
  }
  waiter_.Wake();
}

std::optional<GroupFailure> Worker::failure() const {
  MutexLock lock(mutex_);
  return failure_;
}

absl::Status Worker::Fail(const absl::Status& error) {
  GroupFailure failure = {.message = std::string(error.message())};
  if (options_.ranks > 1 && !error.ok()) {
    rank_->links().watchdog()->Report(error);
    AwaitVerdict(kVerdictTimeout);
  }
  failure = this->failure().value_or(failure);
  board_.PublishFailure(failure.message, std::string(NameOf(failure.cause)));
  if (server_ != nullptr) {
    const Deadline deadline = Deadline::In(kFailureGrace);
    while (waiter_.Wait(deadline.left()) != ShutdownWaiter::Reason::kTimeout) {
    }
  }
  return absl::UnavailableError(failure.message);
}

void Worker::AwaitVerdict(absl::Duration timeout) {
  const Deadline deadline = Deadline::In(timeout);
  while (!failure().has_value() && !deadline.has_passed()) {
    waiter_.Wait(deadline.left());
  }
}

}  // namespace lapidary
