// Queries and keys that travel between ranks, against a softmax in float64 over
// all pages.

#include "worker/parallel/context_attention.h"

#include <cmath>
#include <memory>
#include <numeric>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/testing/status_matchers.h"
#include "gtest/gtest.h"
#include "kernels/cpu/cpu_backend.h"
#include "kernels/testing/attention_fixture.h"
#include "kernels/testing/matrix.h"
#include "worker/parallel/testing/rank_threads.h"

namespace lapidary {
namespace {

constexpr int kMaxRows = 200;

struct Param {
  std::string name;
  int num_ranks;
  AttentionLayer layer;
  DType dtype;
};

// What one rank of the group has.
class Rank {
 public:
  Rank(const Param& param, int gather_pages, Collective& collective)
      : backend(NewCpuBackend({.threads = 1}).value()),
        store(param.layer, param.dtype, *backend),
        collective_(collective) {
    const AttentionLayer& layer = param.layer;
    auto created = ContextAttention::Create(
        {.dtype = param.dtype,
         .num_heads = layer.heads,
         .head_dim = layer.head_dim,
         .key_page_values = layer.kv_heads * kPageTokens * 2 * layer.key_half,
         .value_page_values = layer.kv_heads * kPageTokens * layer.head_dim,
         .max_step_tokens = kMaxRows,
         .max_range_tokens = kMaxRows,
         .gather_pages = gather_pages},
        *backend, collective);
    attention = *std::move(created);
  }

  // The page table of the first `num_tokens` positions of `history`, whose keys
  // are in this rank's pages as far as these hold them.
  std::vector<PageId> Store(History& history, int num_tokens) {
    std::vector<PageId> pages = store.NewPages(num_tokens, 0);
    for (size_t p = 0; p < pages.size(); ++p) {
      if (static_cast<int>(p) % collective_.size() != collective_.rank()) {
        pages[p] = kNoPage;
      }
    }
    if (num_tokens > 0) store.Write(history, pages, 0, num_tokens);
    return pages;
  }

  const std::unique_ptr<Backend> backend;
  PagedStore store;
  std::unique_ptr<ContextAttention> attention;

  // Exchanges of pages so far.
  int64_t num_gathers() const {
    return collective_.counters().of(CollectiveKind::kAllGather).calls;
  }

 private:
  const Collective& collective_;
};

class ContextAttentionTest : public ::testing::TestWithParam<Param> {
 protected:
  const AttentionLayer& layer() const { return GetParam().layer; }
  DType dtype() const { return GetParam().dtype; }
  int num_ranks() const { return GetParam().num_ranks; }
  int own_heads() const { return layer().heads / num_ranks(); }

  // A thread a rank.
  template <class Body>
  void RunRanks(int gather_pages, const Body& body) const {
    RunThreads(num_ranks(), [&](Collective& collective) {
      Rank rank(GetParam(), gather_pages, collective);
      body(collective.rank(), rank);
    });
  }

