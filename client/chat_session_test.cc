#include "client/chat_session.h"

#include <vector>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace lapidary {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

using Action = ChatSession::Action;

// The conversation as "role: text" entries.
std::vector<std::string> Messages(const ChatSession& session) {
  std::vector<std::string> messages;
  for (const v1::Message& message :
       session.request().conversation().messages()) {
    messages.push_back(
        absl::StrCat(message.role(), ": ", message.content(0).text()));
  }
  return messages;
}

TEST(ChatSessionTest, CarriesTheHistory) {
  ChatSession session({}, {.system = "Be brief."});
  EXPECT_EQ(session.Read("One?"), Action::kAsk);
  session.AddAnswer("1", "");
  EXPECT_EQ(session.Read("Two?"), Action::kAsk);
  EXPECT_THAT(Messages(session), ElementsAre("system: Be brief.", "user: One?",
                                             "assistant: 1", "user: Two?"));
}

TEST(ChatSessionTest, KeepsTheSettings) {
  v1::GenerateRequest settings;
  settings.set_max_tokens(5);
  ChatSession session(settings, {.think = true});
  session.Read("One?");
  EXPECT_EQ(session.request().max_tokens(), 5u);
  EXPECT_TRUE(session.request().conversation().enable_thinking());
}

TEST(ChatSessionTest, IgnoresEmptyLines) {
  ChatSession session({}, {});
  EXPECT_EQ(session.Read("  "), Action::kNothing);
  EXPECT_THAT(Messages(session), IsEmpty());
}

TEST(ChatSessionTest, RetryForgetsTheAnswer) {
  ChatSession session({}, {});
  session.Read("One?");
  session.AddAnswer("2", "");
  EXPECT_EQ(session.Read("/retry"), Action::kAsk);
  EXPECT_THAT(Messages(session), ElementsAre("user: One?"));
}

TEST(ChatSessionTest, RetryNeedsAQuestion) {
  ChatSession session({}, {.system = "Be brief."});
  EXPECT_EQ(session.Read("/retry"), Action::kShow);
}

TEST(ChatSessionTest, DropsAQuestionThatFailed) {
  ChatSession session({}, {});
  session.Read("One?");
  session.DropQuestion();
  EXPECT_THAT(Messages(session), IsEmpty());
}

// It used to forget the answer before, and to ask that question again.
TEST(ChatSessionTest, RetryAsksAQuestionThatFailed) {
  ChatSession session({}, {});
  session.Read("One?");
  session.AddAnswer("1", "");
  session.Read("Two?");
  session.DropQuestion();
  EXPECT_EQ(session.Read("/retry"), Action::kAsk);
  EXPECT_THAT(Messages(session),
              ElementsAre("user: One?", "assistant: 1", "user: Two?"));
}

TEST(ChatSessionTest, ReplacesTheSystemMessage) {
  ChatSession session({}, {.system = "Be brief."});
  session.Read("One?");
  EXPECT_EQ(session.Read("/system Be long."), Action::kShow);
  EXPECT_THAT(Messages(session), ElementsAre("system: Be long.", "user: One?"));
  session.Read("/system");
  EXPECT_THAT(Messages(session), ElementsAre("user: One?"));
}

TEST(ChatSessionTest, ClearKeepsTheSystemMessage) {
  ChatSession session({}, {.system = "Be brief."});
  session.Read("One?");
  session.AddAnswer("1", "");
  session.Read("/clear");
  EXPECT_THAT(Messages(session), ElementsAre("system: Be brief."));
}

TEST(ChatSessionTest, ThinkToggles) {
  ChatSession session({}, {});
  session.Read("/think");
  EXPECT_TRUE(session.request().conversation().enable_thinking());
  session.Read("/think");
  EXPECT_FALSE(session.request().conversation().enable_thinking());
}

TEST(ChatSessionTest, SavesToTheNamedFile) {
  ChatSession session({}, {});
  session.Read("One?");
  session.AddAnswer("1", "Hm");
  EXPECT_EQ(session.Read("/save a b.jsonl"), Action::kSave);
  EXPECT_EQ(session.reply(), "a b.jsonl");
  EXPECT_EQ(session.Transcript(),
            "{\"role\":\"user\",\"content\":\"One?\"}\n"
            "{\"role\":\"assistant\",\"content\":\"1\",\"reasoning\":\"Hm\"}"
            "\n");
}

TEST(ChatSessionTest, QuitsAndHelps) {
  ChatSession session({}, {});
  EXPECT_EQ(session.Read("/help"), Action::kShow);
  EXPECT_THAT(session.reply(), HasSubstr("/retry"));
  EXPECT_EQ(session.Read("/quit"), Action::kQuit);
}

TEST(ChatSessionTest, NamesAnUnknownCommand) {
  ChatSession session({}, {});
  EXPECT_EQ(session.Read("/frobnicate now"), Action::kShow);
  EXPECT_THAT(session.reply(), HasSubstr("/frobnicate"));
}

TEST(ChatSessionTest, TwoSlashesSayOne) {
  ChatSession session({}, {});
  EXPECT_EQ(session.Read("//etc/hosts"), Action::kAsk);
  EXPECT_THAT(Messages(session), ElementsAre("user: /etc/hosts"));
}

}  // namespace
}  // namespace lapidary
