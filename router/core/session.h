// One request's output: token ids in, text out.
//
//   tokens ─► stop tokens ─► OutputParser ─► thinking ──────────────────► delta
//                                        └─► answer ─► StopMatcher ─► text ┘
//
// Pure.  It also counts what the client is told at the end.

#ifndef ROUTER_CORE_SESSION_H_
#define ROUTER_CORE_SESSION_H_

#include <optional>
#include <span>
#include <string>
#include <vector>

#include "absl/time/time.h"
#include "common/tokens.h"
#include "router/text/output_parser.h"
#include "router/text/stop_matcher.h"
#include "router/text/tokenizer.h"

namespace lapidary {

// Thread-compatible.
class Session {
 public:
  struct Request {
    int prompt_tokens = 0;
    OutputStart start = OutputStart::kAnswer;
    // The output ends before the first of these.  Looked for in the answer, not
    // in the thoughts.
    std::vector<std::string> stop_strings;
    // Each ends the output and has no text.
    std::vector<TokenId> stop_tokens;
    absl::Time arrival;
    absl::Duration tokenize_time;
  };

  enum class Finish { kStopToken, kStopString, kLength };

  struct Output {
    std::string text;
    std::string thinking;
    // How many of the tokens belong to the output; the rest came after its end.
    int num_tokens = 0;
  };

  // What the group said at the end about its own time.
  struct GroupTimes {
    absl::Duration queued;
  };

  struct Timings {
    absl::Duration queue;
    absl::Duration prefill;
    absl::Duration decode;
    absl::Duration total;
    absl::Duration tokenize;
  };

  // `tokenizer` must outlive the session.
  Session(const Tokenizer& tokenizer, Request request);

  // The request was sent to a group; again, if a first one was lost.
  void OnStarted(absl::Time now) { started_ = now; }
  // The group began with the prompt.
  void OnPrefillStarted(absl::Time now);

  // Takes the next tokens.  After finish() is set, all are ignored.
  //
  // REQUIRES: each is >= 0 and below the vocabulary's size.
  Output Push(std::span<const TokenId> tokens, absl::Time now);

  // The group generated all that it may: what was held back.  Sets finish() to
  // kLength unless it is set.
  Output End();

  // Why the output is complete; nullopt while it is not.
  std::optional<Finish> finish() const { return finish_; }
  TokenId stop_token() const { return stop_token_; }  // For kStopToken.
  // For kStopString: which of Request::stop_strings.
  const std::string& stop_string() const {
    return request_.stop_strings[stop_string_];
  }

  int prompt_tokens() const { return request_.prompt_tokens; }
  int output_tokens() const { return output_tokens_; }
  int thinking_tokens() const { return thinking_tokens_; }
  absl::Time arrival() const { return request_.arrival; }

  // From one token to the next, seconds: first and last token seen so far.
  std::optional<absl::Time> first_token() const { return first_token_; }

  // `group` if the group told.
  Timings TimingsAt(absl::Time now,
                    const std::optional<GroupTimes>& group) const;

 private:
  void PushToken(TokenId token, Output& output);
  void AppendAnswer(const std::string& text, Output& output);

  const Request request_;
  OutputParser parser_;
  StopMatcher matcher_;
  std::optional<Finish> finish_;
  TokenId stop_token_ = 0;
  int stop_string_ = -1;
  int output_tokens_ = 0;
  int thinking_tokens_ = 0;
  std::optional<absl::Time> started_;
  std::optional<absl::Time> prefill_started_;
  std::optional<absl::Time> first_token_;
  std::optional<absl::Time> last_token_;
};

}  // namespace lapidary

#endif  // ROUTER_CORE_SESSION_H_
