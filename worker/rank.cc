#include "worker/rank.h"

#include <algorithm>
#include <cstdint>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "common/byte_size.h"
#include "common/deadline.h"
#include "common/process.h"
#include "common/read_file.h"
#include "common/status_macros.h"
#include "common/tokens.h"
#include "common/version.h"
#include "glog/logging.h"
#include "worker/engine/link_probe.h"
#include "worker/loader/memory_check.h"
#include "worker/model/model_shape.h"
#include "worker/model/rank_weights.h"
#include "worker/model/rate_probe.h"
#include "worker/weights_digest.h"

namespace lapidary {
namespace {

// What the slowest rank gets to pack or read its weights.
constexpr absl::Duration kLoadTimeout = absl::Hours(1);
// What another process gets of that to pack the same weights; the rest is for
// the error to come to all ranks.
constexpr absl::Duration kImageLockTimeout = absl::Minutes(50);
// What the ranks get for the steps of start-up that take a second or less.
constexpr absl::Duration kStageTimeout = absl::Seconds(60);

const char* NameOf(DType compute) {
  return compute == DType::kF32 ? "fp32" : "bf16";
}

}  // namespace

absl::StatusOr<std::unique_ptr<Rank>> Rank::Start(const WorkerOptions& options,
                                                  Clock& clock) {
  RETURN_IF_ERROR(options.Validate());
  LOG(INFO) << "lapidary worker " << kVersion << ": model " << options.model
            << ", rank " << options.rank << " of " << options.ranks;
  std::unique_ptr<Rank> rank(new Rank(options, clock));
  RETURN_IF_ERROR(rank->ReadConfig());
  RETURN_IF_ERROR(rank->Meet());
  GroupLinks& links = *rank->links_;
  // The first rank of a host packs the weights, if nobody has yet; the others
  // then map what it has packed.
  for (const bool first : {true, false}) {
    const auto load = [&] {
      if (links.first_on_this_host() != first) return absl::OkStatus();
      return rank->Load();
    };
    RETURN_IF_ERROR(links.Run(load, kLoadTimeout));
  }
  RETURN_IF_ERROR(links.Agree(rank->Connect(), kStageTimeout));
  RETURN_IF_ERROR(rank->Plan());
  RETURN_IF_ERROR(links.Run([&] { return rank->Allocate(); }, kLoadTimeout));
  return rank;
}

Rank::Rank(const WorkerOptions& options, Clock& clock)
    : options_(options), clock_(clock) {}

RankParts Rank::parts() {
  return {.collective = links_->collective(),
          .forward =
              [this](const StepPlan& plan) {
                return model_->gemma().Forward(plan);
              },
          .progress = progress_,
          .clock = clock_,
          .on_step_begin =
              [this](int64_t step, absl::Duration limit) {
                links_->watchdog()->BeginStep(step, limit);
              },
          .on_step_end = [this] { links_->watchdog()->EndStep(); }};
}

int Rank::gather_pages() const {
  return GatherPages(config_, options_.gather_memory, options_.compute);
}

PlanLimits Rank::limits() const {
  return {.num_ranks = options_.ranks,
          .vocab_size = config_.vocab_size,
          .global_pages = pages_.global,
          .window_pages = pages_.window,
          .max_step_tokens = options_.step_tokens,
          .max_range_tokens = options_.round_tokens,
          .replica_pages = pages_.replica};
}

absl::Status Rank::ReadConfig() {
  ASSIGN_OR_RETURN(const std::string json,
                   ReadFile(options_.model + "/config.json"));
  ASSIGN_OR_RETURN(config_, ParseGemmaConfig(json));
  ASSIGN_OR_RETURN(digests_, DigestModelFiles(options_.model));
  LOG(INFO) << "digests: config " << digests_.config << ", tokenizer "
            << digests_.tokenizer;
  return CheckDivides(config_, options_.ranks);
}

absl::Status Rank::Meet() {
  ASSIGN_OR_RETURN(
      links_,
      GroupLinks::Meet(
          {.rank = options_.rank,
           .num_ranks = options_.ranks,
           .rendezvous = options_.rendezvous,
           .timeout = options_.group_timeout,
           .liveness_timeout = options_.liveness_timeout,
           .facts = {{"version", kVersion},
                     {"model (config.json)", digests_.config},
                     {"tokenizer", digests_.tokenizer},
                     {"--compute", NameOf(options_.compute)},
                     {"page tokens", absl::StrCat(kPageTokens)},
                     {"--max-sequences", absl::StrCat(options_.max_sequences)},
                     {"--step-tokens", absl::StrCat(options_.step_tokens)},
                     {"--round-tokens", absl::StrCat(options_.round_tokens)},
                     {"--gather-memory", absl::StrCat(options_.gather_memory)},
                     {"--liveness-timeout",
                      absl::FormatDuration(options_.liveness_timeout)}}}));
  return absl::OkStatus();
}

absl::Status Rank::Load() {
  ASSIGN_OR_RETURN(const int64_t available, AvailableMemory());
  LOG(INFO) << "memory: " << FormatByteSize(available) << " available, "
            << (options_.kv_memory > 0
                    ? FormatByteSize(options_.kv_memory)
                    : std::string("half of what the weights leave"))
            << " for keys and values";
  static_assert(2 * kMaxMemoryBytes <= INT64_MAX / kMaxGroupRanks);
  const int64_t each = options_.kv_memory + options_.replica_memory.value_or(0);
  ASSIGN_OR_RETURN(
      model_,
      LoadedModel::Load(
          {.model_dir = options_.model,
           .image_dir = options_.image_dir,
           .image_lock_timeout = kImageLockTimeout,
           .compute = options_.compute,
           .cpu = {.threads = options_.threads, .isa = options_.isa},
           .max_step_tokens = options_.step_tokens,
           .max_logit_rows =
               std::min(options_.max_sequences, options_.step_tokens),
           .max_range_tokens = options_.ranks > 1 ? options_.round_tokens : 0,
           .gather_pages = gather_pages(),
           .progress = &progress_,
           .extra_memory_bytes = each * links_->ranks_on_this_host()}));
  LogModel();
  return absl::OkStatus();
}

void Rank::LogModel() const {
  const LoadStatistics& statistics = model_->statistics();
  LOG(INFO) << config_.model_type << ": " << config_.num_layers()
            << " layers, hidden size " << config_.hidden_size << ", "
            << config_.num_heads << " heads, window " << config_.window
            << ", vocabulary " << config_.vocab_size << ", context "
            << config_.max_context_tokens << " tokens";
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
}

// All ranks have the same weights: opens the links between them.
absl::Status Rank::Connect() {
  ASSIGN_OR_RETURN(
      const std::vector<std::string> weights,
      links_->Share(DigestOfWeights(model_->weights(), config_.hidden_size),
                    kStageTimeout));
  for (int rank = 1; rank < links_->size(); ++rank) {
    if (weights[rank] == weights[0]) continue;
    return absl::FailedPreconditionError(
        absl::StrCat(links_->NameOfRank(rank), " has other weights than ",
                     links_->NameOfRank(0), ": digests ", weights[rank],
                     " and ", weights[0]));
  }
  return links_->Connect(kStageTimeout);
}

absl::StatusOr<std::string> Rank::Report() {
  if (links_->size() > 1) {
    ASSIGN_OR_RETURN(rates_, MeasureRates(config_, model_->weights(),
                                          options_.compute, model_->backend()));
    links_->collective().SetDeadline(Deadline::In(kStageTimeout));
    ASSIGN_OR_RETURN(const LinkRates link,
                     MeasureLink(links_->collective(), clock_));
    links_->collective().SetDeadline(Deadline::Never());
    rates_.link_bytes = link.bytes;
    rates_.link_latency = link.latency;
    LOG(INFO) << "rates: " << rates_.matmul_flops / 1e9
              << " GFLOP/s in matrix products, " << rates_.attention_flops / 1e9
              << " in attention, " << rates_.read_bytes / 1e9
              << " GB/s read, link " << rates_.link_bytes / 1e9 << " GB/s, "
              << rates_.link_latency;
  }
  RankReport report;
  report.host = links_->host(links_->rank());
  report.device = model_->backend().Description();
  report.rates = rates_;
  ASSIGN_OR_RETURN(const int64_t available, AvailableMemory());
  const int64_t share =
      std::max<int64_t>(0, available - model_->statistics().image.image_bytes) /
          links_->ranks_on_this_host() -
      model_->workspace_bytes(links_->size());
  report.kv_bytes = options_.kv_memory > 0 ? options_.kv_memory
                                           : std::max<int64_t>(0, share / 2);
  report.replica_bytes = ReplicaBytes(share - report.kv_bytes);
  return EncodeRankReport(report);
}

// Of the memory that key/value memory leaves, half at most.
int64_t Rank::ReplicaBytes(int64_t left) const {
  if (links_->size() == 1 || options_.round_tokens == 0) return 0;
  if (options_.replica_memory.has_value()) return *options_.replica_memory;
  const int64_t needed = NumPages(config_.max_context_tokens) *
                         model_->page_bytes(links_->size()).global;
  return std::min(needed, std::max<int64_t>(0, left / 2));
}

absl::Status Rank::Plan() {
  ASSIGN_OR_RETURN(const std::vector<std::string> reports,
                   links_->Share(Report(), kStageTimeout));
  ASSIGN_OR_RETURN(
      const std::vector<std::string> plans,
      links_->Share(leads() ? PlanAsLeader(reports) : std::string(),
                    kStageTimeout));
  ASSIGN_OR_RETURN(pages_, DecodeRankPages(plans[0]));
  return absl::OkStatus();
}

absl::StatusOr<std::string> Rank::PlanAsLeader(
    const std::vector<std::string>& reports) {
  for (const std::string& report : reports) {
    ASSIGN_OR_RETURN(RankReport decoded, DecodeRankReport(report));
    reports_.push_back(std::move(decoded));
  }
  const PageBytes page_bytes = model_->page_bytes(links_->size());
  ASSIGN_OR_RETURN(
      plan_,
      PlanGroup(reports_, {.memory = {.global_page_bytes = page_bytes.global,
                                      .window_page_bytes = page_bytes.window,
                                      .window = config_.window,
                                      .max_sequences = options_.max_sequences,
                                      .max_step_tokens = options_.step_tokens,
                                      .max_context_tokens =
                                          config_.max_context_tokens}}));
  LOG(INFO) << "plan: "
            << FormatByteSize(model_->statistics().image.image_bytes)
            << " of weights, " << plan_.memory.Summary();
  return EncodeRankPages({.global = plan_.memory.global_pages_per_rank,
                          .window = plan_.memory.window_pages,
                          .replica = plan_.replica_pages});
}

absl::Status Rank::Allocate() {
  RETURN_IF_ERROR(model_->Allocate({.global = pages_.global,
                                    .window = pages_.window,
                                    .replica = pages_.replica},
                                   links_->collective()));
  if (links_->size() > 1) {
    LOG(INFO) << "replica: "
              << FormatByteSize(pages_.replica *
                                model_->page_bytes(links_->size()).global)
              << " for prompts of " << pages_.replica * kPageTokens
              << " tokens; workspace "
              << FormatByteSize(model_->workspace_bytes(links_->size()));
  }
  LOG(INFO) << "peak resident memory so far: "
            << FormatByteSize(PeakResidentBytes());
  return absl::OkStatus();
}

}  // namespace lapidary
