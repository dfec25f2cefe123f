#include "worker/rpc/run_request.h"

#include <cmath>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "common/grpc_status.h"
#include "common/testing/status_matchers.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace lapidary {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Pair;

constexpr RunLimits kLimits = {.vocab_size = 1000, .max_context_tokens = 100};

v1::RunRequest GoodRequest() {
  v1::RunRequest request;
  request.add_prompt_token_ids(2);
  request.add_prompt_token_ids(999);
  request.set_max_tokens(98);
  v1::Sampling& sampling = *request.mutable_sampling();
  sampling.set_temperature(0.5f);
  sampling.set_top_k(64);
  sampling.set_top_p(0.95f);
  sampling.set_min_p(0);
  sampling.set_repetition_penalty(1);
  sampling.set_presence_penalty(0);
  sampling.set_frequency_penalty(0);
  sampling.set_seed(7);
  return request;
}

// The fields that are wrong with `request`.
std::vector<std::string> WrongFields(const v1::RunRequest& request) {
  const auto parsed = ParseRunRequest(request, kLimits);
  EXPECT_THAT(parsed, StatusIs(absl::StatusCode::kInvalidArgument));
  std::vector<std::string> fields;
  for (const FieldViolation& violation : GetFieldViolations(parsed.status())) {
    fields.push_back(violation.field);
  }
  return fields;
}

TEST(RunRequestTest, TakesEveryField) {
  v1::RunRequest request = GoodRequest();
  request.add_stop_token_ids(1);
  request.add_suppressed_token_ids(5);
  request.set_priority(-3);
  request.set_resumed_output_tokens(1);
  (*request.mutable_sampling()->mutable_logit_bias())[9] = 2.5f;
  (*request.mutable_sampling()->mutable_logit_bias())[4] = -100;
  request.mutable_sampling()->set_logprobs(0);

  const auto parsed = ParseRunRequest(request, kLimits);
  ASSERT_OK(parsed);
  EXPECT_THAT(parsed->prompt, ElementsAre(2, 999));
  EXPECT_EQ(parsed->max_tokens, 98);
  EXPECT_THAT(parsed->stop_tokens, ElementsAre(1));
  EXPECT_EQ(parsed->priority, -3);
  EXPECT_EQ(parsed->resumed_output_tokens, 1);
  EXPECT_FLOAT_EQ(parsed->sampling.temperature, 0.5f);
  EXPECT_EQ(parsed->sampling.top_k, 64);
  EXPECT_FLOAT_EQ(parsed->sampling.top_p, 0.95f);
  EXPECT_EQ(parsed->sampling.seed, 7u);
  EXPECT_EQ(parsed->sampling.logprobs, 0);
  EXPECT_THAT(parsed->sampling.suppressed, ElementsAre(5));
  EXPECT_THAT(parsed->sampling.logit_bias,
              ElementsAre(Pair(4, -100.0f), Pair(9, 2.5f)));
}

TEST(RunRequestTest, WantsLogprobsOnlyWhereAskedFor) {
  EXPECT_EQ(ParseRunRequest(GoodRequest(), kLimits)->sampling.logprobs,
            std::nullopt);
}

TEST(RunRequestTest, NamesEveryWrongField) {
  EXPECT_THAT(
      WrongFields(v1::RunRequest()),
      ElementsAre("prompt_token_ids", "max_tokens", "sampling.temperature",
                  "sampling.top_k", "sampling.top_p", "sampling.min_p",
                  "sampling.repetition_penalty", "sampling.presence_penalty",
                  "sampling.frequency_penalty", "sampling.seed"));
}

TEST(RunRequestTest, RefusesIdsOutsideTheVocabulary) {
  v1::RunRequest request = GoodRequest();
  request.set_prompt_token_ids(1, 1000);
  request.add_stop_token_ids(0xffffffff);
  request.add_suppressed_token_ids(1000);
  (*request.mutable_sampling()->mutable_logit_bias())[1000] = 0;
  EXPECT_THAT(
      WrongFields(request),
      ElementsAre("prompt_token_ids[1]", "stop_token_ids[0]",
                  "suppressed_token_ids[0]", "sampling.logit_bias[1000]"));
}

TEST(RunRequestTest, RefusesMoreThanTheContextHolds) {
  v1::RunRequest request = GoodRequest();
  request.set_max_tokens(99);
  const auto parsed = ParseRunRequest(request, kLimits);
  EXPECT_THAT(parsed, StatusIs(absl::StatusCode::kInvalidArgument,
                               HasSubstr("of at most 100 tokens, got 2 and")));
  request.set_max_tokens(0xffffffff);
  EXPECT_THAT(WrongFields(request), ElementsAre("max_tokens"));
}

TEST(RunRequestTest, RefusesNumbersOutOfRange) {
  v1::RunRequest request = GoodRequest();
  v1::Sampling& sampling = *request.mutable_sampling();
  sampling.set_temperature(-0.1f);
  sampling.set_top_k(0x80000000);
  sampling.set_top_p(0);
  sampling.set_min_p(1.5f);
  sampling.set_repetition_penalty(0);
  sampling.set_presence_penalty(101);
  sampling.set_frequency_penalty(-101);
  sampling.set_logprobs(21);
  request.set_resumed_output_tokens(3);
  EXPECT_THAT(
      WrongFields(request),
      ElementsAre("resumed_output_tokens", "sampling.temperature",
                  "sampling.top_k", "sampling.top_p", "sampling.min_p",
                  "sampling.repetition_penalty", "sampling.presence_penalty",
                  "sampling.frequency_penalty", "sampling.logprobs"));
}

TEST(RunRequestTest, RefusesWhatIsNoNumber) {
  v1::RunRequest request = GoodRequest();
  v1::Sampling& sampling = *request.mutable_sampling();
  sampling.set_temperature(std::nanf(""));
  sampling.set_top_p(std::nanf(""));
  sampling.set_min_p(INFINITY);
  (*sampling.mutable_logit_bias())[4] = std::nanf("");
  EXPECT_THAT(WrongFields(request),
              ElementsAre("sampling.temperature", "sampling.top_p",
                          "sampling.min_p", "sampling.logit_bias[4]"));
}

TEST(RunRequestTest, RefusesLongLists) {
  v1::RunRequest request = GoodRequest();
  for (int i = 0; i < 100'000; ++i) request.add_stop_token_ids(1);
  for (int i = 0; i < 100'000; ++i) request.add_suppressed_token_ids(1);
  EXPECT_THAT(WrongFields(request),
              ElementsAre("stop_token_ids", "suppressed_token_ids"));
}

TEST(RunRequestTest, RefusesAnIdThatWouldBreakALogLine) {
  v1::RunRequest request = GoodRequest();
  request.set_request_id("a\nb");
  EXPECT_THAT(WrongFields(request), ElementsAre("request_id"));
}

TEST(RunRequestTest, HasNoViolationsWhenAllIsWell) {
  EXPECT_THAT(
      GetFieldViolations(ParseRunRequest(GoodRequest(), kLimits).status()),
      IsEmpty());
}

}  // namespace
}  // namespace lapidary
