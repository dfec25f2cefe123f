#include "tools/model_benchmark.h"

#include <algorithm>
#include <cstdint>
#include <utility>

#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "common/status_macros.h"
#include "kernels/bf16.h"

namespace lapidary {
namespace {

// Short prompts are run again until there are this many steps to take a median
// of.
constexpr int kMinSteps = 5;

double Median(std::vector<double> values) {
  const auto middle = values.begin() + values.size() / 2;
  std::nth_element(values.begin(), middle, values.end());
  return *middle;
}

// In [-1, 1), the same on every machine.
std::vector<float> RandomNumbers(int size) {
  std::vector<float> numbers(size);
  uint64_t state = 1;
  for (float& number : numbers) {
    state = state * 6364136223846793005u + 1442695040888963407u;
    number = static_cast<float>(state >> 40) * 0x1p-23f - 1.0f;
  }
  return numbers;
}

// What the steps of one measurement add up to.
struct Steps {
  std::vector<double> seconds;
  std::vector<double> shares;         // Of the whole step.
  std::vector<double> matmul_shares;  // Of its matmuls.
  double total_seconds = 0;
  double probe_total = 0;
  OperationTimes times;

  // A step that took `seconds`, did `work` and had the `probe` beside it.
  void Add(double step_seconds, double work, double probe,
           const OperationTimes& step_times) {
    seconds.push_back(step_seconds);
    shares.push_back(work / step_seconds / probe);
    matmul_shares.push_back(step_times.matmul_operations /
                            absl::ToDoubleSeconds(step_times.matmul) / probe);
    total_seconds += step_seconds;
    probe_total += probe;
    times.matmul += step_times.matmul;
    times.attend += step_times.attend;
    times.matmul_operations += step_times.matmul_operations;
  }

