#include "worker/model/loaded_model.h"

#include <utility>
#include <vector>

#include "common/read_file.h"
#include "common/status_macros.h"
#include "common/steady_time.h"
#include "glog/logging.h"
#include "worker/loader/checkpoint.h"
#include "worker/model/rank_weights.h"

namespace lapidary {

absl::StatusOr<std::unique_ptr<LoadedModel>> LoadedModel::Load(
    const ModelOptions& options) {
  const absl::Time begin = SteadyNow();
  std::unique_ptr<LoadedModel> model(new LoadedModel(options));

  ASSIGN_OR_RETURN(const std::string config_json,
                   ReadFile(options.model_dir + "/config.json"));
  ASSIGN_OR_RETURN(model->config_, ParseGemmaConfig(config_json));
  const std::vector<TensorSpec> specs = GemmaTensors(model->config_);
  ASSIGN_OR_RETURN(const std::unique_ptr<Checkpoint> checkpoint,
                   Checkpoint::Open(options.model_dir, specs));
  LoadStatistics& statistics = model->statistics_;
  ASSIGN_OR_RETURN(
      model->image_,
      LoadOrBuildImage(*checkpoint, specs,
                       {.directory = options.image_dir,
                        .extra_memory_bytes = options.extra_memory_bytes,
                        .num_threads = options.cpu.threads,
                        .lock_timeout = options.image_lock_timeout},
                       statistics.image));
  ASSIGN_OR_RETURN(model->weights_,
                   GemmaWeightsFrom(model->config_, *model->image_));
  ASSIGN_OR_RETURN(model->backend_, NewCpuBackend(options.cpu));

  statistics.num_files = checkpoint->num_files();
  statistics.num_ignored_tensors = checkpoint->num_ignored_tensors();
  statistics.load_time = SteadyNow() - begin;
  return model;
}

LoadedModel::LoadedModel(const ModelOptions& options)
    : options_(options), alone_(/*num_ranks=*/1) {}

absl::Status LoadedModel::Allocate(const KvPages& pages) {
  return Allocate(pages, alone_.rank(0));
}

absl::Status LoadedModel::Allocate(const KvPages& pages,
                                   Collective& collective) {
  gemma_.reset();
  store_.reset();
  RETURN_IF_ERROR(CheckDivides(config_, collective.size()));
  ASSIGN_OR_RETURN(store_,
                   KvStore::Create(config_, options_.compute, collective.size(),
                                   pages, *backend_));
  ASSIGN_OR_RETURN(gemma_, Gemma::Create(config_, weights_, *store_, *backend_,
                                         collective, GemmaOptions()));
  return absl::OkStatus();
}

Gemma& LoadedModel::gemma() {
  CHECK(gemma_ != nullptr) << "Allocate() comes first";
  return *gemma_;
}

PageBytes LoadedModel::page_bytes(int num_ranks) const {
  return KvPageBytes(config_, options_.compute, num_ranks);
}

int64_t LoadedModel::workspace_bytes(int num_ranks) const {
  return Gemma::MemoryBytes(config_, GemmaOptions(), num_ranks);
}

Gemma::Options LoadedModel::GemmaOptions() const {
  return {.compute = options_.compute,
          .max_step_tokens = options_.max_step_tokens,
          .max_logit_rows = options_.max_logit_rows,
          .max_range_tokens = options_.max_range_tokens,
          .gather_pages = options_.gather_pages,
          .progress = options_.progress};
}

}  // namespace lapidary
