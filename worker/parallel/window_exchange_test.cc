// Halo and tail of rounds over random keys: what arrives equals, bit for bit,
// what the ranks that have it started with.

#include "worker/parallel/window_exchange.h"

#include <algorithm>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/testing/status_matchers.h"
#include "common/tokens.h"
#include "gtest/gtest.h"
#include "kernels/cpu/cpu_backend.h"
#include "kernels/testing/attention_fixture.h"
#include "kernels/testing/matrix.h"
#include "worker/parallel/testing/rank_threads.h"

namespace lapidary {
namespace {

constexpr int kHeadDim = 16;
constexpr int kMaxTokens = 1100;

struct Heads {
  std::string name;
  int num_ranks;
  int kv_heads;
};

AttentionLayer LayerOf(int kv_heads) {
  return {.heads = kv_heads,
          .kv_heads = kv_heads,
          .head_dim = kHeadDim,
          .key_half = kHeadDim / 2,
          .window = 0};
}

// The columns of some heads of keys or values.
Tensor Columns(Matrix& rows, const KvHeadShare& share) {
  return rows.tensor().Cols(share.first * kHeadDim, share.count * kHeadDim);
}

class WindowExchangeTest : public ::testing::TestWithParam<Heads> {
 protected:
  int num_ranks() const { return GetParam().num_ranks; }

  // One layer in one round.  Each rank starts with the window before the round
  // in the pages of its heads and with the keys of its range.
  void Run(int window, int start, const std::vector<int>& range_ends) {
    SCOPED_TRACE(absl::StrCat("window ", window, ", round from ", start));
    const RoundSplit split(start, range_ends, window);
    RunThreads(num_ranks(), [&](Collective& collective) {
      RunRank(window, split, collective);
    });
  }

  void RunRank(int window, const RoundSplit& split, Collective& collective) {
    const int kv_heads = GetParam().kv_heads;
    const int end = split.round().end;
    const int earliest = std::max(0, split.round().begin - (window - 1));
    const KvHeadShare share =
        ShareOfKvHeads(kv_heads, collective.rank(), num_ranks());
    const auto backend = NewCpuBackend({.threads = 1}).value();
    PagedStore store(LayerOf(share.count), DType::kF32, *backend);
    const std::vector<PageId> pages = store.NewPages(end, 0);

    AttentionSequence sequence = {
        .num_tokens = end, .pages = pages.data(), .num_pages = NumPages(end)};
    AttentionSequence earlier = sequence;
    earlier.num_tokens = split.round().begin;
    backend->WriteKv({.keys = Columns(history_.keys, share),
                      .values = Columns(history_.values, share),
                      .planes = store.planes(),
                      .sequences = {&earlier, 1},
                      .first_positions = {&earliest, 1}});

    const PositionRange range = split.range(collective.rank());
    const PositionRange halo = split.halo(collective.rank());
    Matrix keys(DType::kF32, halo.size() + range.size(), kv_heads * kHeadDim);
    Matrix values = keys;
    keys.FillNan();
    values.FillNan();
    for (int p = range.begin; p < range.end; ++p) {
      keys.CopyRow(p - halo.begin, history_.keys, p);
      values.CopyRow(p - halo.begin, history_.values, p);
    }

    const auto exchange =
        WindowExchange::Create({.window = window,
                                .key_cols = share.count * kHeadDim,
                                .value_cols = share.count * kHeadDim},
                               *backend, collective);
    ASSERT_OK(exchange);
    ASSERT_OK((*exchange)->Start(split, {.planes = store.planes(),
                                         .kv_heads = kv_heads,
                                         .keys = keys.tensor(),
                                         .values = values.tensor(),
                                         .pages = sequence}));
    ASSERT_OK((*exchange)->FinishHalo());
    for (int p = halo.begin; p < range.end; ++p) {
      ASSERT_TRUE(keys.SameRow(p - halo.begin, history_.keys, p)) << p;
      ASSERT_TRUE(values.SameRow(p - halo.begin, history_.values, p)) << p;
    }
    ASSERT_OK((*exchange)->FinishTail());
    ExpectPagesHoldTheWindow(window, end, share, history_, store, pages,
                             *backend);
  }

  // The W - 1 positions before `end`, from the round or before it.
  static void ExpectPagesHoldTheWindow(int window, int end,
                                       const KvHeadShare& share,
                                       const History& history,
                                       const PagedStore& store,
                                       const std::vector<PageId>& pages,
                                       Backend& backend) {
    const int begin = std::max(0, end - (window - 1));
    if (begin == end) return;
    Matrix keys(DType::kF32, end - begin, share.count * kHeadDim);
    Matrix values = keys;
    backend.ReadKv({.planes = store.planes(),
                    .pages = pages.data(),
                    .num_pages = static_cast<int>(pages.size()),
                    .first_position = begin,
                    .keys = keys.tensor(),
                    .values = values.tensor()});
    for (int p = begin; p < end; ++p) {
      for (int c = 0; c < keys.cols(); ++c) {
        const int column = share.first * kHeadDim + c;
        ASSERT_EQ(keys.at(p - begin, c), history.keys.at(p, column)) << p;
        ASSERT_EQ(values.at(p - begin, c), history.values.at(p, column)) << p;
      }
    }
  }

  // Ends of ranges of so many tokens each, as many as there are ranks.
  std::vector<int> Ends(int start, std::vector<int> sizes) const {
    sizes.resize(num_ranks(), sizes.back());
    std::vector<int> ends;
    for (const int size : sizes) ends.push_back(start += size);
    return ends;
  }

  // Of the whole layer; all ranks read it.
  History history_ =
      RandomHistory(LayerOf(GetParam().kv_heads), DType::kF32, kMaxTokens, 3);
};

INSTANTIATE_TEST_SUITE_P(Groups, WindowExchangeTest,
                         ::testing::Values(Heads{"OneHeadARank", 3, 3},
                                           Heads{"TwoHeadsARank", 2, 4},
                                           Heads{"TwoRanksAHead", 4, 2},
                                           Heads{"FourRanksAHead", 4, 1}),
                         [](const auto& info) { return info.param.name; });

constexpr int kWindows[] = {1, 2, 63, 64, 65, 150};

TEST_P(WindowExchangeTest, BringsTheWindowBeforeEachRange) {
  for (const int window : kWindows) {
    for (const int start : {0, 64, 100, 320}) {
      Run(window, start, Ends(start, {192}));
    }
  }
}

TEST_P(WindowExchangeTest, ReachesOverRangesShorterThanTheWindow) {
  for (const int window : kWindows) {
    for (const int start : {0, 64, 300}) Run(window, start, Ends(start, {64}));
  }
}

TEST_P(WindowExchangeTest, PassesEmptyRangesBy) {
  for (const int window : {2, 64, 150}) {
    for (const int start : {0, 128}) {
      Run(window, start, Ends(start, {0, 128, 0}));
      Run(window, start, Ends(start, {128, 0, 64}));
      Run(window, start, Ends(start, {64, 0}));
    }
  }
}

// The tail is the whole round, and the rest of the window is where it was.
TEST_P(WindowExchangeTest, ARoundMayBeShorterThanTheWindow) {
  for (const int window : kWindows) Run(window, 100, Ends(100, {28, 1, 0}));
}

}  // namespace
}  // namespace lapidary
