#include "tools/parity_cases.h"

#include <fstream>
#include <string>

#include "absl/status/status.h"
#include "common/testing/status_matchers.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "worker/loader/safetensors.h"

namespace lapidary {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::SizeIs;

constexpr char kMini[] = "tests/testdata/models/unified_mini/";

absl::StatusOr<std::vector<ParityCase>> Read(const std::string& text) {
  const std::string path = ::testing::TempDir() + "/cases.json";
  std::ofstream(path) << text;
  return ReadParityCases(path);
}

TEST(ParityCasesTest, ReadsStoredCases) {
  const auto cases = ReadParityCases(std::string(kMini) + "cases.json");
  ASSERT_OK(cases);
  ASSERT_THAT(*cases, SizeIs(10));
  const ParityCase& text_17 = (*cases)[2];
  EXPECT_EQ(text_17.id, "text_17");
  EXPECT_THAT(text_17.tokens, SizeIs(17));
  EXPECT_THAT(text_17.positions, ElementsAre(0, 5, 8, 15, 16));
  EXPECT_THAT(text_17.greedy, SizeIs(32));
  EXPECT_NEAR(*text_17.bf16_rms_error, 0.22398, 1e-4);
}

// splitmix64(0, 1 … 4) = 0x6e789e6aa1b965f4, 0x6c45d188009454f,
// 0xf88bb8a8724c81ec, 0x1b39896a51a8749b.
TEST(ParityCasesTest, MakesTokensByRule) {
  const auto cases = Read(
      R"({"cases": [{"id": "a", "positions": [4], "tokens_rule":
          {"seed": 0, "length": 5, "low": 10, "high": 20}}]})");
  ASSERT_OK(cases);
  EXPECT_THAT(cases->front().tokens, ElementsAre(2, 10, 19, 14, 17));
}

TEST(ParityCasesTest, FindsReferenceLogits) {
  const auto cases = ReadParityCases(std::string(kMini) + "cases.json");
  ASSERT_OK(cases);
  const auto reference =
      SafetensorsFile::Open(std::string(kMini) + "reference.safetensors");
  ASSERT_OK(reference);
  const auto logits = ReferenceLogits(**reference, (*cases)[1], 8192);
  ASSERT_OK(logits);
  EXPECT_EQ(logits->size(), 2u * 8192);
  EXPECT_THAT(ReferenceLogits(**reference, (*cases)[1], 100),
              StatusIs(absl::StatusCode::kFailedPrecondition,
                       AllOf(HasSubstr("[2, 100]"), HasSubstr("[2, 8192]"))));
  ParityCase unknown;
  unknown.id = "text_9";
  EXPECT_THAT(ReferenceLogits(**reference, unknown, 8192),
              StatusIs(absl::StatusCode::kNotFound, HasSubstr("text_9")));
}

TEST(ParityCasesTest, SaysWhatIsWrongWithAFile) {
  const auto invalid = [](const char* message) {
    return StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr(message));
  };
  EXPECT_THAT(Read("{"), invalid("'cases'"));
  EXPECT_THAT(Read(R"({"cases": [{}]})"), invalid("'id'"));
  EXPECT_THAT(Read(R"({"cases": [{"id": "a"}]})"), invalid("'tokens'"));
  EXPECT_THAT(Read(R"({"cases": [{"id": "a", "tokens": ["x"]}]})"),
              invalid("a list of numbers"));
  EXPECT_THAT(
      Read(R"({"cases": [{"id": "a", "tokens": [2], "positions": [1]}]})"),
      invalid("inside the prompt"));
  EXPECT_THAT(Read(R"({"cases": [{"id": "a", "tokens_rule": {"seed": 1}}]})"),
              invalid("tokens_rule.length"));
}

}  // namespace
}  // namespace lapidary
