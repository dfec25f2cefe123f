#include "client/chat_session.h"

#include <algorithm>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "nlohmann/json.hpp"

namespace lapidary {
namespace {

constexpr absl::string_view kHelp =
    "/system TEXT   set the system message; without TEXT remove it\n"
    "/think         turn thinking on or off\n"
    "/clear         forget the conversation, keep the system message\n"
    "/retry         ask the last question again\n"
    "/save FILE     write the conversation to FILE as JSON lines\n"
    "/quit          leave; so does the end of the input\n"
    "//TEXT         say /TEXT\n"
    "Ctrl-C         stop the answer that is coming\n";

bool HasRole(const v1::Conversation& conversation, int index,
             absl::string_view role) {
  return index >= 0 && index < conversation.messages_size() &&
         conversation.messages(index).role() == std::string(role);
}

}  // namespace

ChatSession::ChatSession(const v1::GenerateRequest& settings,
                         const Options& options)
    : request_(settings) {
  conversation().set_enable_thinking(options.think);
  SetSystem(options.system);
}

ChatSession::Action ChatSession::Read(absl::string_view line) {
  reply_.clear();
  if (absl::StripAsciiWhitespace(line).empty()) return Action::kNothing;
  if (absl::StartsWith(line, "/") && !absl::StartsWith(line, "//")) {
    return Command(absl::StripAsciiWhitespace(line));
  }
  dropped_.clear();
  AddMessage("user", absl::StartsWith(line, "//") ? line.substr(1) : line);
  return Action::kAsk;
}

ChatSession::Action ChatSession::Command(absl::string_view line) {
  const size_t end = std::min(line.find(' '), line.size());
  const absl::string_view name = line.substr(0, end);
  const absl::string_view argument =
      absl::StripAsciiWhitespace(line.substr(end));
  if (name == "/help") return Show(kHelp);
  if (name == "/quit" || name == "/exit") return Action::kQuit;
  if (name == "/retry") return Retry();
  if (name == "/system") {
    SetSystem(argument);
    return Show(argument.empty() ? "system message removed\n"
                                 : "system message set\n");
  }
  if (name == "/think") {
    const bool on = !conversation().enable_thinking();
    conversation().set_enable_thinking(on);
    return Show(on ? "thinking on\n" : "thinking off\n");
  }
  if (name == "/clear") {
    dropped_.clear();
    const int keep = HasRole(conversation(), 0, "system") ? 1 : 0;
    while (conversation().messages_size() > keep) {
      conversation().mutable_messages()->RemoveLast();
    }
    return Show("conversation forgotten\n");
  }
  if (name == "/save") {
    if (argument.empty()) return Show("/save needs a file name\n");
    reply_ = std::string(argument);
    return Action::kSave;
  }
  return Show(absl::StrCat("unknown command ", name,
                           "; /help lists them, //TEXT says /TEXT\n"));
}

ChatSession::Action ChatSession::Retry() {
  if (!dropped_.empty()) {
    AddMessage("user", std::exchange(dropped_, ""));
    return Action::kAsk;
  }
  if (HasRole(conversation(), conversation().messages_size() - 1,
              "assistant")) {
    conversation().mutable_messages()->RemoveLast();
  }
  if (!HasRole(conversation(), conversation().messages_size() - 1, "user")) {
    return Show("there is no question to ask again\n");
  }
  return Action::kAsk;
}

ChatSession::Action ChatSession::Show(absl::string_view reply) {
  reply_ = std::string(reply);
  return Action::kShow;
}

void ChatSession::AddAnswer(const std::string& text,
                            const std::string& thinking) {
  AddMessage("assistant", text);
  v1::Message& message = *conversation().mutable_messages()->rbegin();
  message.set_reasoning(thinking);
}

void ChatSession::DropQuestion() {
  if (HasRole(conversation(), conversation().messages_size() - 1, "user")) {
    dropped_ = conversation().messages().rbegin()->content(0).text();
    conversation().mutable_messages()->RemoveLast();
  }
}

std::string ChatSession::Transcript() const {
  std::string lines;
  for (const v1::Message& message : request_.conversation().messages()) {
    nlohmann::ordered_json object;
    object["role"] = message.role();
    object["content"] = message.content(0).text();
    if (!message.reasoning().empty()) object["reasoning"] = message.reasoning();
    absl::StrAppend(
        &lines,
        object.dump(-1, ' ', false,
                    nlohmann::ordered_json::error_handler_t::replace),
        "\n");
  }
  return lines;
}

void ChatSession::SetSystem(absl::string_view text) {
  auto& messages = *conversation().mutable_messages();
  if (HasRole(conversation(), 0, "system")) messages.DeleteSubrange(0, 1);
  if (text.empty()) return;
  AddMessage("system", text);
  // To the front, the others keep their order.
  for (int i = messages.size() - 1; i > 0; --i) messages.SwapElements(i, i - 1);
}

void ChatSession::AddMessage(absl::string_view role, absl::string_view text) {
  v1::Message& message = *conversation().add_messages();
  message.set_role(std::string(role));
  message.add_content()->set_text(std::string(text));
}

}  // namespace lapidary
