#include "worker/parallel/hello.h"

#include <string>

#include "absl/status/status.h"
#include "common/testing/status_matchers.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace lapidary {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

Hello HelloOf(int rank) {
  return {.rank = rank,
          .num_ranks = 4,
          .host = rank == 0 ? "here" : "there",
          .facts = {{"checkpoint", "1f2e"}, {"compute", "bf16"}}};
}

TEST(HelloTest, ArrivesAsItWasSent) {
  EXPECT_THAT(DecodeHello(EncodeHello(HelloOf(3))), IsOkAndHolds(HelloOf(3)));
  EXPECT_THAT(DecodeHello(EncodeHello(Hello())), IsOkAndHolds(Hello()));
}

TEST(HelloTest, RefusesWhatIsNone) {
  const std::string whole = EncodeHello(HelloOf(1));
  for (size_t size = 0; size < whole.size(); ++size) {
    EXPECT_THAT(DecodeHello(whole.substr(0, size)),
                StatusIs(absl::StatusCode::kInvalidArgument));
  }
  EXPECT_FALSE(DecodeHello(whole + "x").ok());
  EXPECT_FALSE(DecodeHello(std::string(200, '\xff')).ok());
}

TEST(HelloTest, RefusesWhatIsBeyondItsBounds) {
  Hello hello = HelloOf(1);
  hello.host = std::string(kMaxHelloBytes, 'h');
  EXPECT_THAT(DecodeHello(EncodeHello(hello)),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       HasSubstr("at most 65536 bytes")));
  hello = HelloOf(1);
  hello.facts.assign(kMaxFacts + 1, {"name", "value"});
  EXPECT_FALSE(DecodeHello(EncodeHello(hello)).ok());
}

TEST(CheckFitsTest, AcceptsARankOfTheGroup) {
  EXPECT_OK(CheckFits(HelloOf(0), HelloOf(1)));
  EXPECT_OK(CheckFits(HelloOf(0), HelloOf(3)));
}

TEST(CheckFitsTest, NamesAFactThatDiffersWithBothValuesAndRanks) {
  Hello theirs = HelloOf(2);
  theirs.facts[1].value = "fp32";
  EXPECT_THAT(
      CheckFits(HelloOf(0), theirs),
      StatusIs(absl::StatusCode::kFailedPrecondition,
               "compute differs: \"fp32\" on rank 2 (host there), \"bf16\" on "
               "rank 0 (host here)"));
}

TEST(CheckFitsTest, RefusesAnotherNumberOfRanks) {
  Hello theirs = HelloOf(1);
  theirs.num_ranks = 2;
  EXPECT_THAT(CheckFits(HelloOf(0), theirs),
              StatusIs(absl::StatusCode::kFailedPrecondition,
                       AllOf(HasSubstr("\"2\" on rank 1"),
                             HasSubstr("\"4\" on rank 0"))));
}

TEST(CheckFitsTest, RefusesRanksThatAreNone) {
  for (const int rank : {0, 4}) {
    EXPECT_THAT(CheckFits(HelloOf(0), HelloOf(rank)),
                StatusIs(absl::StatusCode::kFailedPrecondition,
                         HasSubstr("needs a rank from 1 to 3")));
  }
}

TEST(CheckFitsTest, RefusesARankThatTellsOtherThings) {
  Hello theirs = HelloOf(1);
  theirs.facts[1].name = "colour";
  EXPECT_THAT(CheckFits(HelloOf(0), theirs).message(), HasSubstr("colour"));
  theirs.facts.pop_back();
  EXPECT_THAT(CheckFits(HelloOf(0), theirs).message(), HasSubstr("\"1\""));
}

}  // namespace
}  // namespace lapidary
