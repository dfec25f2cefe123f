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

void CheckLse(const Tensor& lse, int rows, int num_heads) {
  if (lse.data == nullptr) return;
  CHECK(lse.dtype == DType::kF32);
  CHECK_EQ(lse.rows, rows);
  CHECK_EQ(lse.cols, num_heads);
}

void CheckRowsOfPlanes(const KvPlanes& planes, const Tensor& keys,
                       const Tensor& values) {
  CHECK_EQ(keys.rows, values.rows);
  CHECK_EQ(keys.cols, planes.kv_heads * 2 * planes.key_half);
  CHECK_EQ(values.cols, planes.kv_heads * planes.head_dim);
  CHECK(keys.dtype == planes.dtype && values.dtype == planes.dtype);
}

// What one plane holds of one position: `head_bytes` for each KV head.
struct Slot {
  char* first_head;
  int64_t head_bytes;
  int64_t stride;  // Bytes from a head to the next.
};

Slot SlotIn(void* plane, int width, const KvPlanes& planes, PageId page,
            int position) {
  const int64_t bytes = int64_t{width} * SizeOf(planes.dtype);
  const int64_t row =
      int64_t{page} * planes.kv_heads * kPageTokens + position % kPageTokens;
  return {static_cast<char*>(plane) + row * bytes, bytes, kPageTokens * bytes};
}

Slot KeySlot(const KvPlanes& planes, PageId page, int position) {
  return SlotIn(planes.keys, 2 * planes.key_half, planes, page, position);
}

Slot ValueSlot(const KvPlanes& planes, PageId page, int position) {
  return SlotIn(planes.values, planes.head_dim, planes, page, position);
}

void CopyToSlot(const void* row, int kv_heads, const Slot& slot) {
  const char* from = static_cast<const char*>(row);
  for (int head = 0; head < kv_heads; ++head) {
    std::memcpy(slot.first_head + head * slot.stride,
                from + head * slot.head_bytes, slot.head_bytes);
  }
}

void CopyFromSlot(const Slot& slot, int kv_heads, void* row) {
  char* to = static_cast<char*>(row);
  for (int head = 0; head < kv_heads; ++head) {
    std::memcpy(to + head * slot.head_bytes,
                slot.first_head + head * slot.stride, slot.head_bytes);
  }
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
    const int threads = pool_.num_threads();
    return absl::StrCat(threads,
                        threads == 1 ? " CPU thread, " : " CPU threads, ",
                        IsaName(isa_));
  }

  absl::StatusOr<void*> Allocate(int64_t bytes) override;
  void Free(void* memory) override;

  void CopyToDevice(const void* host, int64_t bytes, void* device) override {
    if (bytes > 0) std::memcpy(device, host, bytes);
  }
  void CopyToHost(const void* device, int64_t bytes, void* host) override {
    if (bytes > 0) std::memcpy(host, device, bytes);
  }

  void Copy(Tensor from, Tensor to) override;
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
  void ReadKv(const ReadKvArgs& args) override;
  void Attend(const AttendArgs& args) override;
  void MergeAttention(const MergeAttentionArgs& args) override;
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

void CpuBackend::Copy(Tensor from, Tensor to) {
  CheckSameShape(from, to);
  const int64_t row_bytes = int64_t{from.cols} * SizeOf(from.dtype);
  ForRows(from.rows, from.cols, [&](int first, int count) {
    for (int r = first; r < first + count; ++r) {
      std::memcpy(to.row(r), from.row(r), row_bytes);
    }
  });
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
  const bool has_q = args.q.data != nullptr;
  const bool has_k = args.k.data != nullptr;
  CHECK(has_q || has_k) << "neither queries nor keys";
  CHECK_EQ(has_k, args.v.data != nullptr);
  int64_t cols = 0;
  if (has_q) {
    CHECK_EQ(args.q.cols % d, 0);
    cols += args.q.cols;
  }
  if (has_k) {
    CHECK_EQ(args.k.cols % d, 0);
    CheckSameShape(args.k, args.v);
    CheckSameShape(args.v, args.values);
    CHECK_EQ(args.keys.rows, args.k.rows);
    CHECK_EQ(args.keys.cols, args.k.cols / d * 2 * args.key_half);
    CHECK(args.keys.dtype == args.k.dtype);
    cols += 2 * args.k.cols;
  }
  if (has_q && has_k) {
    CHECK_EQ(args.q.rows, args.k.rows);
    CHECK(args.q.dtype == args.k.dtype);
  }
  ForRows(has_q ? args.q.rows : args.k.rows, cols, [&](int first, int count) {
    kernels_.qk_norm_rope(args, first, first + count);
  });
}

