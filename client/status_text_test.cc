#include "client/status_text.h"

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace lapidary {
namespace {

using ::testing::EndsWith;
using ::testing::HasSubstr;
using ::testing::Not;

v1::GetStatusResponse RouterWithOneGroup() {
  v1::GetStatusResponse status;
  status.set_version("0.1");
  status.set_uptime_seconds(125.7);
  status.set_running_requests(1);
  v1::GroupStatus& group = *status.add_groups();
  group.set_address("127.0.0.1:40123");
  group.set_state("ready");
  group.set_ranks(1);
  group.set_model_name("recall");
  group.set_compute("bf16");
  group.set_device("2 CPU threads, avx2");
  group.set_queued_tokens(12288);
  group.mutable_global_pages()->set_total(4096);
  group.mutable_global_pages()->set_used(1024);
  group.mutable_global_pages()->set_bytes_per_page(163840);
  group.mutable_window_pages()->set_total(320);
  group.set_prefill_tokens_per_second(3105.4);
  group.set_decode_tokens_per_second(41.23);
  return status;
}

TEST(StatusTextTest, ShowsRouterAndGroup) {
  const std::string text = StatusText("localhost:1", RouterWithOneGroup());
  EXPECT_THAT(text, HasSubstr("router localhost:1  version 0.1  up 2m5s\n"));
  EXPECT_THAT(text, HasSubstr("  requests   1 running, 0 waiting (0 tokens)"));
  EXPECT_THAT(text, HasSubstr("group 127.0.0.1:40123  ready\n"));
  EXPECT_THAT(text, HasSubstr("recall  bf16  1 rank  2 CPU threads, avx2\n"));
  EXPECT_THAT(text, HasSubstr("12,288 tokens to prefill"));
  EXPECT_THAT(text, HasSubstr("3,105 tokens/s prefill, 41.2 tokens/s decode"));
}

TEST(StatusTextTest, ShowsPagesOfBothFamilies) {
  const std::string text = StatusText("localhost:1", RouterWithOneGroup());
  EXPECT_THAT(text,
              HasSubstr("global     1,024 of 4,096 pages used (25%), 160"));
  EXPECT_THAT(text, HasSubstr("window     0 of 320 pages used (0%)"));
}

v1::GetStatusResponse RouterWithTwoRanks() {
  v1::GetStatusResponse status = RouterWithOneGroup();
  v1::GroupStatus& group = *status.mutable_groups(0);
  group.set_ranks(2);
  for (int r = 0; r < 2; ++r) {
    v1::RankStatus& rank = *group.add_rank_status();
    rank.set_rank(r);
    rank.set_host(r == 0 ? "north" : "south");
    rank.set_device("1 CPU thread, avx2");
    rank.mutable_global_pages()->set_used(512);
    rank.mutable_global_pages()->set_total(2048);
    rank.mutable_global_pages()->set_bytes_per_page(2048);
    rank.mutable_window_pages()->set_used(16);
    rank.mutable_window_pages()->set_total(64);
    rank.mutable_window_pages()->set_bytes_per_page(65536);
    rank.set_replica_bytes(4 << 20);
    rank.set_used_replica_bytes(1 << 20);
  }
  v1::PromptSplit& split = *group.mutable_last_split();
  split.set_prompt_tokens(65536);
  split.set_computed_tokens(65536);
  split.set_token_split_rounds(16);
  split.set_token_split_tokens(65472);
  split.set_head_split_steps(1);
  split.add_range_tokens(2112);
  split.add_range_tokens(1984);
  split.add_received_bytes(1 << 20);
  split.add_received_bytes(3 << 20);
  split.set_seconds(20.04);
  split.set_transfer_seconds(0.52);
  split.set_measured_balance(1.014);
  return status;
}

TEST(StatusTextTest, ShowsWhatEachRankHolds) {
  const std::string text = StatusText("localhost:1", RouterWithTwoRanks());
  EXPECT_THAT(text,
              HasSubstr("  rank 1     south  1 CPU thread, avx2  512 global + "
                        "16 window pages, 2.00 MiB of 8.00 MiB; replica 1.00 "
                        "MiB of 4.00 MiB\n"));
}

TEST(StatusTextTest, ShowsHowTheLastLongPromptWasSplit) {
  const std::string text = StatusText("localhost:1", RouterWithTwoRanks());
  EXPECT_THAT(text,
              HasSubstr("  last long  65,536 tokens: 65,472 in 16 rounds split "
                        "by tokens, 1 step split by heads\n"));
  EXPECT_THAT(text, HasSubstr("20.0 s, 0.5 s of it transfers, 3.00 MiB to a "
                              "rank, slowest/mean 1.01; largest round 2112 + "
                              "1984 tokens\n"));
}

TEST(StatusTextTest, ShowsNoRanksOfAGroupOfOne) {
  EXPECT_THAT(StatusText("localhost:1", RouterWithOneGroup()),
              Not(HasSubstr("rank 0")));
}

TEST(StatusTextTest, SaysWhyAGroupThatIsGoneFailed) {
  v1::GetStatusResponse status = RouterWithOneGroup();
  v1::GroupStatus& group = *status.mutable_groups(0);
  group.set_last_failure("rank 1 (south): gone");
  for (const char* state : {"connecting", "suspect"}) {
    group.set_state(state);
    EXPECT_THAT(StatusText("localhost:1", status),
                HasSubstr("\n  failed     rank 1 (south): gone\n"));
  }
}

TEST(StatusTextTest, AGroupThatIsGoneShowsNoLoad) {
  v1::GetStatusResponse status = RouterWithTwoRanks();
  v1::GroupStatus& group = *status.mutable_groups(0);
  for (const char* state : {"connecting", "suspect"}) {
    group.set_state(state);
    EXPECT_THAT(StatusText("localhost:1", status),
                EndsWith("  model      recall  bf16  2 ranks  2 CPU threads, "
                         "avx2\n"));
  }
}

TEST(StatusTextTest, OneIsNotAPlural) {
  v1::GetStatusResponse status = RouterWithTwoRanks();
  status.set_waiting_tokens(1);
  v1::GroupStatus& group = *status.mutable_groups(0);
  group.set_queued_tokens(1);
  group.mutable_last_split()->set_token_split_rounds(1);
  group.mutable_last_split()->set_rounds_over_limit(1);
  const std::string text = StatusText("localhost:1", status);
  EXPECT_THAT(text, HasSubstr("0 waiting (1 token)\n"));
  EXPECT_THAT(text, HasSubstr("1 token to prefill\n"));
  EXPECT_THAT(text, HasSubstr("in 1 round split by tokens"));
  EXPECT_THAT(text, HasSubstr("; 1 round over the inter-token deadline\n"));
}

TEST(StatusTextTest, AGroupThatIsThereAgainHasALastFailure) {
  v1::GetStatusResponse status = RouterWithOneGroup();
  v1::GroupStatus& group = *status.mutable_groups(0);
  group.set_last_failure("rank 1 (south): gone");
  for (const char* state : {"ready", "draining", "refused"}) {
    group.set_state(state);
    EXPECT_THAT(StatusText("localhost:1", status),
                HasSubstr("\n  last fail  rank 1 (south): gone\n"));
  }
}

TEST(StatusTextTest, SaysWhyAGroupIsNotReady) {
  v1::GetStatusResponse status;
  v1::GroupStatus& group = *status.add_groups();
  group.set_address("a:1");
  group.set_state("refused");
  group.set_reason("other tokenizer");
  const std::string text = StatusText("localhost:1", status);
  EXPECT_THAT(text, HasSubstr("group a:1  refused: other tokenizer\n"));
  EXPECT_THAT(text, Not(HasSubstr("pages")));
}

TEST(StatusTextTest, SaysThatThereAreNoGroups) {
  EXPECT_THAT(StatusText("localhost:1", {}), EndsWith("no groups\n"));
}

}  // namespace
}  // namespace lapidary
