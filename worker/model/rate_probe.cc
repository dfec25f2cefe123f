#include "worker/model/rate_probe.h"

#include <algorithm>
#include <cstdint>
#include <numeric>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/time/time.h"
#include "common/status_macros.h"
#include "common/steady_time.h"
#include "common/tokens.h"
#include "kernels/attention.h"
#include "kernels/bf16.h"

namespace lapidary {
namespace {

constexpr int kMatmulRows = 256;
constexpr int kMatmulColumns = 4096;  // Of the output, at most.
constexpr int64_t kReadBytes = 256 << 20;
constexpr int kQueries = 128;
constexpr int kKeys = 2048;

constexpr int kMaxRuns = 7;
constexpr absl::Duration kRunsTime = absl::Milliseconds(50);
// A run repeats what is shorter.
constexpr absl::Duration kShortestRun = absl::Milliseconds(1);
constexpr int kMaxRepeats = 1000;

class RateProbe {
 public:
  RateProbe(const GemmaConfig& config, const GemmaWeights& weights,
            DType compute, Backend& backend)
      : config_(config),
        weights_(weights),
        compute_(compute),
        backend_(backend) {}
  ~RateProbe() {
    for (void* buffer : buffers_) backend_.Free(buffer);
  }

  RateProbe(const RateProbe&) = delete;
  RateProbe& operator=(const RateProbe&) = delete;

  absl::StatusOr<double> MatmulFlops();
  absl::StatusOr<double> ReadBytes();
  absl::StatusOr<double> AttentionFlops();

 private:
  absl::StatusOr<Tensor> NewTensor(int rows, int cols);
  absl::StatusOr<KvPlanes> NewPlanes(const LayerConfig& layer, int num_pages);
  // Of one call of `work`, in seconds.
  absl::StatusOr<double> MedianSeconds(absl::FunctionRef<void()> work);
  absl::StatusOr<absl::Duration> TimeOf(int repeats,
                                        absl::FunctionRef<void()> work);

