#include "kernels/cpu/probes.h"

#include <cstdint>
#include <cstring>
#include <memory>
#include <utility>

#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "common/status_macros.h"
#include "kernels/cpu/cores.h"
#include "kernels/cpu/isa_kernels.h"
#include "kernels/cpu/isa_select.h"
#include "kernels/cpu/thread_pool.h"

namespace lapidary {
namespace {

constexpr int64_t kBufferBytes = int64_t{512} << 20;
constexpr int64_t kChunkBytes = int64_t{1} << 20;
constexpr int kChunks = kBufferBytes / kChunkBytes;
constexpr int64_t kDotSteps = 20000;
constexpr int kDotItemsPerThread = 16;

class CpuProbes : public Probes {
 public:
  CpuProbes(const cpu::IsaKernels& kernels, int threads,
            std::unique_ptr<Backend> owner, const char* buffer)
      : kernels_(kernels),
        pool_(threads),
        owner_(std::move(owner)),
        buffer_(buffer) {}

  double ReadBandwidth() override {
    return kBufferBytes / Seconds(kChunks, [this](int item, int) {
             kernels_.read_memory(buffer_ + item * kChunkBytes, kChunkBytes);
           });
  }

  double DotRate() override {
    const int items = kDotItemsPerThread * pool_.num_threads();
    const double flops =
        static_cast<double>(kernels_.flops_per_dot_step) * kDotSteps * items;
    return flops /
           Seconds(items, [this](int, int) { kernels_.dot_steps(kDotSteps); });
  }

 private:
  double Seconds(int items, ThreadPool::Body body) {
    const absl::Time start = absl::Now();
    pool_.ParallelFor(items, body);
    return absl::ToDoubleSeconds(absl::Now() - start);
  }

  const cpu::IsaKernels& kernels_;
  ThreadPool pool_;
  const std::unique_ptr<Backend> owner_;  // Of the buffer.
  const char* const buffer_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<Probes>> NewProbes(const CpuOptions& options) {
  ASSIGN_OR_RETURN(const Isa isa, ResolveIsa(options.isa));
  ASSIGN_OR_RETURN(std::unique_ptr<Backend> owner, NewCpuBackend(options));
  ASSIGN_OR_RETURN(void* const buffer, owner->Allocate(kBufferBytes));
  // Pages that were never written are all the same page of zeros.
  std::memset(buffer, 1, kBufferBytes);
  const int threads = options.threads > 0 ? options.threads : AvailableCores();
  return std::make_unique<CpuProbes>(cpu::KernelsFor(isa), threads,
                                     std::move(owner),
                                     static_cast<const char*>(buffer));
}

}  // namespace lapidary
