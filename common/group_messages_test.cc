#include "common/group_messages.h"

#include "gtest/gtest.h"

namespace lapidary {
namespace {

TEST(GroupMessagesTest, CarryARankThereAndBack) {
  const RankStatus rank = {.rank = 3,
                           .host = "node-3",
                           .device = "1 CPU thread, avx2",
                           .global_pages = {100, 40, 20480},
                           .window_pages = {50, 5, 4096},
                           .replica_bytes = 1 << 20,
                           .used_replica_bytes = 1 << 10,
                           .gather_bytes = 1 << 15};
  EXPECT_EQ(FromMessage(ToMessage(rank)), rank);
}

TEST(GroupMessagesTest, CarryASplitThereAndBack) {
  const PromptSplit split = {.prompt_tokens = 65536,
                             .computed_tokens = 4096,
                             .token_split_rounds = 16,
                             .head_split_steps = 3,
                             .token_split_tokens = 65000,
                             .range_tokens = {2048, 1984},
                             .received_bytes = {int64_t{5} << 32, 7},
                             .seconds = 12.5,
                             .transfer_seconds = 0.25,
                             .measured_balance = 1.01,
                             .rounds_over_limit = 2};
  EXPECT_EQ(FromMessage(ToMessage(split)), split);
}

TEST(GroupMessagesTest, NoMessageIsNoLongPrompt) {
  EXPECT_EQ(FromMessage(v1::PromptSplit()), PromptSplit());
}

}  // namespace
}  // namespace lapidary