  double probe() const {
    return probe_total / static_cast<double>(seconds.size());
  }
  double PartOf(absl::Duration time) const {
    return absl::ToDoubleSeconds(time) / total_seconds;
  }
};

}  // namespace

absl::StatusOr<std::unique_ptr<ModelBenchmark>> ModelBenchmark::Create(
    LoadedModel& model, const Options& options) {
  std::unique_ptr<ModelBenchmark> benchmark(new ModelBenchmark(model, options));
  RETURN_IF_ERROR(benchmark->Start());
  return benchmark;
}

ModelBenchmark::ModelBenchmark(LoadedModel& model, const Options& options)
    : model_(model),
      options_(options),
      backend_(model.backend()),
      group_(/*num_ranks=*/1) {}

absl::Status ModelBenchmark::Start() {
  ASSIGN_OR_RETURN(probes_, NewProbes(options_.cpu));
  const GemmaConfig& config = model_.config();
  const KvCache::Options cache = SequenceDriver::CacheFor(
      config, {.max_sequences = options_.max_batch,
               .max_tokens = options_.max_depth + options_.max_prompt,
               .max_step_tokens = options_.chunk});
  ASSIGN_OR_RETURN(store_,
                   KvStore::Create(config, options_.compute, /*num_ranks=*/1,
                                   {.global = cache.global_pages_per_rank,
                                    .window = cache.window_pages},
                                   backend_));
  FillPages(cache.global_pages_per_rank, cache.window_pages);
  ASSIGN_OR_RETURN(
      gemma_,
      Gemma::Create(
          config, model_.weights(), *store_, backend_, group_.rank(0),
          {.compute = options_.compute,
           .max_step_tokens = std::max(options_.chunk, options_.max_batch),
           .max_logit_rows = options_.max_batch}));
  driver_ = std::make_unique<SequenceDriver>(
      [this](const StepPlan& plan, const Gemma::Observer& observer) {
        return gemma_->Forward(plan, observer);
      },
      cache);
  return absl::OkStatus();
}

void ModelBenchmark::FillPages(int num_global_pages, int num_window_pages) {
  const std::vector<float> numbers = RandomNumbers(1 << 18);
  std::vector<Bf16> rounded(numbers.size());
  std::transform(numbers.begin(), numbers.end(), rounded.begin(), ToBf16);
  const void* source = options_.compute == DType::kF32
                           ? static_cast<const void*>(numbers.data())
                           : rounded.data();
  const int64_t source_bytes =
      static_cast<int64_t>(numbers.size()) * SizeOf(options_.compute);
  const auto fill = [&](void* plane, int64_t bytes) {
    for (int64_t done = 0; done < bytes; done += source_bytes) {
      backend_.CopyToDevice(source, std::min(source_bytes, bytes - done),
                            static_cast<char*>(plane) + done);
    }
  };
  for (int l = 0; l < model_.config().num_layers(); ++l) {
    const KvPlanes& planes = store_->planes(l);
    const int64_t num_pages =
        model_.config().layers[l].type == LayerType::kWindow ? num_window_pages
                                                             : num_global_pages;
    const int64_t channel_bytes =
        num_pages * planes.kv_heads * kPageTokens * SizeOf(planes.dtype);
    fill(planes.keys, channel_bytes * 2 * planes.key_half);
    fill(planes.values, channel_bytes * planes.head_dim);
  }
}

absl::StatusOr<SequenceDriver::Sequence> ModelBenchmark::NewSequence(
    int depth, int num_tokens) {
  std::vector<TokenId> tokens(depth + num_tokens);
  for (size_t i = 0; i < tokens.size(); ++i) {
    tokens[i] = static_cast<TokenId>(i * 7919 % model_.config().vocab_size);
  }
  SequenceDriver::Sequence sequence = driver_->NewSequence(std::move(tokens));
  RETURN_IF_ERROR(driver_->Skip(depth, sequence));
  return sequence;
}

double ModelBenchmark::AttentionOperations(int start, int num_tokens) const {
  const GemmaConfig& config = model_.config();
  double operations = 0;
  for (const LayerConfig& layer : config.layers) {
    double pairs = 0;
    for (int p = start; p < start + num_tokens; ++p) {
      pairs += layer.type == LayerType::kWindow ? std::min(p + 1, config.window)
                                                : p + 1;
    }
    operations += 4.0 * pairs * config.num_heads * layer.head_dim;
  }
  return operations;
}

double ModelBenchmark::VisibleBytes(int position) const {
  double bytes = 0;
  for (const LayerConfig& layer : model_.config().layers) {
    const int visible = layer.type == LayerType::kWindow
                            ? std::min(position + 1, model_.config().window)
                            : position + 1;
    bytes += 1.0 * visible * layer.num_kv_heads *
             (2 * layer.key_half + layer.head_dim) * SizeOf(options_.compute);
  }
  return bytes;
}

absl::StatusOr<PrefillSpeed> ModelBenchmark::Prefill(int prompt, int depth) {
  const int chunk = std::min(options_.chunk, prompt);
  const int runs = std::max(1, kMinSteps * chunk / prompt);
  Steps steps;
  double before = probes_->DotRate();
  for (int run = 0; run < runs; ++run) {
    ASSIGN_OR_RETURN(SequenceDriver::Sequence sequence,
                     NewSequence(depth, prompt));
    for (int done = 0; done < prompt; done += chunk) {
      SequenceDriver::Part part{.sequence = &sequence,
                                .num_tokens = std::min(chunk, prompt - done)};
      if (done + part.num_tokens == prompt) {
        part.logit_positions = {depth + prompt - 1};
      }
      backend_.TakeTimes();
      const absl::Time begin = absl::Now();
      RETURN_IF_ERROR(driver_->Step({&part, 1}).status());
      const double seconds = absl::ToDoubleSeconds(absl::Now() - begin);
      const double after = probes_->DotRate();
      const OperationTimes times = backend_.TakeTimes();
      steps.Add(seconds,
                times.matmul_operations +
                    AttentionOperations(depth + done, part.num_tokens),
                (before + after) / 2, times);
      before = after;
    }
  }
  PrefillSpeed speed;
  speed.prompt = prompt;
  speed.depth = depth;
  speed.chunk = chunk;
  speed.seconds = steps.total_seconds / runs;
  speed.tokens_per_second = prompt / speed.seconds;
  speed.matmul_operations_per_second =
      steps.times.matmul_operations / absl::ToDoubleSeconds(steps.times.matmul);
  speed.probe_operations_per_second = steps.probe();
  speed.matmul_share = Median(steps.matmul_shares);
  speed.step_share = Median(steps.shares);
  speed.matmul_part = steps.PartOf(steps.times.matmul);
  speed.attend_part = steps.PartOf(steps.times.attend);
  return speed;
}

absl::StatusOr<DecodeSpeed> ModelBenchmark::Decode(int num_steps, int depth,
                                                   int batch) {
  std::vector<SequenceDriver::Sequence> sequences;
  for (int i = 0; i < batch; ++i) {
    ASSIGN_OR_RETURN(SequenceDriver::Sequence sequence,
                     NewSequence(depth, num_steps));
    sequences.push_back(std::move(sequence));
  }
  Steps steps;
  double bytes = 0;
  double before = probes_->ReadBandwidth();
  for (int step = 0; step < num_steps; ++step) {
    const int position = depth + step;
    std::vector<SequenceDriver::Part> parts;
    for (SequenceDriver::Sequence& sequence : sequences) {
      parts.push_back({.sequence = &sequence,
                       .num_tokens = 1,
                       .logit_positions = {position}});
    }
    backend_.TakeTimes();
    const absl::Time begin = absl::Now();
    RETURN_IF_ERROR(driver_->Step(parts).status());
    const double seconds = absl::ToDoubleSeconds(absl::Now() - begin);
    const double after = probes_->ReadBandwidth();
    const OperationTimes times = backend_.TakeTimes();
    bytes = times.weight_bytes + batch * VisibleBytes(position);
    steps.Add(seconds, bytes, (before + after) / 2, times);
    before = after;
  }
  DecodeSpeed speed;
  speed.depth = depth;
  speed.batch = batch;
  speed.steps = num_steps;
  speed.step_seconds = Median(steps.seconds);
  speed.tokens_per_second = batch / speed.step_seconds;
  speed.read_bytes_per_second = bytes / speed.step_seconds;
  speed.probe_bytes_per_second = steps.probe();
  speed.read_share = Median(steps.shares);
  speed.matmul_part = steps.PartOf(steps.times.matmul);
  speed.attend_part = steps.PartOf(steps.times.attend);
  return speed;
}

}  // namespace lapidary
