// Speed of a model's forward passes, beside what the machine can do at best,
// measured in the same run.
//
//   prefill   matmul share  operations a second inside the matmuls, of the
//   probe
//             step share    all operations a second, attention's too, of the
//             probe
//   decode    read share    bytes of weights and of visible keys and values a
//                           second, of the probe of reading
//
// Each step stands between two probes and is set against their mean; a share is
// the median over the steps.

#ifndef TOOLS_MODEL_BENCHMARK_H_
#define TOOLS_MODEL_BENCHMARK_H_

#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "kernels/cpu/probes.h"
#include "tools/sequence_driver.h"
#include "tools/timed_backend.h"
#include "worker/model/gemma.h"
#include "worker/model/kv_store.h"
#include "worker/model/loaded_model.h"
#include "worker/parallel/local_collective.h"

namespace lapidary {

struct PrefillSpeed {
  int prompt = 0;
  int depth = 0;       // Positions before the prompt.
  int chunk = 0;       // Tokens a step.
  double seconds = 0;  // Of one prompt.
  double tokens_per_second = 0;
  double matmul_operations_per_second = 0;
  double probe_operations_per_second = 0;
  double matmul_share = 0;
  double step_share = 0;
  // Parts of the time.
  double matmul_part = 0;
  double attend_part = 0;
};

struct DecodeSpeed {
  int depth = 0;
  int batch = 0;
  int steps = 0;
  double tokens_per_second = 0;  // Of the whole batch; of the median step.
  double step_seconds = 0;
  double read_bytes_per_second = 0;
  double probe_bytes_per_second = 0;
  double read_share = 0;
  double matmul_part = 0;
  double attend_part = 0;
};

// Owned by one thread.
class ModelBenchmark {
 public:
  struct Options {
    DType compute = DType::kBf16;
    CpuOptions cpu;
    int max_depth = 0;
    int max_batch = 1;
    int max_prompt = 1;  // Prompt or decoded tokens after the depth.
    int chunk = 512;
  };

  // Fills the key/value memory with random numbers: positions before a
  // measurement are read like any others, but never computed.
  //
  // `model`, without key/value memory of its own, outlives this.
  // Errors: RESOURCE_EXHAUSTED.
  static absl::StatusOr<std::unique_ptr<ModelBenchmark>> Create(
      LoadedModel& model, const Options& options);

  absl::StatusOr<PrefillSpeed> Prefill(int prompt, int depth);
  absl::StatusOr<DecodeSpeed> Decode(int steps, int depth, int batch);

 private:
  ModelBenchmark(LoadedModel& model, const Options& options);

  absl::Status Start();
  void FillPages(int num_global_pages, int num_window_pages);
  // A sequence of `num_tokens` after `depth` positions that count as computed.
  absl::StatusOr<SequenceDriver::Sequence> NewSequence(int depth,
                                                       int num_tokens);
  // Operations of attention for the queries [start, start + num_tokens).
  double AttentionOperations(int start, int num_tokens) const;
  // Bytes of keys and values that the query at `position` sees.
  double VisibleBytes(int position) const;

  LoadedModel& model_;
  const Options options_;
  TimedBackend backend_;
  LocalGroup group_;
  std::unique_ptr<Probes> probes_;
  std::unique_ptr<KvStore> store_;
  std::unique_ptr<Gemma> gemma_;
  std::unique_ptr<SequenceDriver> driver_;
};

}  // namespace lapidary

#endif  // TOOLS_MODEL_BENCHMARK_H_
