#include "kernels/cpu/cpu_backend.h"

#include <sys/mman.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <memory>
#include <string>

#include "absl/container/flat_hash_map.h"
#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "common/status_macros.h"
#include "common/tokens.h"
#include "glog/logging.h"
#include "kernels/cpu/attention.h"
#include "kernels/cpu/cores.h"
#include "kernels/cpu/isa_kernels.h"
#include "kernels/cpu/isa_select.h"
#include "kernels/cpu/matmul.h"
#include "kernels/cpu/thread_pool.h"

namespace lapidary {
namespace {

using cpu::IsaKernels;

// Elements of a row operation that are worth a thread's attention.
constexpr int kMinElements = 8192;

void CheckSameShape(const Tensor& a, const Tensor& b) {
  CHECK_EQ(a.rows, b.rows);
  CHECK_EQ(a.cols, b.cols);
  CHECK(a.dtype == b.dtype);
}

class CpuBackend : public Backend {
 public:
  CpuBackend(int threads, Isa isa)
      : isa_(isa),
        kernels_(cpu::KernelsFor(isa)),
        pool_(threads),
        matmul_(kernels_, pool_),
        attention_(kernels_, pool_) {}

  ~CpuBackend() override {
    for (const auto& [memory, bytes] : allocations_) munmap(memory, bytes);
  }

  std::string Description() const override {
    return absl::StrCat(pool_.num_threads(), " CPU threads, ", IsaName(isa_));
  }

  absl::StatusOr<void*> Allocate(int64_t bytes) override;
  void Free(void* memory) override;

  void CopyToDevice(const void* host, int64_t bytes, void* device) override {
    if (bytes > 0) std::memcpy(device, host, bytes);
  }
  void CopyToHost(const void* device, int64_t bytes, void* host) override {
    if (bytes > 0) std::memcpy(host, device, bytes);
  }

  void Embed(const PackedMatrix& table, std::span<const TokenId> ids,
             float scale, Tensor out) override;
  void RmsNorm(Tensor x, const Bf16* weight, float epsilon,
               Tensor out) override;
  void MatMul(Tensor x, const PackedMatrix& w, Tensor out) override;
  void Add(Tensor x, Tensor y, float scale, Tensor out) override;
  void GeluMul(Tensor x, Tensor out) override;
  void RopeAngles(std::span<const int> positions,
                  std::span<const float> inverse_frequencies, float* cos,
                  float* sin) override;
  void QkNormRope(const QkNormRopeArgs& args) override;
  void WriteKv(const WriteKvArgs& args) override;
  void Attend(const AttendArgs& args) override;
  void SoftCap(Tensor x, float cap) override;

  absl::Status Synchronize() override { return absl::OkStatus(); }

 private:
  // Calls body(first, count) on ranges that cover `rows`.
  void ForRows(int rows, int64_t elements_per_row,
               absl::FunctionRef<void(int first, int count)> body);

