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
