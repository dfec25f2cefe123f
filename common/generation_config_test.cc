#include "common/generation_config.h"

#include "common/testing/status_matchers.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace lapidary {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

constexpr auto kInvalid = absl::StatusCode::kInvalidArgument;

TEST(GenerationConfigTest, ReadsThePublishedForm) {
  const absl::StatusOr<GenerationConfig> config = ParseGenerationConfig(R"({
      "do_sample": true, "temperature": 1.0, "top_k": 64, "top_p": 0.95,
      "bos_token_id": 2, "pad_token_id": 0, "eos_token_id": [1, 106, 50],
      "suppress_tokens": [258883, 258882], "transformers_version": "5.23.0"})");
  ASSERT_OK(config);
  EXPECT_EQ(config->temperature, 1.0f);
  EXPECT_EQ(config->top_k, 64);
  EXPECT_EQ(config->top_p, 0.95f);
  EXPECT_EQ(config->min_p, std::nullopt);
  EXPECT_THAT(config->eos_token_ids, ElementsAre(1, 106, 50));
  EXPECT_THAT(config->suppress_tokens, ElementsAre(258883, 258882));
}

TEST(GenerationConfigTest, TakesOneEosToken) {
  const auto config = ParseGenerationConfig(R"({"eos_token_id": 1})");
  ASSERT_OK(config);
  EXPECT_THAT(config->eos_token_ids, ElementsAre(1));
}

TEST(GenerationConfigTest, NoSamplingMeansTemperatureZero) {
  const auto config =
      ParseGenerationConfig(R"({"do_sample": false, "temperature": 0.7})");
  ASSERT_OK(config);
  EXPECT_EQ(config->temperature, 0.0f);
}

TEST(GenerationConfigTest, RefusesValuesOutOfRange) {
  EXPECT_THAT(ParseGenerationConfig(R"({"temperature": -1})"),
              StatusIs(kInvalid, HasSubstr("temperature: needs a number")));
  EXPECT_THAT(ParseGenerationConfig(R"({"top_p": 0})"), StatusIs(kInvalid));
  EXPECT_THAT(ParseGenerationConfig(R"({"top_p": 1.5})"), StatusIs(kInvalid));
  EXPECT_THAT(ParseGenerationConfig(R"({"top_k": -1})"), StatusIs(kInvalid));
  EXPECT_THAT(ParseGenerationConfig(R"({"top_k": "all"})"), StatusIs(kInvalid));
  EXPECT_THAT(ParseGenerationConfig(R"({"eos_token_id": [1, -2]})"),
              StatusIs(kInvalid, HasSubstr("eos_token_id")));
}

TEST(GenerationConfigTest, AMissingFileIsTheEmptyConfig) {
  const auto config = ReadGenerationConfig("/no/such/directory");
  ASSERT_OK(config);
  EXPECT_EQ(config->temperature, std::nullopt);
  EXPECT_THAT(config->eos_token_ids, IsEmpty());
}

}  // namespace
}  // namespace lapidary
