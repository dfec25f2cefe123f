// A model directory, opened and ready to run on this host's CPUs: what the
// worker, the tools and the parity tests start from.
//
//   config.json ─► GemmaConfig ─┐
//   safetensors ─► WeightImage ─┴► GemmaWeights ─┐
//   Allocate(pages) ─► KvStore ──────────────────┴► Gemma

#ifndef WORKER_MODEL_LOADED_MODEL_H_
#define WORKER_MODEL_LOADED_MODEL_H_

#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "kernels/backend.h"
#include "kernels/cpu/cpu_backend.h"
#include "kernels/tensor.h"
#include "worker/loader/image_builder.h"
#include "worker/loader/weight_image.h"
#include "worker/model/gemma.h"
#include "worker/model/gemma_config.h"
#include "worker/model/gemma_weights.h"
#include "worker/model/kv_store.h"
#include "worker/parallel/collective.h"
#include "worker/parallel/local_collective.h"
#include "worker/parallel/step_progress.h"

namespace lapidary {

struct ModelOptions {
  std::string model_dir;  // A Hugging Face directory as downloaded.
  // Where the packed image is kept and looked for; created if missing.
  std::string image_dir;
  // ImageOptions::lock_timeout.
  absl::Duration image_lock_timeout = ImageOptions().lock_timeout;
  DType compute = DType::kBf16;
  CpuOptions cpu;
  int max_step_tokens = 512;
  int max_logit_rows = 64;
  // As Gemma::Options.
  int max_range_tokens = 0;
  int gather_pages = 256;
  StepProgress* progress = nullptr;
  // What the process is going to take besides, key/value memory above all;
  // counted when the memory is checked.
  int64_t extra_memory_bytes = 0;
};

struct LoadStatistics {
  ImageStats image;
  absl::Duration load_time;  // All of Load(), packing included.
  int num_files = 0;         // Of the checkpoint.
  int num_ignored_tensors = 0;
};

// Owned by one thread, the same as its backend.
class LoadedModel {
 public:
  // Reads the config, packs or maps the weights, starts the backend.
  //
  // Errors: those of the loader, the config and the backend; each names the
  // file, what was expected and what was found.
  static absl::StatusOr<std::unique_ptr<LoadedModel>> Load(
      const ModelOptions& options);

  LoadedModel(const LoadedModel&) = delete;
  LoadedModel& operator=(const LoadedModel&) = delete;

  // Creates the key/value memory and the model over it, as this rank of
  // `collective`'s group; without one, as a group of one rank.  Called again,
  // it replaces both; what they held is lost.  `collective` must outlive the
  // model.
  //
  // Errors: RESOURCE_EXHAUSTED; INVALID_ARGUMENT if the ranks do not divide
  // the heads.
  absl::Status Allocate(const KvPages& pages);
  absl::Status Allocate(const KvPages& pages, Collective& collective);

  // REQUIRES: Allocate() has succeeded.
  Gemma& gemma();

  const GemmaConfig& config() const { return config_; }
  const GemmaWeights& weights() const { return weights_; }
  const LoadStatistics& statistics() const { return statistics_; }
  // On one rank of a group of `num_ranks`, which divides the heads.
  PageBytes page_bytes(int num_ranks = 1) const;
  // What Allocate() takes besides pages.
  int64_t workspace_bytes(int num_ranks = 1) const;
  Backend& backend() { return *backend_; }

 private:
  explicit LoadedModel(const ModelOptions& options);

  Gemma::Options GemmaOptions() const;

  const ModelOptions options_;
  LoadStatistics statistics_;
  GemmaConfig config_;
  std::unique_ptr<WeightImage> image_;
  GemmaWeights weights_;
  std::unique_ptr<Backend> backend_;
  LocalGroup alone_;  // The group of one.
  std::unique_ptr<KvStore> store_;
  std::unique_ptr<Gemma> gemma_;
};

}  // namespace lapidary

#endif  // WORKER_MODEL_LOADED_MODEL_H_
