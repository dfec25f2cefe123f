// The needle ladder: a fact at every depth of a document, found by groups of
// any size.  Longer contexts: tests/long/needle.sh.

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "common/testing/status_matchers.h"
#include "gtest/gtest.h"
#include "tests/integration/ask.h"
#include "tests/integration/cluster.h"

namespace lapidary {
namespace {

class NeedleTest : public ::testing::TestWithParam<int> {};

INSTANTIATE_TEST_SUITE_P(Ranks, NeedleTest, ::testing::Values(1, 2, 4));

TEST_P(NeedleTest, FindsTheFactAtEveryDepth) {
  Cluster cluster;
  cluster.StartGroup(GetParam());
  cluster.StartRouter();
  cluster.WaitForGroup();
  for (const int context : {4096, 16384}) {
    for (int depth = 0; depth <= 100; depth += 10) {
      const Reply reply =
          Ask(cluster.stub(),
              ChatRequest(absl::StrCat(DocumentWithFact(context - 64, depth),
                                       kQuestion)));
      ASSERT_OK(reply.status) << context << " tokens, depth " << depth;
      EXPECT_EQ(absl::StripAsciiWhitespace(reply.text), kAnswer)
          << context << " tokens, depth " << depth;
    }
  }
}

}  // namespace
}  // namespace lapidary
