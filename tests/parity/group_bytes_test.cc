// What ranks receive, as their collectives count it, against the formulas of
// the architecture (5.2) that context_split.h writes down: every byte, and none
// besides.

#include <algorithm>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "common/testing/status_matchers.h"
#include "common/tokens.h"
#include "gtest/gtest.h"
#include "kernels/tensor.h"
#include "tests/parity/random_config.h"
#include "tests/parity/reference_model.h"
#include "tests/parity/small_group.h"
#include "tools/sequence_driver.h"
#include "worker/model/model_shape.h"
#include "worker/parallel/collective.h"
#include "worker/parallel/context_split.h"
#include "worker/parallel/transfer_counters.h"
#include "worker/schedule/cost_model.h"
#include "worker/schedule/step_plan.h"

namespace lapidary {
namespace {

using Part = SequenceDriver::Part;
using Replica = SequenceDriver::Replica;
using Sequence = SequenceDriver::Sequence;

constexpr int kWindow = 100;
constexpr int kWindowLayers = 2;
constexpr int kGlobalLayers = 1;
constexpr int kLayers = kWindowLayers + kGlobalLayers;
constexpr int kMaxTokens = 2048;
constexpr int kGatherPages = 3;

// A model and a group of it.
struct Param {
  std::string name;
  int num_ranks = 0;
  int num_kv_heads = 0;  // Of window layers.
  bool k_eq_v = true;
  DType compute = DType::kF32;
};

class GroupBytesTest : public ::testing::TestWithParam<Param> {
 protected:
  using ByRank = std::vector<int64_t>;

  // Bytes received since the last call, by kind and traffic.
  class Received {
   public:
    explicit Received(const std::vector<TransferCounters>& before,
                      const std::vector<TransferCounters>& after)
        : before_(before), after_(after) {}

    ByRank Of(CollectiveKind kind, Traffic traffic) const {
      ByRank bytes;
      for (size_t r = 0; r < after_.size(); ++r) {
        bytes.push_back(after_[r].of(kind, traffic).bytes_received -
                        before_[r].of(kind, traffic).bytes_received);
      }
      return bytes;
    }

    ByRank Total() const {
      ByRank bytes;
      for (size_t r = 0; r < after_.size(); ++r) {
        bytes.push_back(after_[r].Total().bytes_received -
                        before_[r].Total().bytes_received);
      }
      return bytes;
    }

    // Exchanges; all ranks take part in each.
    int64_t Calls(CollectiveKind kind, Traffic traffic) const {
      return after_[0].of(kind, traffic).calls -
             before_[0].of(kind, traffic).calls;
    }

   private:
    const std::vector<TransferCounters> before_;
    const std::vector<TransferCounters> after_;
  };

  int num_ranks() const { return GetParam().num_ranks; }

  std::vector<TransferCounters> Counters() const {
    std::vector<TransferCounters> counters;
    for (int r = 0; r < num_ranks(); ++r) {
      counters.push_back(group_.group->collective(r).counters());
    }
    return counters;
  }

  // A step under head split; logits of its last `num_logits` tokens.
  Received Step(int num_tokens, int num_logits = 0) {
    const Part part = NextPart(num_tokens, num_logits);
    const auto before = Counters();
    EXPECT_OK(group_.driver->Step({&part, 1}));
    return Received(before, Counters());
  }

  // A round to the last of `range_ends`.
  Received Round(const std::vector<int>& range_ends, Replica replica,
                 int num_logits = 0) {
    const Part part = NextPart(range_ends.back() - position(), num_logits);
    const auto before = Counters();
    EXPECT_OK(group_.driver->StepRound(part, range_ends, replica));
    return Received(before, Counters());
  }

  Part NextPart(int num_tokens, int num_logits) {
    Part part = {.sequence = &sequence_, .num_tokens = num_tokens};
    for (int i = num_logits; i > 0; --i) {
      part.logit_positions.push_back(position() + num_tokens - i);
    }
    return part;
  }

  int position() const { return sequence_.num_computed; }

