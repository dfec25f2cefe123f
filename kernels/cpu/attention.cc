#include "kernels/cpu/attention.h"

#include <algorithm>
#include <limits>

#include "common/tokens.h"
#include "glog/logging.h"

namespace lapidary::cpu {
namespace {

// Values of the results of an item that are kept in the second-level cache, and
// query rows an item aims at: the more, the less it costs to load a tile.
constexpr int kItemValues = 48 * 1024;
constexpr int kMaxItemRows = 256;
// An item with fewer rows is computed in pieces.
constexpr int kWholeItemRows = 32;
// Memory for the states of pieces.
constexpr int64_t kMaxStateFloats = int64_t{8} << 20;
constexpr int kAllPieces = -1;

// Rounded up to a cache line.
int64_t Padded(int64_t floats) { return (floats + 15) / 16 * 16; }

int64_t StateFloats(int rows, int head_dim) {
  return 2 * Padded(rows) + Padded(int64_t{rows} * head_dim);
}

AttendState StateAt(float* memory, int rows) {
  return {.max = memory,
          .sum = memory + Padded(rows),
          .out = memory + 2 * Padded(rows)};
}

int Group(const AttendArgs& args) {
  return args.num_heads / args.planes.kv_heads;
}

int TokensPerItem(const AttendArgs& args) {
  const int rows = std::min(kMaxItemRows, kItemValues / args.planes.head_dim);
  return std::max(1, rows / Group(args));
}

// Every page that a query looks at must be there: kernels do not check.
void CheckPages(const AttendArgs& args, const AttentionSequence& sequence) {
  const bool has_step = args.step_values.data != nullptr;
  const int begin =
      args.window == 0 ? 0 : std::max(0, sequence.start - args.window + 1);
  const int end = sequence.start + (has_step ? 0 : sequence.num_tokens);
  for (int p = begin / kPageTokens; p * kPageTokens < end; ++p) {
    if (p % args.num_ranks != args.rank) continue;
    const int index = p - sequence.first_page;
    CHECK(index >= 0 && index < sequence.num_pages)
        << "page " << p << " is outside the page table, which has "
        << sequence.num_pages << " from " << sequence.first_page;
    CHECK(sequence.pages[index] != kNoPage) << "no page " << p;
  }
}

}  // namespace

Attention::Attention(const IsaKernels& kernels, ThreadPool& pool)
    : kernels_(kernels), pool_(pool), threads_(pool.num_threads()) {}

void Attention::Run(const AttendArgs& args) {
  ListItems(args);
  ReserveScratch(args);
  const int num_items = static_cast<int>(items_.size());
  for (int first = 0; first < num_items;) {
    const int end = ListJobs(first, args.planes.head_dim);
    pool_.ParallelFor(static_cast<int>(jobs_.size()), [&](int job, int thread) {
      RunJob(args, jobs_[job], thread);
    });
    pool_.ParallelFor(end - first, [&](int i, int thread) {
      const Item& item = items_[first + i];
      if (item.states >= 0) MergeItem(args, item, thread);
    });
    first = end;
  }
}

void Attention::ListItems(const AttendArgs& args) {
  items_.clear();
  const int tokens = TokensPerItem(args);
  for (const AttentionSequence& sequence : args.sequences) {
    CheckPages(args, sequence);
    for (int t = 0; t < sequence.num_tokens; t += tokens) {
      const int count = std::min(tokens, sequence.num_tokens - t);
      const int first = sequence.start + t;
      const int begin =
          args.window == 0 ? 0 : std::max(0, first - args.window + 1);
      const int first_piece = begin / kPieceTokens;
      const int last_piece = (first + count - 1) / kPieceTokens;
      for (int head = 0; head < args.planes.kv_heads; ++head) {
        items_.push_back({.unit = {.sequence = &sequence,
                                   .kv_head = head,
                                   .first_token = t,
                                   .num_tokens = count,
                                   .piece = 0},
                          .rows = count * Group(args),
                          .first_piece = first_piece,
                          .num_pieces = last_piece - first_piece + 1,
                          .states = -1});
      }
    }
  }
}

int Attention::ListJobs(int first, int head_dim) {
  jobs_.clear();
  const int num_items = static_cast<int>(items_.size());
  const bool few_items = num_items < 4 * pool_.num_threads();
  int64_t floats = 0;
  int i = first;
  for (; i < num_items; ++i) {
    Item& item = items_[i];
    const int64_t needed = item.num_pieces * StateFloats(item.rows, head_dim);
    const bool apart = item.num_pieces > 1 && needed <= kMaxStateFloats &&
                       (few_items || item.rows <= kWholeItemRows);
    if (!apart) {
      jobs_.push_back({.item = i, .piece = kAllPieces});
      continue;
    }
    if (floats + needed > kMaxStateFloats) break;
    item.states = floats;
    floats += needed;
    for (int p = 0; p < item.num_pieces; ++p) {
      jobs_.push_back({.item = i, .piece = p});
    }
  }
  states_.Reserve(floats * sizeof(float));
  return i;
}

void Attention::RunJob(const AttendArgs& args, const Job& job, int thread) {
  const Item& item = items_[job.item];
  ThreadScratch& scratch = threads_[thread];
  AttendUnit unit = item.unit;
  if (job.piece != kAllPieces) {
    unit.piece = item.first_piece + job.piece;
    float* memory = static_cast<float*>(states_.Reserve(0)) + item.states +
                    job.piece * StateFloats(item.rows, args.planes.head_dim);
    kernels_.attend_piece(args, unit, scratch.kernel,
                          StateAt(memory, item.rows));
    return;
  }
  std::fill_n(scratch.total.max, item.rows,
              -std::numeric_limits<float>::infinity());
  for (int p = 0; p < item.num_pieces; ++p) {
    unit.piece = item.first_piece + p;
    kernels_.attend_piece(args, unit, scratch.kernel, scratch.piece);
    kernels_.merge_state(scratch.piece, item.rows, args.planes.head_dim,
                         scratch.total);
  }
  kernels_.finish_attend(args, unit, scratch.total);
}

void Attention::MergeItem(const AttendArgs& args, const Item& item,
                          int thread) {
  const AttendState& total = threads_[thread].total;
  std::fill_n(total.max, item.rows, -std::numeric_limits<float>::infinity());
  float* memory = static_cast<float*>(states_.Reserve(0)) + item.states;
  for (int p = 0; p < item.num_pieces; ++p) {
    kernels_.merge_state(StateAt(memory, item.rows), item.rows,
                         args.planes.head_dim, total);
    memory += StateFloats(item.rows, args.planes.head_dim);
  }
  kernels_.finish_attend(args, item.unit, total);
}

void Attention::ReserveScratch(const AttendArgs& args) {
  const int d = args.planes.head_dim;
  const int rows = TokensPerItem(args) * Group(args);
  const int64_t row_values = Padded(int64_t{rows} * d);
  const int64_t row_scores = int64_t{rows} * kPageTokens;
  const int64_t tile = int64_t{kPageTokens} * d;
  const int64_t floats =
      row_values + 2 * row_scores + 3 * tile + 2 * StateFloats(rows, d);
  for (ThreadScratch& thread : threads_) {
    auto* at =
        static_cast<float*>(thread.memory.Reserve(floats * sizeof(float)));
    const auto take = [&at](int64_t count) {
      float* taken = at;
      at += count;
      return taken;
    };
    thread.kernel = {.q = take(row_values),
                     .scores = take(row_scores),
                     .probabilities = take(row_scores),
                     .keys = take(tile),
                     .packed_keys = reinterpret_cast<uint32_t*>(take(tile)),
                     .packed_values = reinterpret_cast<uint32_t*>(take(tile))};
    thread.piece = StateAt(take(StateFloats(rows, d)), rows);
    thread.total = StateAt(take(StateFloats(rows, d)), rows);
  }
}

}  // namespace lapidary::cpu
