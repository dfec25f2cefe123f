#include "client/progress_bar.h"

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace lapidary {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

const absl::Time kStart = absl::FromUnixSeconds(1000);

v1::Progress Prefilled(uint32_t done, uint32_t total) {
  v1::Progress progress;
  progress.set_prefilled_tokens(done);
  progress.set_prompt_tokens(total);
  return progress;
}

TEST(ProgressBarTest, ShowsShareTokensRateAndTimeLeft) {
  ProgressBar bar(kStart);
  bar.Line(Prefilled(0, 16384), kStart);
  EXPECT_EQ(bar.Line(Prefilled(8192, 16384), kStart + absl::Seconds(4)),
            "prefill [==========>         ]  50%  8,192 of 16,384 tokens, "
            "2,048/s, 4 s");
}

TEST(ProgressBarTest, ShowsNoRateBeforeThereIsOne) {
  ProgressBar bar(kStart);
  EXPECT_THAT(bar.Line(Prefilled(64, 1000), kStart), Not(HasSubstr("/s")));
}

// Reports that came together once gave a rate of millions of tokens a second.
TEST(ProgressBarTest, ShowsNoRateInTheFirstSecond) {
  ProgressBar bar(kStart);
  bar.Line(Prefilled(0, 1000), kStart);
  EXPECT_THAT(bar.Line(Prefilled(512, 1000), kStart + absl::Microseconds(90)),
              Not(HasSubstr("/s")));
}

TEST(ProgressBarTest, DoesNotCountCachedTokensAsSpeed) {
  ProgressBar bar(kStart);
  bar.Line(Prefilled(10000, 20000), kStart);
  EXPECT_THAT(bar.Line(Prefilled(10100, 20000), kStart + absl::Seconds(1)),
              HasSubstr(" 100/s, 99 s"));
}

TEST(ProgressBarTest, SaysNoNumberOfTokensBeforeTheyAreCounted) {
  ProgressBar bar(kStart);
  v1::Progress queued;
  queued.set_queued(true);
  EXPECT_EQ(bar.Line(queued, kStart + absl::Seconds(2)), "queued  2 s");
}

TEST(ProgressBarTest, DoesNotCountTheQueueAsPrefill) {
  ProgressBar bar(kStart);
  v1::Progress queued = Prefilled(0, 1000);
  queued.set_queued(true);
  EXPECT_EQ(bar.Line(queued, kStart + absl::Seconds(9)),
            "queued  1,000 tokens, 9 s");
  bar.Line(Prefilled(0, 1000), kStart + absl::Seconds(10));
  EXPECT_THAT(bar.Line(Prefilled(500, 1000), kStart + absl::Seconds(11)),
              HasSubstr(" 500/s, 1 s"));
}

TEST(ProgressBarTest, FitsAnEightyColumnTerminal) {
  ProgressBar bar(kStart);
  bar.Line(Prefilled(0, 262144), kStart);
  const std::string line =
      bar.Line(Prefilled(262143, 262144), kStart + absl::Seconds(1));
  EXPECT_LE(line.size(), 79u) << line;
}

TEST(ProgressBarTest, ShowsTheEndWithoutAnArrow) {
  ProgressBar bar(kStart);
  EXPECT_THAT(bar.Line(Prefilled(64, 64), kStart),
              HasSubstr("[====================] 100%"));
}

TEST(WithThousandsTest, GroupsByThree) {
  EXPECT_EQ(WithThousands(0), "0");
  EXPECT_EQ(WithThousands(999), "999");
  EXPECT_EQ(WithThousands(1000), "1,000");
  EXPECT_EQ(WithThousands(1234567), "1,234,567");
}

}  // namespace
}  // namespace lapidary