  // Row `row` of `out` is the query at `position`, heads from `first_head` on.
  void ExpectNear(const History& history, int position, int first_head,
                  const Matrix& out, int row) const {
    const double tolerance = dtype() == DType::kF32 ? 4e-6 : 6e-3;
    const int d = layer().head_dim;
    for (int h = 0; h < out.cols() / d; ++h) {
      const AttendedInFloat64 expected = AttendInFloat64(
          layer(), history, position, first_head + h, [](int) { return true; });
      for (int c = 0; c < d; ++c) {
        ASSERT_NEAR(out.at(row, h * d + c), expected.out[c], tolerance)
            << "position " << position << " head " << first_head + h;
      }
    }
  }
};

constexpr AttentionLayer kLatent = {
    .heads = 12, .kv_heads = 1, .head_dim = 32, .key_half = 4, .window = 0};
constexpr AttentionLayer kWhole = {
    .heads = 12, .kv_heads = 3, .head_dim = 16, .key_half = 8, .window = 0};

INSTANTIATE_TEST_SUITE_P(
    Groups, ContextAttentionTest,
    ::testing::Values(Param{"LatentOfTwo", 2, kLatent, DType::kF32},
                      Param{"LatentOfThree", 3, kLatent, DType::kF32},
                      Param{"WholeOfFour", 4, kWhole, DType::kF32},
                      Param{"WholeOfTwelve", 12, kWhole, DType::kF32},
                      Param{"Bf16OfTwo", 2, kLatent, DType::kBf16},
                      Param{"Bf16OfFour", 4, kWhole, DType::kBf16}),
    [](const auto& info) { return info.param.name; });

// A chunk, a decoded token, and a prompt whose only page is on rank 0; between
// them a row that is another's.
TEST_P(ContextAttentionTest, QueriesSeeThePagesOfAllRanks) {
  struct Case {
    int first_row;
    int start;
    int num_tokens;
  };
  const std::vector<Case> cases = {{0, 280, 20}, {20, 70, 1}, {22, 0, 5}};
  constexpr int kRows = 27;
  constexpr int kOthersRow = 21;
  std::vector<History> histories;
  for (const Case& c : cases) {
    histories.push_back(
        RandomHistory(layer(), dtype(), c.start + c.num_tokens, 100 + c.start));
  }
  RunRanks(/*gather_pages=*/1, [&](int index, Rank& rank) {
    const int d = layer().head_dim;
    Matrix q(dtype(), kRows, layer().heads * d);
    Matrix out(dtype(), kRows, own_heads() * d);
    q.FillNan();
    out.FillNan();
    const int first_head = index * own_heads();
    std::vector<std::vector<PageId>> tables;
    std::vector<AttentionSequence> sequences;
    for (size_t s = 0; s < cases.size(); ++s) {
      const Case& c = cases[s];
      const int length = c.start + c.num_tokens;
      tables.push_back(rank.Store(histories[s], length));
      sequences.push_back({.first_row = c.first_row,
                           .num_tokens = c.num_tokens,
                           .start = c.start,
                           .pages = tables.back().data(),
                           .num_pages = NumPages(length)});
      for (int i = 0; i < c.num_tokens; ++i) {
        for (int col = first_head * d; col < (first_head + own_heads()) * d;
             ++col) {
          q.Set(c.first_row + i, col, histories[s].q.at(c.start + i, col));
        }
      }
    }
    ASSERT_OK(rank.attention->ByQueries(rank.store.planes(), q.tensor(),
                                        sequences, out.tensor()));
    for (size_t s = 0; s < cases.size(); ++s) {
      for (int i = 0; i < cases[s].num_tokens; i += 4) {
        ExpectNear(histories[s], cases[s].start + i, first_head, out,
                   cases[s].first_row + i);
        if (HasFatalFailure()) return;
      }
    }
    EXPECT_TRUE(std::isnan(out.at(kOthersRow, 0)));
  });
}

// Of a step's sequence in which every rank has its heads of all tokens.
TEST_P(ContextAttentionTest, KeysComeToTheHeadsOfARank) {
  constexpr int kFirstRow = 3;
  for (const int context : {0, 64, 200}) {
    const int length = context + 30;
    History history = RandomHistory(layer(), dtype(), length, 7);
    for (const int gather_pages : {1, 3, 100}) {
      RunRanks(gather_pages, [&](int index, Rank& rank) {
        const std::vector<PageId> pages = rank.Store(history, length);
        const int d = layer().head_dim;
        const int first_head = index * own_heads();
        Matrix out(dtype(), kFirstRow + 30, own_heads() * d);
        const AttentionSequence sequence = {
            .first_row = kFirstRow, .num_tokens = 30, .start = context};
        // Rows from the sequence's first on; those before belong to others.
        Matrix q(dtype(), kFirstRow + 30, own_heads() * d);
        Matrix keys(dtype(), kFirstRow + 30, history.keys.cols());
        Matrix values(dtype(), kFirstRow + 30, history.values.cols());
        for (int i = 0; i < 30; ++i) {
          keys.CopyRow(kFirstRow + i, history.keys, context + i);
          values.CopyRow(kFirstRow + i, history.values, context + i);
          for (int col = 0; col < q.cols(); ++col) {
            q.Set(kFirstRow + i, col,
                  history.q.at(context + i, first_head * d + col));
          }
        }
        ASSERT_OK(rank.attention->ByKeys(
            {.planes = rank.store.planes(), .table = pages}, context,
            {.q = q.tensor(),
             .planes = {},
             .step_keys = keys.tensor(),
             .step_values = values.tensor(),
             .sequences = {&sequence, 1},
             .num_heads = own_heads(),
             .first_head = first_head,
             .num_layer_heads = layer().heads,
             .out = out.tensor()}));
        for (const int i : {0, 13, 29}) {
          ExpectNear(history, context + i, first_head, out, kFirstRow + i);
          if (HasFatalFailure()) return;
        }
      });
    }
  }
}

// Of a round in which every rank has all heads of its range; the second rank
// has no range, and takes part.
TEST_P(ContextAttentionTest, KeysComeToTheRangeOfARank) {
  constexpr int kStart = 200;
  constexpr int kRange = 20;
  const int round = kRange * num_ranks();
  History history = RandomHistory(layer(), dtype(), kStart + round, 7);
  for (const int gather_pages : {1, 100}) {
    RunRanks(gather_pages, [&](int index, Rank& rank) {
      const std::vector<PageId> pages = rank.Store(history, kStart + round);
      const int begin = kStart + index * kRange;
      const AttentionSequence sequence = {.first_row = 0,
                                          .num_tokens = index == 1 ? 0 : kRange,
                                          .start = begin,
                                          .earlier_keys = begin - kStart};
      Matrix out(dtype(), kRange, layer().heads * layer().head_dim);
      ASSERT_OK(rank.attention->ByKeys(
          {.planes = rank.store.planes(), .table = pages}, kStart,
          {.q = history.q.tensor().Rows(begin, sequence.num_tokens),
           .planes = {},
           .step_keys = history.keys.tensor().Rows(kStart, round),
           .step_values = history.values.tensor().Rows(kStart, round),
           .sequences = {&sequence, 1},
           .num_heads = layer().heads,
           .out = out.tensor().Rows(0, sequence.num_tokens)}));
      for (int i = 0; i < sequence.num_tokens; i += kRange - 1) {
        ExpectNear(history, begin + i, 0, out, i);
        if (HasFatalFailure()) return;
      }
    });
  }
}

// Bit for bit.
TEST_P(ContextAttentionTest, GathersPagesToSlotsOfEveryRank) {
  constexpr int kFirstPage = 2;
  constexpr int kEndPage = 7;
  constexpr int kFirstSlot = 5;
  constexpr int kPositions = (kEndPage - kFirstPage) * kPageTokens;
  History history = RandomHistory(layer(), dtype(), kEndPage * kPageTokens, 7);
  RunRanks(/*gather_pages=*/2, [&](int, Rank& rank) {
    const std::vector<PageId> pages = rank.Store(history, history.length());
    PagedStore replica(layer(), dtype(), *rank.backend);
    ASSERT_OK(rank.attention->GatherPages(
        {.planes = rank.store.planes(), .table = pages}, kFirstPage, kEndPage,
        replica.planes(), kFirstSlot));
    EXPECT_EQ(rank.num_gathers(), 3) << "five pages, two at a time";
    std::vector<PageId> slots(kEndPage - kFirstPage);
    std::iota(slots.begin(), slots.end(), kFirstSlot);
    Matrix keys(dtype(), kPositions, history.keys.cols());
    Matrix values(dtype(), kPositions, history.values.cols());
    rank.backend->ReadKv({.planes = replica.planes(),
                          .pages = slots.data(),
                          .first_page = kFirstPage,
                          .num_pages = kEndPage - kFirstPage,
                          .first_position = kFirstPage * kPageTokens,
                          .keys = keys.tensor(),
                          .values = values.tensor()});
    for (int i = 0; i < kPositions; ++i) {
      const int position = kFirstPage * kPageTokens + i;
      ASSERT_TRUE(keys.SameRow(i, history.keys, position)) << position;
      ASSERT_TRUE(values.SameRow(i, history.values, position)) << position;
    }
  });
}

}  // namespace
}  // namespace lapidary
