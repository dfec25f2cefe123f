#include "worker/engine/link_probe.h"

#include <algorithm>
#include <vector>

#include "common/status_macros.h"
#include "kernels/tensor.h"
#include "worker/parallel/collective_ops.h"

namespace lapidary {
namespace {

constexpr int kSmallBytes = 64;
constexpr int kSmallExchanges = 50;
constexpr int kLargeBytes = 4 << 20;
constexpr int kLargeExchanges = 7;
// Of each kind, to warm up.
constexpr int kUncounted = 2;
// Clocks may be too coarse for what a process exchanges with itself.
constexpr absl::Duration kLeast = absl::Nanoseconds(100);

// The median time of an exchange in which `bytes` come from each other rank.
absl::StatusOr<absl::Duration> MedianExchange(Collective& collective,
                                              Clock& clock, int bytes,
                                              int num_exchanges) {
  const int cols = bytes / static_cast<int>(sizeof(float));
  std::vector<float> memory(size_t{1} * cols * collective.size());
  Tensor all = {memory.data(), DType::kF32, collective.size(), cols, cols};
  std::vector<absl::Duration> times;
  for (int i = 0; i < kUncounted + num_exchanges; ++i) {
    const absl::Time start = clock.Now();
    RETURN_IF_ERROR(AllGather(collective, Traffic::kControl,
                              all.Rows(collective.rank(), 1), all));
    if (i >= kUncounted) times.push_back(clock.Now() - start);
  }
  std::sort(times.begin(), times.end());
  return std::max(kLeast, times[times.size() / 2]);
}

}  // namespace

absl::StatusOr<LinkRates> MeasureLink(Collective& collective, Clock& clock) {
  if (collective.size() == 1) return LinkRates();
  ASSIGN_OR_RETURN(
      const absl::Duration small,
      MedianExchange(collective, clock, kSmallBytes, kSmallExchanges));
  const int others = collective.size() - 1;
  const int part = kLargeBytes / others / kSmallBytes * kSmallBytes;
  ASSIGN_OR_RETURN(const absl::Duration large,
                   MedianExchange(collective, clock, part, kLargeExchanges));
  const absl::Duration moving = std::max(kLeast, large - small);
  return LinkRates{
      .bytes = double{1} * part * others / absl::ToDoubleSeconds(moving),
      .latency = small};
}

}  // namespace lapidary