  const GemmaConfig& config_;
  const GemmaWeights& weights_;
  const DType compute_;
  Backend& backend_;
  std::vector<void*> buffers_;
};

// Of numbers about as large as activations; zeros would be multiplied faster.
absl::StatusOr<Tensor> RateProbe::NewTensor(int rows, int cols) {
  const int64_t size = int64_t{rows} * cols;
  ASSIGN_OR_RETURN(void* memory, backend_.Allocate(size * SizeOf(compute_)));
  buffers_.push_back(memory);
  const auto value = [](int64_t i) {
    return static_cast<float>(i * 37 % 17 - 8) / 16;
  };
  if (compute_ == DType::kF32) {
    std::vector<float> values(size);
    for (int64_t i = 0; i < size; ++i) values[i] = value(i);
    backend_.CopyToDevice(values.data(), size * SizeOf(compute_), memory);
  } else {
    std::vector<Bf16> values(size);
    for (int64_t i = 0; i < size; ++i) values[i] = ToBf16(value(i));
    backend_.CopyToDevice(values.data(), size * SizeOf(compute_), memory);
  }
  return Tensor{memory, compute_, rows, cols, cols};
}

absl::StatusOr<KvPlanes> RateProbe::NewPlanes(const LayerConfig& layer,
                                              int num_pages) {
  const int rows = num_pages * layer.num_kv_heads * kPageTokens;
  ASSIGN_OR_RETURN(const Tensor keys, NewTensor(rows, 2 * layer.key_half));
  ASSIGN_OR_RETURN(const Tensor values, NewTensor(rows, layer.head_dim));
  return KvPlanes{.keys = keys.data,
                  .values = values.data,
                  .dtype = compute_,
                  .kv_heads = layer.num_kv_heads,
                  .head_dim = layer.head_dim,
                  .key_half = layer.key_half};
}

absl::StatusOr<absl::Duration> RateProbe::TimeOf(
    int repeats, absl::FunctionRef<void()> work) {
  const absl::Time begin = SteadyNow();
  for (int i = 0; i < repeats; ++i) work();
  RETURN_IF_ERROR(backend_.Synchronize());
  return std::max(absl::Nanoseconds(1), SteadyNow() - begin);
}

absl::StatusOr<double> RateProbe::MedianSeconds(
    absl::FunctionRef<void()> work) {
  RETURN_IF_ERROR(backend_.Synchronize());
  RETURN_IF_ERROR(TimeOf(1, work).status());
  ASSIGN_OR_RETURN(const absl::Duration once, TimeOf(1, work));
  const auto repeats =
      static_cast<int>(std::clamp(absl::FDivDuration(kShortestRun, once), 1.0,
                                  static_cast<double>(kMaxRepeats)));
  std::vector<absl::Duration> times;
  absl::Duration total;
  do {
    ASSIGN_OR_RETURN(const absl::Duration time, TimeOf(repeats, work));
    times.push_back(time);
    total += time;
  } while (total < kRunsTime && static_cast<int>(times.size()) < kMaxRuns);
  const auto median = times.begin() + static_cast<int>(times.size() / 2);
  std::nth_element(times.begin(), median, times.end());
  return absl::ToDoubleSeconds(*median) / repeats;
}

absl::StatusOr<double> RateProbe::MatmulFlops() {
  const PackedMatrix& gate = weights_.layers.front().gate;
  const PackedMatrix w = gate.Rows(0, std::min(gate.rows, kMatmulColumns));
  ASSIGN_OR_RETURN(const Tensor x, NewTensor(kMatmulRows, w.cols));
  ASSIGN_OR_RETURN(const Tensor out, NewTensor(kMatmulRows, w.rows));
  ASSIGN_OR_RETURN(const double seconds,
                   MedianSeconds([&] { backend_.MatMul(x, w, out); }));
  return 2.0 * kMatmulRows * w.rows * w.cols / seconds;
}

absl::StatusOr<double> RateProbe::ReadBytes() {
  const int h = config_.hidden_size;
  ASSIGN_OR_RETURN(const Tensor x, NewTensor(1, h));
  ASSIGN_OR_RETURN(const Tensor out, NewTensor(1, config_.intermediate_size));
  std::vector<const PackedMatrix*> matrices;
  int64_t bytes = 0;
  for (const LayerWeights& layer : weights_.layers) {
    for (const PackedMatrix* matrix : {&layer.gate, &layer.up}) {
      if (bytes >= kReadBytes) break;
      matrices.push_back(matrix);
      bytes += int64_t{matrix->rows} * matrix->cols * SizeOf(DType::kBf16);
    }
  }
  ASSIGN_OR_RETURN(const double seconds, MedianSeconds([&] {
                     for (const PackedMatrix* matrix : matrices) {
                       backend_.MatMul(x, *matrix, out);
                     }
                   }));
  return static_cast<double>(bytes) / seconds;
}

absl::StatusOr<double> RateProbe::AttentionFlops() {
  auto layer = std::find_if(
      config_.layers.begin(), config_.layers.end(),
      [](const LayerConfig& l) { return l.type == LayerType::kGlobal; });
  if (layer == config_.layers.end()) layer = config_.layers.begin();
  constexpr int kPages = kKeys / kPageTokens;
  ASSIGN_OR_RETURN(const KvPlanes planes, NewPlanes(*layer, kPages));
  const int cols = config_.num_heads * layer->head_dim;
  ASSIGN_OR_RETURN(const Tensor q, NewTensor(kQueries, cols));
  ASSIGN_OR_RETURN(const Tensor out, NewTensor(kQueries, cols));
  std::vector<PageId> pages(kPages);
  std::iota(pages.begin(), pages.end(), 0);
  AttentionSequence sequence;
  sequence.num_tokens = kQueries;
  sequence.start = kKeys - kQueries;
  sequence.pages = pages.data();
  sequence.num_pages = kPages;
  AttendArgs args;
  args.q = q;
  args.planes = planes;
  args.sequences = {&sequence, 1};
  args.num_heads = config_.num_heads;
  args.out = out;
  ASSIGN_OR_RETURN(const double seconds,
                   MedianSeconds([&] { backend_.Attend(args); }));
  // Query p sees p + 1 keys.
  const double pairs = 0.5 * kQueries * (sequence.start + 1 + kKeys);
  return 4.0 * cols * pairs / seconds;
}

}  // namespace

absl::StatusOr<RankRates> MeasureRates(const GemmaConfig& config,
                                       const GemmaWeights& weights,
                                       DType compute, Backend& backend) {
  RateProbe probe(config, weights, compute, backend);
  RankRates rates;
  ASSIGN_OR_RETURN(rates.matmul_flops, probe.MatmulFlops());
  ASSIGN_OR_RETURN(rates.read_bytes, probe.ReadBytes());
  ASSIGN_OR_RETURN(rates.attention_flops, probe.AttentionFlops());
  return rates;
}

}  // namespace lapidary
