// A conversation at the keyboard: what each line that is typed means.

#ifndef CLIENT_CHAT_SESSION_H_
#define CLIENT_CHAT_SESSION_H_

#include <string>

#include "absl/strings/string_view.h"
#include "proto/lapidary/v1/inference.pb.h"

namespace lapidary {

// The history, the commands that change it, and nothing else: no terminal and
// no network.
//
//   session.Read("What is a lapidary?")  -> kAsk, and request() asks it
//   session.AddAnswer("A cutter of gems.", "")
//   session.Read("/retry")               -> kAsk, the answer is forgotten
//
// Thread-compatible.
class ChatSession {
 public:
  // How the conversation begins.
  struct Options {
    std::string system = {};  // Empty: no system message.
    bool think = false;
  };

  // `settings`: sampling and limits of every request, without a prompt.
  ChatSession(const v1::GenerateRequest& settings, const Options& options);

  enum class Action {
    kNothing,  // An empty line.
    kAsk,      // Send request(), then AddAnswer() or DropQuestion().
    kShow,     // Print reply().
    kSave,     // Write Transcript() to the file reply().
    kQuit,
  };

  // Takes a line that was typed, without its line feed.
  Action Read(absl::string_view line);

  // What the last Read() has to say.
  const std::string& reply() const { return reply_; }

  // The conversation so far, ready to send.
  const v1::GenerateRequest& request() const { return request_; }

  // The model's answer to request().
  void AddAnswer(const std::string& text, const std::string& thinking);

  // Takes the last question out of the conversation, because it failed or was
  // cancelled; "/retry" asks it again.
  void DropQuestion();

  // The conversation as JSON lines {"role", "content"}.
  std::string Transcript() const;

 private:
  Action Command(absl::string_view line);
  Action Retry();
  Action Show(absl::string_view reply);
  void SetSystem(absl::string_view text);
  void AddMessage(absl::string_view role, absl::string_view text);

  v1::Conversation& conversation() { return *request_.mutable_conversation(); }

  v1::GenerateRequest request_;
  std::string reply_;
  std::string dropped_;  // The last question, if it was dropped.
};

}  // namespace lapidary

#endif  // CLIENT_CHAT_SESSION_H_