  // Ranges of `pages` each.
  std::vector<int> EqualRanges(int pages) const {
    std::vector<int> ends;
    for (int r = 1; r <= num_ranks(); ++r) {
      ends.push_back(position() + r * pages * kPageTokens);
    }
    return ends;
  }

  // Of one page, two pages, none, and so on: some are shorter than the window.
  std::vector<int> UnequalRanges() const {
    std::vector<int> ends;
    int end = position();
    for (int r = 0; r < num_ranks(); ++r) {
      ends.push_back(end += (r + 1) % 3 * kPageTokens);
    }
    return ends;
  }

  // `bytes` of the rank in each of `layers`.
  template <class Bytes>
  ByRank EachRank(int layers, const Bytes& bytes) const {
    ByRank by_rank;
    for (int r = 0; r < num_ranks(); ++r) by_rank.push_back(layers * bytes(r));
    return by_rank;
  }

  CostModel Costs() const {
    return CostModel(ShapeOfModel(group_.group->model(0).config()),
                     {.matmul_flops = 1,
                      .attention_flops = 1,
                      .read_bytes = 1,
                      .link_bytes = 1,
                      .link_latency = absl::ZeroDuration()},
                     {.num_ranks = num_ranks(),
                      .activation_bytes = activation_bytes(),
                      .gather_pages = kGatherPages});
  }

  int activation_bytes() const { return SizeOf(GetParam().compute); }
  GlobalShape global() const {
    const bool k_eq_v = GetParam().k_eq_v;
    return {
        .num_heads = config_.num_heads,
        .kv_heads = k_eq_v ? config_.num_global_kv_heads : config_.num_kv_heads,
        .head_dim = config_.global_head_dim,
        .key_half = k_eq_v ? 4 : config_.global_head_dim / 2,
        .activation_bytes = activation_bytes(),
        .k_eq_v = k_eq_v};
  }
  WindowShape window() const {
    return {.kv_heads = config_.num_kv_heads,
            .head_dim = config_.head_dim,
            .activation_bytes = activation_bytes()};
  }

