// Collects a prompt and remembers which parts of it the caller supplied.

#ifndef ROUTER_TEXT_PROMPT_WRITER_H_
#define ROUTER_TEXT_PROMPT_WRITER_H_

#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "router/text/chat_template.h"
#include "router/text/tokenizer.h"  // TextSpan

namespace lapidary {

// Thread-compatible.
class PromptWriter {
 public:
  // Appends text of the template's own; control tokens in it are meant.
  void Template(absl::string_view text) {
    absl::StrAppend(&prompt_.text, text);
  }

  // Appends text that the caller supplied.
  void Caller(absl::string_view text) {
    if (text.empty()) return;
    const size_t begin = prompt_.text.size();
    absl::StrAppend(&prompt_.text, text);
    const size_t end = prompt_.text.size();
    if (!prompt_.literal.empty() && prompt_.literal.back().end == begin) {
      prompt_.literal.back().end = end;
    } else {
      prompt_.literal.push_back({.begin = begin, .end = end});
    }
  }

  // Appends the caller's `text` between the template's string quotes.
  void Quoted(absl::string_view text) {
    Template("<|\"|>");
    Caller(text);
    Template("<|\"|>");
  }

  void BeginThinking() { prompt_.starts_in_thinking = true; }

  RenderedPrompt Take() { return std::move(prompt_); }

 private:
  RenderedPrompt prompt_;
};

// Writes nothing the first time and a comma each further time.
class Comma {
 public:
  explicit Comma(PromptWriter& out) : out_(out) {}

  void Write() {
    if (std::exchange(is_needed_, true)) out_.Template(",");
  }

 private:
  PromptWriter& out_;
  bool is_needed_ = false;
};

}  // namespace lapidary

#endif  // ROUTER_TEXT_PROMPT_WRITER_H_