void CpuBackend::WriteKv(const WriteKvArgs& args) {
  CheckRowsOfPlanes(args.planes, args.keys, args.values);
  CHECK_EQ(args.sequences.size(), args.first_positions.size());
  const int64_t row_values = int64_t{args.keys.cols} + args.values.cols;
  for (size_t s = 0; s < args.sequences.size(); ++s) {
    const AttentionSequence& sequence = args.sequences[s];
    const int first_key = sequence.start - sequence.earlier_keys;
    CHECK_GE(first_key, 0);
    const int begin = std::max(first_key, args.first_positions[s]);
    const int end = sequence.start + sequence.num_tokens;
    if (begin >= end) continue;
    const int first_row = sequence.first_row + begin - first_key;
    CHECK_LE(first_row + end - begin, args.keys.rows);
    ForRows(end - begin, row_values, [&](int first, int count) {
      for (int i = first; i < first + count; ++i) {
        const int position = begin + i;
        const int index = position / kPageTokens - sequence.first_page;
        if (index < 0 || index >= sequence.num_pages) continue;
        const PageId page = sequence.pages[index];
        if (page == kNoPage) continue;
        CopyToSlot(args.keys.row(first_row + i), args.planes.kv_heads,
                   KeySlot(args.planes, page, position));
        CopyToSlot(args.values.row(first_row + i), args.planes.kv_heads,
                   ValueSlot(args.planes, page, position));
      }
    });
  }
}

void CpuBackend::ReadKv(const ReadKvArgs& args) {
  CheckRowsOfPlanes(args.planes, args.keys, args.values);
  CHECK_GE(args.first_position, 0);
  const int64_t row_values = int64_t{args.keys.cols} + args.values.cols;
  ForRows(args.keys.rows, row_values, [&](int first, int count) {
    for (int i = first; i < first + count; ++i) {
      const int position = args.first_position + i;
      const int index = position / kPageTokens - args.first_page;
      CHECK(index >= 0 && index < args.num_pages)
          << "position " << position << " is outside the page table, which has "
          << args.num_pages << " pages from " << args.first_page;
      const PageId page = args.pages[index];
      CHECK(page != kNoPage) << "no page for position " << position;
      CopyFromSlot(KeySlot(args.planes, page, position), args.planes.kv_heads,
                   args.keys.row(i));
      CopyFromSlot(ValueSlot(args.planes, page, position), args.planes.kv_heads,
                   args.values.row(i));
    }
  });
}

void CpuBackend::Attend(const AttendArgs& args) {
  const KvPlanes& planes = args.planes;
  const int layer_heads =
      args.num_layer_heads == 0 ? args.num_heads : args.num_layer_heads;
  CHECK_GT(planes.kv_heads, 0);
  CHECK_GT(args.num_heads, 0);
  CHECK_EQ(layer_heads % planes.kv_heads, 0);
  CHECK(args.first_head >= 0 && args.first_head + args.num_heads <= layer_heads)
      << args.num_heads << " heads from " << args.first_head << " of "
      << layer_heads;
  CHECK_GT(planes.head_dim, 0);
  CHECK_EQ(planes.head_dim % 16, 0);
  CHECK(planes.key_half >= 0 && planes.key_half <= planes.head_dim / 2);
  CHECK_EQ(args.q.cols, args.num_heads * planes.head_dim);
  CHECK(args.q.dtype == planes.dtype);
  CHECK_EQ(args.out.rows, args.q.rows);
  CHECK_EQ(args.out.cols, args.q.cols);
  CHECK(args.out.dtype == args.q.dtype || args.out.dtype == DType::kF32);
  CheckLse(args.lse, args.q.rows, args.num_heads);
  CHECK_GE(args.window, 0);
  CHECK(args.rank >= 0 && args.rank < args.num_ranks)
      << "rank " << args.rank << " of " << args.num_ranks;
  if (args.step_values.data != nullptr) {
    CheckRowsOfPlanes(planes, args.step_keys, args.step_values);
  }
  attention_.Run(args);
}

void CpuBackend::MergeAttention(const MergeAttentionArgs& args) {
  const int num_parts = static_cast<int>(args.parts.size());
  CHECK(num_parts >= 1 && num_parts <= MergeAttentionArgs::kMaxParts)
      << num_parts << " parts";
  CHECK_GT(args.num_heads, 0);
  CHECK_EQ(args.out.cols % args.num_heads, 0);
  CheckLse(args.lse, args.out.rows, args.num_heads);
  for (const AttentionPart& part : args.parts) {
    CHECK(part.out.dtype == DType::kF32);
    CHECK_EQ(part.out.rows, args.out.rows);
    CHECK_EQ(part.out.cols, args.out.cols);
    CHECK(part.lse.data != nullptr);
    CheckLse(part.lse, args.out.rows, args.num_heads);
  }
  ForRows(args.out.rows, int64_t{args.out.cols} * num_parts,
          [&](int first, int count) {
            kernels_.merge_attention(args, first, first + count);
          });
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