  const Isa isa_;
  const IsaKernels& kernels_;
  ThreadPool pool_;
  cpu::MatMul matmul_;
  cpu::Attention attention_;
  absl::flat_hash_map<void*, int64_t> allocations_;  // Bytes by address.
};

void CpuBackend::ForRows(int rows, int64_t elements_per_row,
                         absl::FunctionRef<void(int first, int count)> body) {
  const int64_t worthwhile = std::max<int64_t>(
      1, kMinElements / std::max<int64_t>(1, elements_per_row));
  const int count = static_cast<int>(std::min<int64_t>(rows, worthwhile));
  if (count == 0) return;
  pool_.ParallelFor((rows + count - 1) / count, [&](int item, int) {
    const int first = item * count;
    body(first, std::min(count, rows - first));
  });
}

// Pages of the kernel's: zero, and not there until they are touched.
absl::StatusOr<void*> CpuBackend::Allocate(int64_t bytes) {
  CHECK_GE(bytes, 0);
  const int64_t size = std::max<int64_t>(bytes, 1);
  void* memory = mmap(nullptr, size, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) {
    return absl::ResourceExhaustedError(
        absl::StrCat("no memory for an allocation of ", bytes, " bytes"));
  }
  madvise(memory, size, MADV_HUGEPAGE);  // A hint; may be refused.
  allocations_[memory] = size;
  return memory;
}

void CpuBackend::Free(void* memory) {
  if (memory == nullptr) return;
  const auto found = allocations_.find(memory);
  CHECK(found != allocations_.end()) << "memory of another backend";
  munmap(memory, found->second);
  allocations_.erase(found);
}

void CpuBackend::Embed(const PackedMatrix& table, std::span<const TokenId> ids,
                       float scale, Tensor out) {
  CHECK_EQ(static_cast<int>(ids.size()), out.rows);
  CHECK_EQ(table.cols, out.cols);
  for (const TokenId id : ids) {
    CHECK(id >= 0 && id < table.rows) << "token id " << id;
  }
  // A row of the table is spread over as many cache lines as it has pairs.
  ForRows(out.rows, int64_t{out.cols} * 8, [&](int first, int count) {
    kernels_.embed(table, ids.data() + first, scale, out.Rows(first, count));
  });
}

void CpuBackend::RmsNorm(Tensor x, const Bf16* weight, float epsilon,
                         Tensor out) {
  CheckSameShape(x, out);
  ForRows(x.rows, x.cols, [&](int first, int count) {
    kernels_.rms_norm(x.Rows(first, count), weight, epsilon,
                      out.Rows(first, count));
  });
}

void CpuBackend::MatMul(Tensor x, const PackedMatrix& w, Tensor out) {
  CHECK_EQ(x.cols, w.cols);
  CHECK_EQ(x.rows, out.rows);
  CHECK_EQ(w.rows, out.cols);
  CHECK_EQ(w.rows % PackedMatrix::kBlockRows, 0);
  CHECK_EQ(w.cols % 2, 0);
  CHECK(out.dtype == x.dtype || out.dtype == DType::kF32);
  if (x.rows > 0) matmul_.Run(x, w, out);
}

void CpuBackend::Add(Tensor x, Tensor y, float scale, Tensor out) {
  CheckSameShape(x, y);
  CheckSameShape(x, out);
  ForRows(x.rows, x.cols, [&](int first, int count) {
    kernels_.add(x.Rows(first, count), y.Rows(first, count), scale,
                 out.Rows(first, count));
  });
}

void CpuBackend::GeluMul(Tensor x, Tensor out) {
  CHECK_EQ(x.rows, out.rows);
  CHECK_EQ(x.cols, 2 * out.cols);
  CHECK(x.dtype == out.dtype);
  ForRows(x.rows, x.cols, [&](int first, int count) {
    kernels_.gelu_mul(x.Rows(first, count), out.Rows(first, count));
  });
}

void CpuBackend::RopeAngles(std::span<const int> positions,
                            std::span<const float> inverse_frequencies,
                            float* cos, float* sin) {
  const int64_t angles = inverse_frequencies.size();
  // An angle costs as much as some 32 multiplications.
  ForRows(positions.size(), angles * 32, [&](int first, int count) {
    for (int t = first; t < first + count; ++t) {
      for (int64_t i = 0; i < angles; ++i) {
        const float angle =
            static_cast<float>(positions[t]) * inverse_frequencies[i];
        cos[t * angles + i] = std::cos(angle);
        sin[t * angles + i] = std::sin(angle);
      }
    }
  });
}

void CpuBackend::QkNormRope(const QkNormRopeArgs& args) {
  const int d = args.head_dim;
  CHECK_GT(d, 0);
  CHECK_EQ(d % 16, 0);
  CHECK(args.key_half >= 0 && args.key_half <= d / 2);
  CHECK(args.num_angles >= 0 && args.num_angles <= d / 2);
  CHECK_EQ(args.q.cols % d, 0);
  CHECK_EQ(args.k.cols % d, 0);
  CheckSameShape(args.k, args.v);
  CheckSameShape(args.v, args.values);
  CHECK_EQ(args.keys.cols, args.k.cols / d * 2 * args.key_half);
  CHECK(args.q.dtype == args.k.dtype && args.q.dtype == args.keys.dtype);
  ForRows(args.q.rows, args.q.cols + 2 * args.k.cols,
          [&](int first, int count) {
            kernels_.qk_norm_rope(args, first, first + count);
          });
}

void CpuBackend::WriteKv(const WriteKvArgs& args) {
  const KvPlanes& planes = args.planes;
  const int64_t widths[] = {2 * planes.key_half, planes.head_dim};
  const Tensor* rows[] = {&args.keys, &args.values};
  char* stores[] = {static_cast<char*>(planes.keys),
                    static_cast<char*>(planes.values)};
  CHECK_EQ(args.keys.cols, planes.kv_heads * widths[0]);
  CHECK_EQ(args.values.cols, planes.kv_heads * widths[1]);
  CHECK(args.keys.dtype == planes.dtype && args.values.dtype == planes.dtype);
  CHECK_EQ(args.sequences.size(), args.first_positions.size());

  for (size_t s = 0; s < args.sequences.size(); ++s) {
    const AttentionSequence& sequence = args.sequences[s];
    const int begin = std::max(sequence.start, args.first_positions[s]);
    const int end = sequence.start + sequence.num_tokens;
    const auto write = [&](int position) {
      const int index = position / kPageTokens - sequence.first_page;
      if (index < 0 || index >= sequence.num_pages) return;
      const PageId page = sequence.pages[index];
      if (page == kNoPage) return;
      const int row = sequence.first_row + position - sequence.start;
      for (int plane = 0; plane < 2; ++plane) {
        const int64_t bytes = widths[plane] * SizeOf(planes.dtype);
        const char* from = static_cast<const char*>(rows[plane]->row(row));
        for (int head = 0; head < planes.kv_heads; ++head) {
          const int64_t slot =
              (int64_t{page} * planes.kv_heads + head) * kPageTokens +
              position % kPageTokens;
          std::memcpy(stores[plane] + slot * bytes, from + head * bytes, bytes);
        }
      }
    };
    ForRows(std::max(0, end - begin), planes.kv_heads * (widths[0] + widths[1]),
            [&](int first, int count) {
              for (int i = 0; i < count; ++i) write(begin + first + i);
            });
  }
}

void CpuBackend::Attend(const AttendArgs& args) {
  const KvPlanes& planes = args.planes;
  CHECK_GT(planes.kv_heads, 0);
  CHECK_EQ(args.num_heads % planes.kv_heads, 0);
  CHECK_EQ(planes.head_dim % 16, 0);
  CHECK(planes.key_half >= 0 && planes.key_half <= planes.head_dim / 2);
  CHECK_EQ(args.q.cols, args.num_heads * planes.head_dim);
  CHECK(args.q.dtype == planes.dtype);
  CheckSameShape(args.q, args.out);
  CHECK_GE(args.window, 0);
  if (args.step_values.data != nullptr) {
    CHECK_EQ(args.step_values.cols, planes.kv_heads * planes.head_dim);
    CHECK_EQ(args.step_keys.cols, planes.kv_heads * 2 * planes.key_half);
    CHECK(args.step_values.dtype == planes.dtype);
  }
  attention_.Run(args);
}

void CpuBackend::SoftCap(Tensor x, float cap) {
  CHECK(x.dtype == DType::kF32);
  constexpr int kCols = kMinElements;
  const int chunks = (x.cols + kCols - 1) / kCols;
  ForRows(x.rows * chunks, kCols, [&](int first, int count) {
    for (int i = first; i < first + count; ++i) {
      const int col = i % chunks * kCols;
      kernels_.soft_cap(
          x.Rows(i / chunks, 1).Cols(col, std::min(kCols, x.cols - col)), cap);
    }
  });
}

}  // namespace

absl::StatusOr<std::unique_ptr<Backend>> NewCpuBackend(
    const CpuOptions& options) {
  if (options.threads < 0) {
    return absl::InvalidArgumentError(absl::StrCat(
        "threads must be 0 (all cores) or more, got ", options.threads));
  }
  ASSIGN_OR_RETURN(const Isa isa, ResolveIsa(options.isa));
  const int threads = options.threads > 0 ? options.threads : AvailableCores();
  return std::make_unique<CpuBackend>(threads, isa);
}

}  // namespace lapidary
