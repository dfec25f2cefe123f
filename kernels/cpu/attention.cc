#include "kernels/cpu/attention.h"

#include <algorithm>
#include <climits>
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

// Heads of q that use one KV head, at most.
int MaxItemHeads(const AttendArgs& args) {
  return std::min(args.group(), args.num_heads);
}

int TokensPerItem(const AttendArgs& args) {
  const int rows = std::min(kMaxItemRows, kItemValues / args.planes.head_dim);
  return std::max(1, rows / MaxItemHeads(args));
}

// The keys that the queries at [first, end) look at, together.
struct KeySpan {
  int begin;
  int end;
};

KeySpan KeysOf(const AttendArgs& args, const AttentionSequence& sequence,
               int first, int end) {
  const int oldest =
      args.window == 0 ? 0 : std::max(0, first - args.window + 1);
  return {std::max(oldest, sequence.first_key),
          std::min(end, sequence.end_key)};
}

void CheckSequence(const AttendArgs& args, const AttentionSequence& sequence) {
  CHECK_GE(sequence.num_tokens, 0);
  CHECK_GE(sequence.first_row, 0);
  CHECK(sequence.earlier_keys >= 0 && sequence.earlier_keys <= sequence.start)
      << sequence.earlier_keys << " keys before " << sequence.start;
  CHECK_GE(sequence.first_key, 0);
  CHECK_EQ(sequence.first_key % kPageTokens, 0);
  CHECK(sequence.end_key % kPageTokens == 0 || sequence.end_key == INT_MAX)
      << "keys to " << sequence.end_key;
  CHECK_LE(sequence.first_row + sequence.num_tokens, args.q.rows);
  if (args.step_values.data != nullptr) {
    const int rows =
        sequence.first_row + sequence.earlier_keys + sequence.num_tokens;
    CHECK_LE(rows, args.step_keys.rows);
    CHECK_LE(rows, args.step_values.rows);
  }
}

// Every page that a query looks at must be there: kernels do not check.
void CheckPages(const AttendArgs& args, const AttentionSequence& sequence) {
  const int after = sequence.start + sequence.num_tokens;
  const bool has_step = args.step_values.data != nullptr;
  const KeySpan keys = KeysOf(args, sequence, sequence.start, after);
  const int end =
      has_step ? std::min(keys.end, sequence.start - sequence.earlier_keys)
               : keys.end;
  if (keys.begin >= end) return;
  for (int p = keys.begin / kPageTokens; p * kPageTokens < end; ++p) {
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
    CheckSequence(args, sequence);
    if (sequence.num_tokens == 0) continue;
    CheckPages(args, sequence);
    for (int t = 0; t < sequence.num_tokens; t += tokens) {
      const int count = std::min(tokens, sequence.num_tokens - t);
      const int first = sequence.start + t;
      const KeySpan keys = KeysOf(args, sequence, first, first + count);
      const int first_piece = keys.begin / kPieceTokens;
      const int num_pieces =
          keys.begin < keys.end
              ? (keys.end - 1) / kPieceTokens - first_piece + 1
              : 0;
      for (int h = 0; h < args.num_heads;) {
        const int kv_head = (args.first_head + h) / args.group();
        const int next = (kv_head + 1) * args.group() - args.first_head;
        const int num_heads = std::min(next, args.num_heads) - h;
        items_.push_back({.unit = {.sequence = &sequence,
                                   .kv_head = kv_head,
                                   .first_head = h,
                                   .num_heads = num_heads,
                                   .first_token = t,
                                   .num_tokens = count,
                                   .piece = 0},
                          .rows = count * num_heads,
                          .first_piece = first_piece,
                          .num_pieces = num_pieces,
                          .states = -1});
        h += num_heads;
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
  const int rows = TokensPerItem(args) * MaxItemHeads(args);
  const int64_t row_values = Padded(int64_t{rows} * d);
  const int64_t row_scores = int64_t{rows} * kPageTokens;
  const int64_t floats = row_values + 2 * row_scores + kKeyCopyWords +
                         kPackedWords + 2 * StateFloats(rows, d);
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
                     .keys = take(kKeyCopyWords),
                     .packed = reinterpret_cast<uint32_t*>(take(kPackedWords))};
    thread.piece = StateAt(take(StateFloats(rows, d)), rows);
    thread.total = StateAt(take(StateFloats(rows, d)), rows);
  }
}

}  // namespace lapidary::cpu
