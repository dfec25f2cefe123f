// What ranks take for messages in steps and rounds of every kind, against the
// bound that the memory plan reckons with.

#include "worker/model/exchange_memory.h"

#include <algorithm>
#include <string>
#include <vector>

#include "common/testing/status_matchers.h"
#include "common/tokens.h"
#include "gtest/gtest.h"
#include "kernels/tensor.h"
#include "tests/parity/random_config.h"
#include "tests/parity/reference_model.h"
#include "tests/parity/small_group.h"
#include "tools/sequence_driver.h"
#include "worker/model/gemma_config.h"
#include "worker/model/workspace.h"
#include "worker/parallel/collective.h"

namespace lapidary {
namespace {

using Part = SequenceDriver::Part;
using Replica = SequenceDriver::Replica;

constexpr int kMaxTokens = 1024;
constexpr int kGatherPages = 3;
constexpr int kMaxLogitRows = kPageTokens;

struct Param {
  std::string name;
  int num_ranks = 0;
  int num_kv_heads = 0;  // Of window layers.
  int window = 0;
  bool k_eq_v = true;
  DType compute = DType::kF32;
};

class ExchangeMemoryTest : public ::testing::TestWithParam<Param> {
 protected:
  int num_ranks() const { return GetParam().num_ranks; }

  // Logits of its last `num_logits` tokens.
  void Step(int num_tokens, int num_logits = 0) {
    Part part = {.sequence = &sequence_, .num_tokens = num_tokens};
    for (int i = num_tokens - num_logits; i < num_tokens; ++i) {
      part.logit_positions.push_back(sequence_.num_computed + i);
    }
    shape_.max_step_tokens = std::max(shape_.max_step_tokens, num_tokens);
    shape_.max_logit_rows = std::max(shape_.max_logit_rows, num_logits);
    EXPECT_OK(group_.driver->Step({&part, 1}));
  }

  // A round of ranges of `pages` each.
  void Round(int pages, Replica replica) {
    std::vector<int> ends;
    for (int r = 1; r <= num_ranks(); ++r) {
      ends.push_back(sequence_.num_computed + r * pages * kPageTokens);
    }
    const Part part = {.sequence = &sequence_,
                       .num_tokens = ends.back() - sequence_.num_computed,
                       .logit_positions = {ends.back() - 1}};
    shape_.max_range_tokens =
        std::max(shape_.max_range_tokens, pages * kPageTokens);
    shape_.max_logit_rows = std::max(shape_.max_logit_rows, 1);
    EXPECT_OK(group_.driver->StepRound(part, ends, replica));
  }

  // The bound of a rank that takes no larger steps than there were.
  void ExpectWithinBound() const {
    for (int rank = 0; rank < num_ranks(); ++rank) {
      EXPECT_LE(group_.group->collective(rank).memory_bytes(),
                ExchangeMemoryBytes(group_.group->model(rank).config(), shape_,
                                    kGatherPages, GetParam().compute));
    }
  }

  const SmallConfig config_ = {.hidden_size = 96,
                               .intermediate_size = 192,
                               .vocab_size = 768,
                               .num_heads = 24,
                               .num_kv_heads = GetParam().num_kv_heads,
                               .num_global_kv_heads = 2,
                               .head_dim = 16,
                               .global_head_dim = 32,
                               .window = GetParam().window,
                               .k_eq_v = GetParam().k_eq_v,
                               .is_global = {false, false, true}};
  const SmallModel model_{"exchange_memory", config_, 5};
  const SmallGroup group_ = model_.Start({.compute = GetParam().compute,
                                          .num_ranks = num_ranks(),
                                          .max_tokens = kMaxTokens,
                                          .max_logit_rows = kMaxLogitRows,
                                          .gather_pages = kGatherPages});
  Workspace::Shape shape_ = {.num_ranks = num_ranks()};
  SequenceDriver::Sequence sequence_ =
      group_.driver->NewSequence(RandomTokens(config_, kMaxTokens, 3));
};

INSTANTIATE_TEST_SUITE_P(
    Groups, ExchangeMemoryTest,
    ::testing::Values(Param{"TwoRanks", 2, 12, 100},
                      Param{"ThreeRanks", 3, 12, 100},
                      Param{"FourRanksWithALongWindow", 4, 12, 500},
                      Param{"EightRanksOfTwoKvHeads", 8, 2, 300},
                      Param{"OwnValues", 4, 2, 100, false},
                      Param{"Bf16", 2, 12, 100, true, DType::kBf16},
                      Param{"EightRanksWithAShortWindow", 8, 2, 20}),
    [](const auto& info) { return info.param.name; });

TEST_P(ExchangeMemoryTest, IsBoundedInLongSteps) {
  Step(kMaxTokens - 1);
  Step(1);
  ExpectWithinBound();
}

TEST_P(ExchangeMemoryTest, IsBoundedBehindAContext) {
  Step(kMaxTokens / 2);
  Step(kMaxTokens / 2);
  ExpectWithinBound();
}

// The leader receives logits and sends the most in other exchanges.
TEST_P(ExchangeMemoryTest, IsBoundedOverExchangesOfAllKinds) {
  while (sequence_.num_computed < 15 * kPageTokens) Step(kPageTokens);
  Step(kPageTokens, kMaxLogitRows);
  ExpectWithinBound();
}

TEST_P(ExchangeMemoryTest, IsBoundedInLongRounds) {
  Round(kMaxTokens / kPageTokens / num_ranks(), Replica::kUse);
  ExpectWithinBound();
}

TEST_P(ExchangeMemoryTest, IsBoundedInRoundsShorterThanTheWindow) {
  const int rounds = kMaxTokens / kPageTokens / num_ranks();
  for (int i = 0; i < rounds; ++i) {
    Round(/*pages=*/1, i % 2 == 0 ? Replica::kNone : Replica::kUse);
  }
  ExpectWithinBound();
}

TEST(ExchangeMemoryOfOneRankTest, IsNone) {
  GemmaConfig config;
  config.vocab_size = 768;
  config.layers = {{.head_dim = 16, .num_kv_heads = 2, .key_half = 8}};
  EXPECT_EQ(ExchangeMemoryBytes(config,
                                {.max_step_tokens = kMaxTokens,
                                 .max_range_tokens = kMaxTokens,
                                 .max_logit_rows = 1},
                                kGatherPages, DType::kF32),
            0);
}

}  // namespace
}  // namespace lapidary
