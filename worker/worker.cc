#include "worker/worker.h"

#include <algorithm>
#include <filesystem>
#include <random>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "common/byte_size.h"
#include "common/model_files.h"
#include "common/status_macros.h"
#include "common/version.h"
#include "glog/logging.h"
#include "worker/loader/memory_check.h"

namespace lapidary {
namespace {

// What open calls get to read their last messages.
constexpr absl::Duration kShutdownGrace = absl::Seconds(2);
// What a step gets to end once all requests are cancelled.
constexpr absl::Duration kAbortGrace = absl::Seconds(5);

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
    : options_(options), waiter_(waiter), metrics_(metrics_registry_) {}

Worker::~Worker() = default;

absl::StatusOr<std::unique_ptr<Worker>> Worker::Start(
    const WorkerOptions& options, ShutdownWaiter& waiter) {
  RETURN_IF_ERROR(options.Validate());
  LOG(INFO) << "lapidary worker " << kVersion << ": model " << options.model;
  std::unique_ptr<Worker> worker(new Worker(options, waiter));
  RETURN_IF_ERROR(worker->LoadModel());
  RETURN_IF_ERROR(worker->PlanKvMemory());
  worker->StartEngine();
  RETURN_IF_ERROR(worker->StartServer());
  RETURN_IF_ERROR(worker->WritePortFile());
  return worker;
}

absl::Status Worker::LoadModel() {
  ASSIGN_OR_RETURN(const int64_t available, AvailableMemory());
  LOG(INFO) << "memory: " << FormatByteSize(available) << " available, "
            << (options_.kv_memory > 0
                    ? FormatByteSize(options_.kv_memory)
                    : std::string("half of what the weights leave"))
            << " for keys and values";
  ASSIGN_OR_RETURN(
      model_, LoadedModel::Load(
                  {.model_dir = options_.model,
                   .image_dir = options_.image_dir,
                   .compute = options_.compute,
                   .cpu = {.threads = options_.threads, .isa = options_.isa},
                   .max_step_tokens = options_.step_tokens,
                   .max_logit_rows =
                       std::min(options_.max_sequences, options_.step_tokens),
                   .extra_memory_bytes = options_.kv_memory}));
  const GemmaConfig& config = model_->config();
  const LoadStatistics& statistics = model_->statistics();
  LOG(INFO) << config.model_type << ": " << config.num_layers()
            << " layers, hidden size " << config.hidden_size << ", "
            << config.num_heads << " heads, window " << config.window
            << ", vocabulary " << config.vocab_size << ", context "
            << config.max_context_tokens << " tokens";
  LOG(INFO) << "weights: " << FormatByteSize(statistics.image.image_bytes)
            << (statistics.image.built ? " packed in " : " mapped in ")
            << (statistics.image.built ? statistics.image.pack_time
                                       : statistics.image.map_time)
            << ", loaded in " << statistics.load_time << "; "
            << statistics.num_files << " files, "
            << statistics.num_ignored_tensors << " tensors not used";
  if (!statistics.image.damage.empty()) {
    LOG(WARNING) << "a damaged image was packed again: "
                 << statistics.image.damage;
  }
  LOG(INFO) << "device: " << model_->backend().Description() << ", "
            << NameOf(options_.compute);
  return absl::OkStatus();
}

absl::Status Worker::PlanKvMemory() {
  int64_t kv_memory = options_.kv_memory;
  if (kv_memory == 0) {
    ASSIGN_OR_RETURN(const int64_t available, AvailableMemory());
    const int64_t weights = model_->statistics().image.image_bytes;
    kv_memory = std::max<int64_t>(0, available - weights) / 2;
  }
  const GemmaConfig& config = model_->config();
  const PageBytes page_bytes = model_->page_bytes();
  ASSIGN_OR_RETURN(
      plan_, PlanMemory({.kv_memory_bytes = kv_memory,
                         .global_page_bytes = page_bytes.global,
                         .window_page_bytes = page_bytes.window,
                         .num_ranks = 1,
                         .window = config.window,
                         .max_sequences = options_.max_sequences,
                         .max_step_tokens = options_.step_tokens,
                         .max_context_tokens = config.max_context_tokens}));
  RETURN_IF_ERROR(
      model_->Allocate({.global = plan_.global_pages_per_rank,
                        .window = plan_.window_pages}));
  LOG(INFO) << "plan: "
            << FormatByteSize(model_->statistics().image.image_bytes)
            << " of weights, " << plan_.Summary();
  LOG(INFO) << "peak resident memory so far: "
            << FormatByteSize(PeakResidentBytes());
  return absl::OkStatus();
}

void Worker::StartEngine() {
  const GemmaConfig& config = model_->config();
  engine_ = std::make_unique<Engine>(
      Engine::Options{
          .scheduler = {.max_step_tokens = options_.step_tokens,
                        .max_sequences = options_.max_sequences,
                        .max_waiting = options_.max_waiting,
                        .max_waiting_tokens = options_.max_waiting_tokens},
          .cache = {.num_ranks = 1,
                    .global_pages_per_rank = plan_.global_pages_per_rank,
                    .window_pages = plan_.window_pages,
                    .window = config.window},
          .vocab_size = config.vocab_size},
      [this](const StepPlan& plan) { return model_->gemma().Forward(plan); },
      clock_, metrics_, board_, [this] { waiter_.Wake(); });
}

absl::Status Worker::StartServer() {
  const GemmaConfig& config = model_->config();
  const PageBytes page_bytes = model_->page_bytes();
  ASSIGN_OR_RETURN(const ModelDigests digests,
                   DigestModelFiles(options_.model));
  const GroupDescription group = {
      .epoch = RandomEpoch(),
      .model_name = NameOfDirectory(options_.model),
      .model_type = config.model_type,
      .config_digest = digests.config,
      .tokenizer_digest = digests.tokenizer,
      .vocab_size = config.vocab_size,
      .max_context_tokens = plan_.max_sequence_tokens,
      .ranks = 1,
      .compute = NameOf(options_.compute),
      .device = model_->backend().Description(),
      .global_page_bytes = page_bytes.global,
      .window_page_bytes = page_bytes.window};
  LOG(INFO) << "digests: config " << digests.config << ", tokenizer "
            << digests.tokenizer;
  ASSIGN_OR_RETURN(server_, WorkerServer::Start({.listen = options_.listen,
                                                 .max_message_bytes =
                                                     options_.max_message_bytes,
                                                 .group = group},
                                                *engine_, board_, metrics_));
  // Last: it takes seconds to stop again.
  ASSIGN_OR_RETURN(metrics_page_, MetricsPage::Serve(options_.metrics_listen,
                                                     metrics_registry_));
  LOG(INFO) << "rpc at " << server_->address() << ", metrics at http://"
            << metrics_page_->address() << "/metrics";
  return absl::OkStatus();
}

absl::Status Worker::WritePortFile() const {
  if (options_.port_file.empty()) return absl::OkStatus();
  return WriteFileAtomically(
      options_.port_file, absl::StrCat("rpc ", server_->address(), "\nmetrics ",
                                       metrics_page_->address(), "\n"));
}

absl::Status Worker::Serve() {
  const auto reason = waiter_.Wait(absl::InfiniteDuration());
  if (reason == ShutdownWaiter::Reason::kSignal && !FinishInTime()) {
    return absl::DeadlineExceededError(
        absl::StrCat("a step did not end within ",
                     absl::FormatDuration(kAbortGrace), " of the shutdown"));
  }
  const absl::Status status = engine_->Join();
  server_->Shutdown(kShutdownGrace);
  LOG(INFO) << "stopped; peak resident memory "
            << FormatByteSize(PeakResidentBytes());
  return status;
}

bool Worker::FinishInTime() {
  LOG(INFO) << "draining: "
            << board_.state().load.running + board_.state().load.waiting
            << " requests have " << options_.drain_timeout << " to finish";
  engine_->Drain();
  if (waiter_.Wait(options_.drain_timeout) == ShutdownWaiter::Reason::kWoken) {
    return true;
  }
  LOG(WARNING) << "cancelling "
               << board_.state().load.running + board_.state().load.waiting
               << " requests";
  engine_->Abort();
  return waiter_.Wait(kAbortGrace) == ShutdownWaiter::Reason::kWoken;
}

}  // namespace lapidary
