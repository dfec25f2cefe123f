// Every stored case of the reference tokenizer, id by id.

#include <cstdlib>
#include <fstream>
#include <string>
#include <vector>

#include "common/testing/status_matchers.h"
#include "common/tokens.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "nlohmann/json.hpp"
#include "router/text/chat_template.h"
#include "router/text/detokenizer.h"
#include "router/text/tokenizer.h"

namespace lapidary {
namespace {

using Json = nlohmann::json;

constexpr char kTestData[] = "tests/testdata/";

std::vector<Json> ReadJsonLines(const std::string& path) {
  std::ifstream file(path);
  std::vector<Json> lines;
  for (std::string line; std::getline(file, line);) {
    lines.push_back(Json::parse(line));
  }
  return lines;
}

// The text of `ids`, token by token.
std::string Stream(const Tokenizer& tokenizer,
                   const std::vector<TokenId>& ids) {
  Detokenizer detokenizer(tokenizer);
  std::string text;
  for (const TokenId id : ids) text += detokenizer.Push(id);
  return text + detokenizer.Flush();
}

// The reference tokenizer with all of its cases, in the folder `path`.
void CheckCases(const std::string& path) {
  const auto tokenizer = Tokenizer::Load(path + "/tokenizer.json");
  ASSERT_OK(tokenizer);
  const std::vector<Json> cases = ReadJsonLines(path + "/cases.jsonl");
  ASSERT_FALSE(cases.empty());
  for (size_t i = 0; i < cases.size(); ++i) {
    const auto text = cases[i]["text"].get<std::string>();
    const auto ids = cases[i]["ids"].get<std::vector<TokenId>>();
    const auto decoded = cases[i]["decoded"].get<std::string>();
    EXPECT_EQ((*tokenizer)->Encode(text), ids) << "case " << i << ": " << text;
    EXPECT_EQ((*tokenizer)->Decode(ids), decoded) << "case " << i;
    EXPECT_EQ(Stream(**tokenizer, ids), decoded) << "case " << i;
  }
}

// Where the large reference data is, or empty.
std::string GoldenFolder() {
  const char* folder = std::getenv("LAPIDARY_GOLDEN");
  return folder == nullptr ? "" : folder;
}

TEST(TokenizerParityTest, SmallVocabulary) {
  CheckCases(std::string(kTestData) + "tokenizer/mini");
}

TEST(TokenizerParityTest, FullVocabulary) {
  if (GoldenFolder().empty()) {
    GTEST_SKIP() << "LAPIDARY_GOLDEN is not set: the 15 MB tokenizer.json is "
                    "not part of the repository";
  }
  CheckCases(GoldenFolder() + "/tokenizer/gemma4");
}

// The rendered chats, both as one raw text and with the caller's spans marked.
TEST(TokenizerParityTest, RenderedChats) {
  if (GoldenFolder().empty()) {
    GTEST_SKIP() << "LAPIDARY_GOLDEN is not set: the 15 MB tokenizer.json is "
                    "not part of the repository";
  }
  const auto tokenizer =
      Tokenizer::Load(GoldenFolder() + "/tokenizer/gemma4/tokenizer.json");
  ASSERT_OK(tokenizer);
  int num_cases = 0;
  for (const Json& chat :
       ReadJsonLines(std::string(kTestData) + "chat_template/cases.jsonl")) {
    if (!chat.contains("ids")) continue;
    ++num_cases;
    const auto ids = chat["ids"].get<std::vector<TokenId>>();
    EXPECT_EQ((*tokenizer)->Encode(chat["rendered"].get<std::string>()), ids)
        << chat["id"];
    const auto prompt =
        RenderChat(chat["template"] == "large" ? TemplateVariant::kLarge
                                               : TemplateVariant::kSmall,
                   {.messages = chat["messages"],
                    .tools = chat["tools"],
                    .enable_thinking = chat["enable_thinking"],
                    .preserve_thinking = chat["preserve_thinking"],
                    .add_generation_prompt = chat["add_generation_prompt"]});
    ASSERT_OK(prompt) << chat["id"];
    EXPECT_EQ((*tokenizer)->Encode(prompt->text, prompt->literal), ids)
        << chat["id"];
  }
  EXPECT_GT(num_cases, 100);
}

}  // namespace
}  // namespace lapidary
