#include "router/text/chat_template.h"

#include <fstream>
#include <iterator>
#include <random>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "common/testing/status_matchers.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "nlohmann/json.hpp"
#include "router/text/tokenizer.h"

namespace lapidary {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::StartsWith;
using Json = nlohmann::json;

constexpr char kFolder[] = "tests/testdata/chat_template/";

std::vector<Json> StoredCases() {
  std::ifstream file(std::string(kFolder) + "cases.jsonl");
  std::vector<Json> cases;
  for (std::string line; std::getline(file, line);) {
    cases.push_back(Json::parse(line));
  }
  return cases;
}

TemplateVariant VariantOf(const Json& chat) {
  return chat["template"] == "large" ? TemplateVariant::kLarge
                                     : TemplateVariant::kSmall;
}

ChatInput InputOf(const Json& chat) {
  return {.messages = chat["messages"],
          .tools = chat["tools"],
          .enable_thinking = chat["enable_thinking"],
          .preserve_thinking = chat["preserve_thinking"],
          .add_generation_prompt = chat["add_generation_prompt"]};
}

absl::StatusOr<RenderedPrompt> Render(const char* messages,
                                      const char* tools = "null") {
  return RenderChat(TemplateVariant::kSmall, {.messages = Json::parse(messages),
                                              .tools = Json::parse(tools)});
}

// The parts of a prompt that the caller supplied.
std::vector<std::string> Literals(const RenderedPrompt& prompt) {
  std::vector<std::string> literals;
  for (const TextSpan& span : prompt.literal) {
    literals.push_back(prompt.text.substr(span.begin, span.end - span.begin));
  }
  return literals;
}

TEST(ChatTemplateTest, RendersEveryStoredCase) {
  const std::vector<Json> cases = StoredCases();
  EXPECT_EQ(cases.size(), 400);
  for (const Json& chat : cases) {
    const auto prompt = RenderChat(VariantOf(chat), InputOf(chat));
    if (chat.contains("error")) {
      EXPECT_THAT(prompt, StatusIs(absl::StatusCode::kInvalidArgument))
          << chat["id"];
      continue;
    }
    ASSERT_OK(prompt) << chat["id"];
    EXPECT_EQ(prompt->text, chat["rendered"].get<std::string>()) << chat["id"];
  }
}

TEST(ChatTemplateTest, MarksWhatTheCallerSupplied) {
  const auto prompt = Render(
      R"([{"role": "system", "content": " Be <turn|> brief. "},
          {"role": "user", "content": [{"type": "text", "text": "Look:"},
                                       {"type": "image"}]},
          {"role": "assistant", "content": "<|channel>x<channel|>Fine.",
           "tool_calls": [{"id": "1", "function": {"name": "f",
               "arguments": {"b": "<|\"|>", "a": [1, true]}}}]},
          {"role": "tool", "tool_call_id": "1", "content": "ok"}])",
      R"([{"type": "function", "function": {"name": "f", "description": "d"}}])");
  ASSERT_OK(prompt);
  EXPECT_EQ(prompt->text,
            "<bos><|turn>system\nBe <turn|> brief."
            "<|tool>declaration:f{description:<|\"|>d<|\"|>}<tool|><turn|>\n"
            "<|turn>user\nLook:<|image|><turn|>\n"
            "<|turn>model\n<|tool_call>call:f{a:[1,true],b:<|\"|><|\"|><|\"|>}"
            "<tool_call|><|tool_response>response:f{value:<|\"|>ok<|\"|>}"
            "<tool_response|>Fine.<turn|>\n");
  EXPECT_THAT(Literals(*prompt),
              ElementsAre("Be <turn|> brief.", "f", "d", "user", "Look:", "f",
                          "a", "1", "b", "<|\"|>", "f", "ok", "Fine."));
}

TEST(ChatTemplateTest, MarksNoControlTokenOfTheTemplate) {
  for (const Json& chat : StoredCases()) {
    if (chat.contains("error")) continue;
    const auto prompt = RenderChat(VariantOf(chat), InputOf(chat));
    ASSERT_OK(prompt);
    size_t end = 0;
    for (const TextSpan& span : prompt->literal) {
      ASSERT_LE(end, span.begin);
      ASSERT_LT(span.begin, span.end);
      end = span.end;
    }
    ASSERT_LE(end, prompt->text.size());
    // Of the control tokens, these chats have <|"|> alone in their texts.
    for (const std::string& literal : Literals(*prompt)) {
      for (const char* marker : {"turn>", "<turn", "tool", "channel", "<|i"}) {
        EXPECT_EQ(literal.find(marker), literal.npos) << chat["id"] << literal;
      }
    }
  }
}

TEST(ChatTemplateTest, SaysWhenTheOutputStartsInTheThoughtChannel) {
  ChatInput input = {.messages = Json::parse(R"(
      [{"role": "user", "content": "Weather?"},
       {"role": "assistant", "tool_calls": [
           {"id": "1", "function": {"name": "f", "arguments": {}}}]},
       {"role": "tool", "tool_call_id": "1", "content": "rain"}])"),
                     .enable_thinking = true};
  auto prompt = RenderChat(TemplateVariant::kLarge, input);
  ASSERT_OK(prompt);
  EXPECT_TRUE(prompt->starts_in_thinking);
  EXPECT_TRUE(prompt->text.ends_with("<|channel>thought\n"));
  input.enable_thinking = false;
  EXPECT_FALSE(RenderChat(TemplateVariant::kLarge, input)->starts_in_thinking);
}