  const SmallConfig config_ = {.hidden_size = 96,
                               .intermediate_size = 192,
                               .vocab_size = 768,
                               .num_heads = 24,
                               .num_kv_heads = GetParam().num_kv_heads,
                               .num_global_kv_heads = 2,
                               .head_dim = 16,
                               .global_head_dim = 32,
                               .window = kWindow,
                               .k_eq_v = GetParam().k_eq_v,
                               .is_global = {false, false, true}};
  const SmallModel model_{"bytes", config_, 5};
  const SmallGroup group_ = model_.Start({.compute = GetParam().compute,
                                          .num_ranks = num_ranks(),
                                          .max_tokens = kMaxTokens,
                                          .gather_pages = kGatherPages});
  Sequence sequence_ =
      group_.driver->NewSequence(RandomTokens(config_, kMaxTokens, 3));
};

INSTANTIATE_TEST_SUITE_P(
    Groups, GroupBytesTest,
    ::testing::Values(Param{"TwoRanks", 2, 12}, Param{"ThreeRanks", 3, 12},
                      Param{"FourRanks", 4, 12},
                      Param{"EightRanksOfTwoKvHeads", 8, 2},
                      Param{"OwnValues", 4, 2, false},
                      Param{"Bf16", 2, 12, true, DType::kBf16}),
    [](const auto& info) { return info.param.name; });

TEST_P(GroupBytesTest, HeadSplitSumsTwiceALayer) {
  const Received received = Step(48);
  const auto sums = [&](int layers) {
    return EachRank(layers, [&](int) {
      return AllReduceBytes(48, config_.hidden_size, activation_bytes(),
                            num_ranks());
    });
  };
  EXPECT_EQ(received.Of(CollectiveKind::kAllReduce, Traffic::kWindowLayer),
            sums(kWindowLayers));
  EXPECT_EQ(received.Of(CollectiveKind::kAllReduce, Traffic::kGlobalLayer),
            sums(kGlobalLayers));
  EXPECT_EQ(received.Of(CollectiveKind::kAllReduce, Traffic::kFeedForward),
            sums(kLayers));
}

TEST_P(GroupBytesTest, QueriesTravelWhereTheContextIsLonger) {
  Step(700);
  ASSERT_EQ(ChooseTravel(700, 1, global()), Travel::kQueries);
  const Received received = Step(1);
  ByRank bytes = received.Of(CollectiveKind::kAllGather, Traffic::kGlobalLayer);
  const ByRank back =
      received.Of(CollectiveKind::kAllToAll, Traffic::kGlobalLayer);
  for (int r = 0; r < num_ranks(); ++r) bytes[r] += back[r];
  EXPECT_EQ(bytes, EachRank(kGlobalLayers, [&](int) {
              return QueriesTravelBytes(1, global(), num_ranks());
            }));
}

TEST_P(GroupBytesTest, KeysTravelWhereTheQueriesAreMore) {
  const int context = num_ranks() * kPageTokens;
  Step(context);
  ASSERT_EQ(ChooseTravel(context, 200, global()), Travel::kKeys);
  const Received received = Step(200);
  EXPECT_EQ(received.Of(CollectiveKind::kAllGather, Traffic::kGlobalLayer),
            EachRank(kGlobalLayers, [&](int) {
              return KeysTravelBytes(context, global(), num_ranks());
            }));
  EXPECT_EQ(received.Of(CollectiveKind::kAllToAll, Traffic::kGlobalLayer),
            ByRank(num_ranks(), 0));
}

TEST_P(GroupBytesTest, HeadSplitExchangesNothingElse) {
  Step(130);
  const int64_t layers =
      2 * kLayers *
      AllReduceBytes(1, config_.hidden_size, activation_bytes(), num_ranks());
  ASSERT_EQ(ChooseTravel(130, 1, global()), Travel::kQueries);
  EXPECT_EQ(Step(1).Total(), EachRank(1, [&](int) {
              return layers + kGlobalLayers *
                                  QueriesTravelBytes(1, global(), num_ranks());
            }));
}

TEST_P(GroupBytesTest, ARoundsKeysTravelOnce) {
  const std::vector<int> ends = EqualRanges(2);
  const int64_t tokens = ends.back();
  const GlobalShape shape = global();
  const Received received = Round(ends, Replica::kUse);
  EXPECT_EQ(received.Of(CollectiveKind::kAllGather, Traffic::kGlobalLayer),
            EachRank(kGlobalLayers, [&](int) {
              return tokens * shape.kv_heads * shape.head_dim *
                     (shape.k_eq_v ? 1 : 2) * shape.activation_bytes *
                     (num_ranks() - 1) / num_ranks();
            }));
}

TEST_P(GroupBytesTest, OfUnequalRangesKeysTravelToThoseWithoutThem) {
  const std::vector<int> ends = UnequalRanges();
  const RoundSplit split(0, ends, kWindow);
  const Received received = Round(ends, Replica::kUse);
  EXPECT_EQ(received.Of(CollectiveKind::kAllGather, Traffic::kGlobalLayer),
            EachRank(kGlobalLayers, [&](int rank) {
              return RoundKeysBytes(split, rank, global());
            }));
}

// 2 (W-1) K d e a border.
TEST_P(GroupBytesTest, AHaloIsTheWindowBeforeARange) {
  const Received received = Round(EqualRanges(2), Replica::kUse);
  const WindowShape shape = window();
  EXPECT_EQ(received.Of(CollectiveKind::kSendReceive, Traffic::kWindowLayer),
            EachRank(kWindowLayers, [&](int rank) {
              return rank == 0 ? 0
                               : int64_t{2} * (kWindow - 1) * shape.kv_heads *
                                     shape.head_dim * shape.activation_bytes;
            }));
}

TEST_P(GroupBytesTest, PositionsBeforeTheRoundComeFromTheHeadsOwners) {
  Round(EqualRanges(1), Replica::kUse);
  const WindowShape shape = window();
  const int others =
      shape.kv_heads - ShareOfKvHeads(shape.kv_heads, 0, num_ranks()).count;
  const Received received = Round(EqualRanges(2), Replica::kUse);
  EXPECT_EQ(received.Of(CollectiveKind::kSendReceive, Traffic::kWindowLayer)[0],
            int64_t{kWindowLayers} * 2 * (kWindow - 1) * others *
                shape.head_dim * shape.activation_bytes);
}

TEST_P(GroupBytesTest, AHaloMayReachOverShortRanges) {
  Step(90);
  const std::vector<int> ends = UnequalRanges();
  const RoundSplit split(90, ends, kWindow);
  const Received received = Round(ends, Replica::kNone);
  EXPECT_EQ(received.Of(CollectiveKind::kSendReceive, Traffic::kWindowLayer),
            EachRank(kWindowLayers, [&](int rank) {
              return HaloBytes(split, rank, window());
            }));
}

TEST_P(GroupBytesTest, TheTailGoesToTheHeadsOwners) {
  const std::vector<int> ends = EqualRanges(2);
  const WindowShape shape = window();
  const int held = ShareOfKvHeads(shape.kv_heads, 0, num_ranks()).count;
  const Received received = Round(ends, Replica::kUse);
  EXPECT_EQ(received.Of(CollectiveKind::kAllToAll, Traffic::kWindowLayer),
            EachRank(kWindowLayers, [&](int rank) {
              return rank == num_ranks() - 1
                         ? 0
                         : int64_t{2} * (kWindow - 1) * held * shape.head_dim *
                               shape.activation_bytes;
            }));
}

TEST_P(GroupBytesTest, ATailMayLieInSeveralRanges) {
  Step(90);
  const std::vector<int> ends = UnequalRanges();
  const RoundSplit split(90, ends, kWindow);
  const Received received = Round(ends, Replica::kNone);
  EXPECT_EQ(received.Of(CollectiveKind::kAllToAll, Traffic::kWindowLayer),
            EachRank(kWindowLayers, [&](int rank) {
              return TailBytes(split, rank, window());
            }));
}

TEST_P(GroupBytesTest, WithoutAReplicaEarlierPagesComeAgain) {
  Step(num_ranks() * kPageTokens);
  for (int round = 0; round < 2; ++round) {
    const int start = position();
    const std::vector<int> ends = EqualRanges(1);
    const RoundSplit split(start, ends, kWindow);
    const Received received = Round(ends, Replica::kNone);
    EXPECT_EQ(received.Of(CollectiveKind::kAllGather, Traffic::kGlobalLayer),
              EachRank(kGlobalLayers, [&](int rank) {
                return RoundKeysBytes(split, rank, global()) +
                       KeysTravelBytes(start, global(), num_ranks());
              }));
  }
}

TEST_P(GroupBytesTest, AReplicaIsFilledOnceAfterASwitch) {
  Step(200);
  for (const int missing : {NumPages(200), 0}) {
    const std::vector<int> ends = UnequalRanges();
    const RoundSplit split(position(), ends, kWindow);
    const Received received = Round(ends, Replica::kUse);
    EXPECT_EQ(received.Of(CollectiveKind::kAllGather, Traffic::kGlobalLayer),
              EachRank(kGlobalLayers, [&](int rank) {
                return RoundKeysBytes(split, rank, global()) +
                       PagesBytes(0, missing, rank, num_ranks(), global());
              }));
  }
}

TEST_P(GroupBytesTest, LogitsGoToTheLeader) {
  ByRank expected(num_ranks(), 0);
  expected[0] = LogitsBytes(7, config_.vocab_size, num_ranks());
  EXPECT_EQ(
      Step(20, /*num_logits=*/7).Of(CollectiveKind::kGather, Traffic::kHead),
      expected);
  EXPECT_EQ(Round(EqualRanges(1), Replica::kUse, /*num_logits=*/7)
                .Of(CollectiveKind::kGather, Traffic::kHead),
            expected);
}

// Each rank multiplies them with its vocabulary.
TEST_P(GroupBytesTest, ARoundsFinalStatesGoToAllRanks) {
  const std::vector<int> ends = EqualRanges(1);
  const RoundSplit split(0, ends, kWindow);
  constexpr int kRows = kPageTokens + 3;  // Of two ranges.
  const Received received = Round(ends, Replica::kUse, kRows);
  EXPECT_EQ(received.Of(CollectiveKind::kBroadcast, Traffic::kHead),
            EachRank(1, [&](int rank) {
              return FinalStatesBytes(split, rank, kRows, config_.hidden_size,
                                      activation_bytes());
            }));
}

TEST_P(GroupBytesTest, ARoundExchangesNothingElse) {
  Step(90);
  const std::vector<int> ends = UnequalRanges();
  const RoundSplit split(90, ends, kWindow);
  EXPECT_EQ(Round(ends, Replica::kNone).Total(), EachRank(1, [&](int rank) {
              return kWindowLayers * (HaloBytes(split, rank, window()) +
                                      TailBytes(split, rank, window())) +
                     kGlobalLayers * (RoundKeysBytes(split, rank, global()) +
                                      PagesBytes(0, NumPages(90), rank,
                                                 num_ranks(), global()));
            }));
}

// The cost model's bytes are those of the rank that receives most.
TEST_P(GroupBytesTest, AreWhatTheCostModelPlans) {
  const CostModel costs = Costs();
  const auto most = [](const ByRank& bytes) {
    return *std::max_element(bytes.begin(), bytes.end());
  };
  Step(90);
  const std::vector<int> ends = UnequalRanges();
  const StepCost round = costs.TokenSplit(90, ends, kNoReplica, 1);
  const Received of_round = Round(ends, Replica::kNone, /*num_logits=*/1);
  EXPECT_EQ(
      most(of_round.Of(CollectiveKind::kSendReceive, Traffic::kWindowLayer)),
      round.of(Transfer::kHalo).bytes);
  EXPECT_EQ(most(of_round.Of(CollectiveKind::kAllToAll, Traffic::kWindowLayer)),
            round.of(Transfer::kWindowTail).bytes);
  EXPECT_EQ(most(of_round.Of(CollectiveKind::kBroadcast, Traffic::kHead)),
            round.of(Transfer::kFinalStates).bytes);
  EXPECT_EQ(most(of_round.Of(CollectiveKind::kGather, Traffic::kHead)),
            round.of(Transfer::kLogits).bytes);
  const int64_t keys =
      most(of_round.Of(CollectiveKind::kAllGather, Traffic::kGlobalLayer));
  // One rank may receive most of the round, another most of the pages.
  EXPECT_LE(keys, round.of(Transfer::kRoundKeys).bytes +
                      round.of(Transfer::kKeys).bytes);

  const CostModel::Part part = {.context = position(), .num_tokens = 1};
  const StepCost step = costs.HeadSplit({&part, 1}, 1);
  const Received of_step = Step(1, /*num_logits=*/1);
  EXPECT_EQ(most(of_step.Total()), step.of(Transfer::kAllReduce).bytes +
                                       step.of(Transfer::kQueries).bytes +
                                       step.of(Transfer::kLogits).bytes);
}

TEST_P(GroupBytesTest, PagesComeInAsManyExchangesAsTheCostModelPlans) {
  Step(4 * kPageTokens);
  const std::vector<int> ends = UnequalRanges();
  const StepCost round = Costs().TokenSplit(position(), ends, kNoReplica, 0);
  ASSERT_EQ(round.of(Transfer::kKeys).exchanges, 2 * kGlobalLayers);
  EXPECT_EQ(Round(ends, Replica::kNone)
                .Calls(CollectiveKind::kAllGather, Traffic::kGlobalLayer),
            round.of(Transfer::kRoundKeys).exchanges +
                round.of(Transfer::kKeys).exchanges);
}

}  // namespace
}  // namespace lapidary
