// Ranks as threads over a tiny model, in both layouts: small enough for the
// sanitizers, which skip the larger tests of groups.

#include <cmath>
#include <numeric>
#include <span>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/testing/status_matchers.h"
#include "gtest/gtest.h"
#include "tests/parity/random_config.h"
#include "tests/parity/reference_model.h"
#include "tests/parity/small_group.h"
#include "tools/sequence_driver.h"

namespace lapidary {
namespace {

using Replica = SequenceDriver::Replica;
using Schedule = SequenceDriver::Schedule;

constexpr int kTokens = 205;
constexpr int kPromptTokens = 200;
constexpr double kMaxDifference = 5e-4;

// Logits of all positions, one after the other.
using Logits = std::vector<float>;

class GroupThreadsTest : public ::testing::TestWithParam<int> {
 protected:
  // The prompt as `schedule` says, the rest token by token.
  Logits Run(int num_ranks, const Schedule& schedule) const {
    const SmallGroup group = model_.Start(
        {.num_ranks = num_ranks, .max_tokens = kTokens, .gather_pages = 2});
    std::vector<int> positions(kTokens);
    std::iota(positions.begin(), positions.end(), 0);
    Logits logits;
    const auto keep = [&](int, std::span<const float> row) {
      logits.insert(logits.end(), row.begin(), row.end());
    };
    SequenceDriver::Sequence sequence = group.driver->NewSequence(
        {tokens_.begin(), tokens_.begin() + kPromptTokens});
    EXPECT_OK(group.driver->Prefill(sequence, schedule, positions, keep));
    sequence.tokens = tokens_;
    EXPECT_OK(group.driver->Prefill(sequence, /*chunk=*/1, positions, keep));
    return logits;
  }

  void ExpectEqualsOneRank(const Schedule& schedule) const {
    const Logits expected = Run(1, {.chunk = kPromptTokens});
    const Logits logits = Run(GetParam(), schedule);
    ASSERT_EQ(logits.size(), expected.size());
    for (size_t i = 0; i < logits.size(); ++i) {
      ASSERT_NEAR(logits[i], expected[i], kMaxDifference) << i;
    }
  }

  static Schedule Rounds(Replica replica) {
    return {.rounds = SequenceDriver::Rounds{.round_tokens = 128,
                                             .max_range_tokens = 128,
                                             .cost = {},
                                             .replica = replica}};
  }

  const SmallConfig config_ = {.hidden_size = 48,
                               .intermediate_size = 48,
                               .vocab_size = 256,
                               .num_heads = 6,
                               .num_kv_heads = GetParam(),
                               .window = 70};
  const SmallModel model_{"threads", config_, 1};
  const std::vector<TokenId> tokens_ = RandomTokens(config_, kTokens, 2);
};

INSTANTIATE_TEST_SUITE_P(Ranks, GroupThreadsTest, ::testing::Values(2, 3),
                         [](const auto& info) {
                           return absl::StrCat("Of", info.param);
                         });

TEST_P(GroupThreadsTest, HeadSplitEqualsOneRank) {
  ExpectEqualsOneRank({.chunk = 90});
}

TEST_P(GroupThreadsTest, RoundsWithAReplicaEqualOneRank) {
  ExpectEqualsOneRank(Rounds(Replica::kUse));
}

TEST_P(GroupThreadsTest, RoundsWithoutAReplicaEqualOneRank) {
  ExpectEqualsOneRank(Rounds(Replica::kNone));
}

}  // namespace
}  // namespace lapidary