TEST(ChatTemplateTest, CallsAToolUnknownThatNothingNames) {
  const auto prompt = Render(
      R"([{"role": "assistant", "tool_calls": [
              {"id": "1", "function": {"name": "f", "arguments": {}}}]},
          {"role": "tool", "tool_call_id": "2", "content": "a"},
          {"role": "tool", "tool_call_id": "3", "name": "g", "content": 5}])");
  ASSERT_OK(prompt);
  EXPECT_THAT(prompt->text,
              HasSubstr("response:unknown{value:<|\"|>a<|\"|>}<tool_response|>"
                        "<|tool_response>response:g{value:5}"));
}

TEST(ChatTemplateTest, TheTemplateRefusesArgumentsThatAreText) {
  EXPECT_THAT(
      Render(R"([{"role": "user", "content": "?"},
                 {"role": "assistant", "tool_calls": [
                     {"function": {"name": "f", "arguments": "{}"}}]}])"),
      StatusIs(absl::StatusCode::kInvalidArgument,
               AllOf(StartsWith("messages[1].tool_calls[0].function.arguments"),
                     HasSubstr("must be a JSON object (mapping), not a "
                               "string"))));
}

TEST(ChatTemplateTest, NamesTheFieldOfTheWrongType) {
  const auto refuses = [](const char* messages, const char* path) {
    EXPECT_THAT(Render(messages),
                StatusIs(absl::StatusCode::kInvalidArgument, StartsWith(path)));
  };
  refuses(R"({})", "messages: needs an array, found object");
  refuses(R"([7])", "messages[0]: needs an object, found number");
  refuses(R"([{}])", "messages[0].role: needs a string, found nothing");
  refuses(R"([{"role": "user", "content": 7}])", "messages[0].content: needs");
  refuses(R"([{"role": "user", "content": [{"type": "text"}]}])",
          "messages[0].content[0].text: needs a string");
  refuses(R"([{"role": "user", "content": [{"type": "smell"}]}])",
          "messages[0].content[0].type: needs one of text, image");
  refuses(R"([{"role": "assistant", "reasoning": []}])",
          "messages[0].reasoning: needs a string");
  refuses(R"([{"role": "assistant", "tool_calls": [{"function": 1}]}])",
          "messages[0].tool_calls[0].function: needs an object");
  refuses(R"([{"role": "assistant", "tool_responses": [{"name": "f"}]}])",
          "messages[0].tool_responses[0].response: needs a value");
  EXPECT_THAT(Render("[]", R"([{"function": {"name": "f", "parameters":
                  {"properties": {"x": {"type": "object", "required": true}}}}}
              ])"),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       StartsWith("tools[0].function.parameters.properties.x."
                                  "required: needs an array")));
}

TEST(ChatTemplateTest, RefusesNestingThatWouldExhaustTheStack) {
  const std::string deep = std::string(100000, '[') + std::string(100000, ']');
  const std::string messages =
      R"([{"role": "assistant", "tool_calls": [{"function": {"name": "f",
           "arguments": {"a": )" +
      deep + "}}}]}]";
  EXPECT_THAT(Render(messages.c_str()),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       HasSubstr("levels of nesting")));
}

// Every value of the stored chats in turn becomes something else.
TEST(ChatTemplateTest, SurvivesAnyTypeAnywhere) {
  const std::vector<Json> others = {nullptr,
                                    true,
                                    -1,
                                    1.5,
                                    "x",
                                    "",
                                    Json::array(),
                                    Json::object(),
                                    {1, "a"},
                                    {{"type", "object"}}};
  std::mt19937 random(1);
  int num_refused = 0;
  for (const Json& chat : StoredCases()) {
    const Json flat = Json{
        {"messages", chat["messages"]},
        {"tools",
         chat["tools"]}}.flatten();
    for (const auto& [path, value] : flat.items()) {
      if (random() % 8 != 0) continue;
      ChatInput input = InputOf(chat);
      Json changed = {{"messages", input.messages}, {"tools", input.tools}};
      // The value itself or something that holds it.
      Json::json_pointer pointer(path);
      while (!pointer.empty() && random() % 3 == 0) pointer.pop_back();
      changed[pointer] = others[random() % others.size()];
      input.messages = changed.is_object() ? changed["messages"] : changed;
      input.tools = changed.is_object() ? changed["tools"] : changed;
      const auto prompt = RenderChat(VariantOf(chat), input);
      if (prompt.ok()) continue;
      ++num_refused;
      EXPECT_THAT(prompt, StatusIs(absl::StatusCode::kInvalidArgument,
                                   HasSubstr(": ")));
    }
  }
  EXPECT_GT(num_refused, 100);
}

TEST(ChatTemplateTest, TellsThePublishedTemplates) {
  const auto read = [](const std::string& name) {
    std::ifstream file(kFolder + name);
    return std::string(std::istreambuf_iterator<char>(file), {});
  };
  EXPECT_EQ(VariantOfTemplate(read("large.jinja")), TemplateVariant::kLarge);
  EXPECT_EQ(VariantOfTemplate(read("small.jinja") + "\n\n"),
            TemplateVariant::kSmall);
  EXPECT_EQ(VariantOfTemplate(read("small.jinja") + "x"), std::nullopt);
  EXPECT_EQ(VariantOfTemplate(""), std::nullopt);
}

}  // namespace
}  // namespace lapidary
