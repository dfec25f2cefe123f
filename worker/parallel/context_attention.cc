#include "worker/parallel/context_attention.h"

#include <algorithm>
#include <climits>
#include <numeric>

#include "common/status_macros.h"
#include "glog/logging.h"
#include "worker/parallel/collective_ops.h"

namespace lapidary {
namespace {

Tensor Dense(void* memory, DType dtype, int rows, int cols) {
  return {memory, dtype, rows, cols, cols};
}

// One page of a plane, all KV heads.
Tensor PageOf(void* plane, const KvPlanes& planes, int width, int64_t page) {
  const int64_t values = int64_t{planes.kv_heads} * kPageTokens * width;
  return Dense(static_cast<char*>(plane) + page * values * SizeOf(planes.dtype),
               planes.dtype, 1, static_cast<int>(values));
}

Tensor KeyPage(const KvPlanes& planes, int64_t page) {
  return PageOf(planes.keys, planes, 2 * planes.key_half, page);
}

Tensor ValuePage(const KvPlanes& planes, int64_t page) {
  return PageOf(planes.values, planes, planes.head_dim, page);
}

AttentionPart RowsOf(const AttentionPart& part, int first, int count) {
  return {.out = part.out.Rows(first, count),
          .lse = part.lse.Rows(first, count)};
}

// Query rows of the largest step of either layout, times their heads.
int64_t MaxHeadRows(const ContextAttention::Limits& limits) {
  return int64_t{std::max(limits.max_step_tokens, limits.max_range_tokens)} *
         limits.num_heads;
}

// Other ranks' parts of a head-split step, or all heads of earlier segments.
int64_t MaxOtherHeadRows(const ContextAttention::Limits& limits,
                         int num_ranks) {
  return std::max(int64_t{limits.max_step_tokens} * limits.num_heads /
                      num_ranks * (num_ranks - 1),
                  MaxHeadRows(limits));
}

}  // namespace

absl::StatusOr<std::unique_ptr<ContextAttention>> ContextAttention::Create(
    const Limits& limits, Backend& backend, Collective& collective) {
  std::unique_ptr<ContextAttention> attention(
      new ContextAttention(limits, backend, collective));
  if (collective.size() > 1) {
    CHECK_GT(limits.gather_pages, 0);
    RETURN_IF_ERROR(attention->Allocate());
  }
  return attention;
}

ContextAttention::~ContextAttention() {
  for (void* memory : allocations_) backend_.Free(memory);
}

int64_t ContextAttention::MemoryBytes(const Limits& limits, int num_ranks) {
  if (num_ranks == 1) return 0;
  const int64_t page_values =
      int64_t{limits.key_page_values} + limits.value_page_values;
  return (MaxHeadRows(limits) + MaxOtherHeadRows(limits, num_ranks)) *
             (limits.head_dim + 1) * SizeOf(DType::kF32) +
         limits.gather_pages * page_values * SizeOf(limits.dtype);
}

absl::Status ContextAttention::Allocate() {
  constexpr int64_t kFloat = SizeOf(DType::kF32);
  const int64_t rows = MaxHeadRows(limits_);
  const int64_t others = MaxOtherHeadRows(limits_, collective_.size());
  const int64_t page_bytes =
      int64_t{limits_.gather_pages} * SizeOf(limits_.dtype);
  RETURN_IF_ERROR(AllocateTo(rows * limits_.head_dim * kFloat, part_out_));
  RETURN_IF_ERROR(AllocateTo(rows * kFloat, part_lse_));
  RETURN_IF_ERROR(AllocateTo(others * limits_.head_dim * kFloat, other_out_));
  RETURN_IF_ERROR(AllocateTo(others * kFloat, other_lse_));
  RETURN_IF_ERROR(
      AllocateTo(page_bytes * limits_.key_page_values, key_buffer_));
  RETURN_IF_ERROR(
      AllocateTo(page_bytes * limits_.value_page_values, value_buffer_));
  slots_.resize(limits_.gather_pages);
  std::iota(slots_.begin(), slots_.end(), 0);
  return absl::OkStatus();
}

absl::Status ContextAttention::AllocateTo(int64_t bytes, void*& memory) {
  ASSIGN_OR_RETURN(memory, backend_.Allocate(bytes));
  allocations_.push_back(memory);
  return absl::OkStatus();
}

// ---------------------------------------------------------- queries travel

absl::Status ContextAttention::ByQueries(
    const KvPlanes& planes, Tensor q,
    std::span<const AttentionSequence> sequences, Tensor out) {
  const int num_ranks = collective_.size();
  const int heads = limits_.num_heads;
  const int own_heads = heads / num_ranks;
  ListRuns(sequences);
  RETURN_IF_ERROR(GatherQueries(q));
  const AttentionPart ours = {
      .out = Dense(part_out_, DType::kF32, q.rows, q.cols),
      .lse = Dense(part_lse_, DType::kF32, q.rows, heads)};
  backend_.Attend({.q = q,
                   .planes = planes,
                   .step_keys = {},
                   .step_values = {},
                   .sequences = sequences,
                   .num_heads = heads,
                   .rank = collective_.rank(),
                   .num_ranks = num_ranks,
                   .out = ours.out,
                   .lse = ours.lse});
  RETURN_IF_ERROR(ReturnParts(ours, planes.head_dim));

  const int first_head = collective_.rank() * own_heads;
  for (const RowRun& run : runs_) {
    parts_.clear();
    for (int rank = 0; rank < num_ranks; ++rank) {
      if (rank != collective_.rank()) {
        parts_.push_back(RowsOf(PartFrom(rank, q.rows, planes.head_dim),
                                run.first, run.count));
        continue;
      }
      AttentionPart own = RowsOf(ours, run.first, run.count);
      own.out = own.out.Cols(first_head * planes.head_dim,
                             own_heads * planes.head_dim);
      own.lse = own.lse.Cols(first_head, own_heads);
      parts_.push_back(own);
    }
    backend_.MergeAttention({.parts = parts_,
                             .num_heads = own_heads,
                             .out = out.Rows(run.first, run.count),
                             .lse = {}});
  }
  return absl::OkStatus();
}

// Neighbouring rows of sequences that follow each other, as one run.
void ContextAttention::ListRuns(std::span<const AttentionSequence> sequences) {
  runs_.clear();
  for (const AttentionSequence& sequence : sequences) {
    if (!runs_.empty() &&
        runs_.back().first + runs_.back().count == sequence.first_row) {
      runs_.back().count += sequence.num_tokens;
    } else {
      runs_.push_back({sequence.first_row, sequence.num_tokens});
    }
  }
}

absl::Status ContextAttention::GatherQueries(Tensor q) {
  const int cols = q.cols / collective_.size();
  const auto columns_of = [&](int rank, const RowRun& run) {
    return q.Rows(run.first, run.count).Cols(rank * cols, cols);
  };
  for (int rank = 0; rank < collective_.size(); ++rank) {
    if (rank == collective_.rank()) continue;
    for (const RowRun& run : runs_) {
      sends_.push_back({rank, columns_of(collective_.rank(), run)});
      receives_.push_back({rank, columns_of(rank, run)});
    }
  }
  return Exchange(CollectiveKind::kAllGather);
}

// Each rank gets what the others' pages gave for its heads.
absl::Status ContextAttention::ReturnParts(const AttentionPart& ours,
                                           int head_dim) {
  const int heads = limits_.num_heads / collective_.size();
  for (int rank = 0; rank < collective_.size(); ++rank) {
    if (rank == collective_.rank()) continue;
    const AttentionPart theirs = PartFrom(rank, ours.out.rows, head_dim);
    for (const RowRun& run : runs_) {
      const AttentionPart part = RowsOf(ours, run.first, run.count);
      const AttentionPart to = RowsOf(theirs, run.first, run.count);
      sends_.push_back(
          {rank, part.out.Cols(rank * heads * head_dim, heads * head_dim)});
      sends_.push_back({rank, part.lse.Cols(rank * heads, heads)});
      receives_.push_back({rank, to.out});
      receives_.push_back({rank, to.lse});
    }
  }
  return Exchange(CollectiveKind::kAllToAll);
}

// Where another rank's part lies: one after the other, without our own.
AttentionPart ContextAttention::PartFrom(int rank, int rows,
                                         int head_dim) const {
  const int heads = limits_.num_heads / collective_.size();
  const int64_t first =
      int64_t{rank - (rank > collective_.rank() ? 1 : 0)} * rows * heads;
  return {.out = Dense(static_cast<float*>(other_out_) + first * head_dim,
                       DType::kF32, rows, heads * head_dim),
          .lse = Dense(static_cast<float*>(other_lse_) + first, DType::kF32,
                       rows, heads)};
}

absl::Status ContextAttention::Exchange(CollectiveKind kind) {
  const absl::Status status = lapidary::Exchange(
      collective_, kind, Traffic::kGlobalLayer, sends_, receives_);
  sends_.clear();
  receives_.clear();
  return status;
}

// ------------------------------------------------------------- keys travel

absl::Status ContextAttention::ByKeys(const Pages& pages, int context,
                                      AttendArgs step) {
  CHECK_EQ(step.sequences.size(), 1u);
  AttentionSequence sequence = step.sequences.front();
  step.sequences = {&sequence, 1};
  step.planes = pages.planes;
  step.planes.keys = key_buffer_;
  step.planes.values = value_buffer_;
  const Tensor out = step.out;
  const int rows = step.q.rows;
  const AttentionPart segment = {
      .out = Dense(part_out_, DType::kF32, rows, out.cols),
      .lse = Dense(part_lse_, DType::kF32, rows, step.num_heads)};
  const AttentionPart before = {
      .out = Dense(other_out_, DType::kF32, rows, out.cols),
      .lse = Dense(other_lse_, DType::kF32, rows, step.num_heads)};

  const int num_pages = NumPages(context);
  int first = 0;
  do {
    const int end = std::min(num_pages, first + limits_.gather_pages);
    RETURN_IF_ERROR(GatherPages(pages, first, end, step.planes, 0));
    sequence.pages = slots_.data();
    sequence.first_page = first;
    sequence.num_pages = end - first;
    sequence.first_key = first * kPageTokens;
    sequence.end_key = end < num_pages ? end * kPageTokens : INT_MAX;
    const bool only = first == 0 && end == num_pages;
    const AttentionPart& to = first == 0 ? before : segment;
    step.out = only ? out : to.out;
    step.lse = only ? Tensor() : to.lse;
    if (sequence.num_tokens > 0) backend_.Attend(step);
    if (first > 0 && sequence.num_tokens > 0) {
      parts_ = {RowsOf(before, sequence.first_row, sequence.num_tokens),
                RowsOf(segment, sequence.first_row, sequence.num_tokens)};
      const bool last = end == num_pages;
      backend_.MergeAttention(
          {.parts = parts_,
           .num_heads = step.num_heads,
           .out = last ? out.Rows(sequence.first_row, sequence.num_tokens)
                       : parts_[0].out,
           .lse = parts_[0].lse});
    }
    first = end;
  } while (first < num_pages);
  return absl::OkStatus();
}

// As many at a time as the buffer holds, which bounds what exchanges pack.
absl::Status ContextAttention::GatherPages(const Pages& pages, int first_page,
                                           int end_page, const KvPlanes& to,
                                           int first_slot) {
  int first = first_page;
  do {
    const int end = std::min(end_page, first + limits_.gather_pages);
    RETURN_IF_ERROR(
        GatherSegment(pages, first, end, to, first_slot + first - first_page));
    first = end;
  } while (first < end_page);
  return absl::OkStatus();
}

absl::Status ContextAttention::GatherSegment(const Pages& pages, int first_page,
                                             int end_page, const KvPlanes& to,
                                             int first_slot) {
  const int num_ranks = collective_.size();
  for (int p = first_page; p < end_page; ++p) {
    const int owner = p % num_ranks;
    const int slot = first_slot + p - first_page;
    if (owner != collective_.rank()) {
      receives_.push_back({owner, KeyPage(to, slot)});
      receives_.push_back({owner, ValuePage(to, slot)});
      continue;
    }
    CHECK_NE(pages.table[p], kNoPage);
    const Tensor keys = KeyPage(pages.planes, pages.table[p]);
    const Tensor values = ValuePage(pages.planes, pages.table[p]);
    backend_.Copy(keys, KeyPage(to, slot));
    backend_.Copy(values, ValuePage(to, slot));
    for (int rank = 0; rank < num_ranks; ++rank) {
      if (rank == owner) continue;
      sends_.push_back({rank, keys});
      sends_.push_back({rank, values});
    }
  }
  return Exchange(CollectiveKind::kAllGather);
}

}  // namespace lapidary
