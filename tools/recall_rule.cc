#include "tools/recall_rule.h"

#include <algorithm>
#include <optional>
#include <span>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "common/tokens.h"

namespace lapidary {
namespace {

constexpr int kMaxAnswerTokens = 512;

std::vector<TokenId> EncodeLiterally(const Tokenizer& tokenizer,
                                     absl::string_view text) {
  const TextSpan literal{0, text.size()};
  return tokenizer.Encode(text, {&literal, 1});
}

bool IsLineFeeds(absl::string_view bytes) {
  return !bytes.empty() && std::all_of(bytes.begin(), bytes.end(),
                                       [](char c) { return c == '\n'; });
}

// What followed `context` in `tokens`: the same token each time that it stands
// there.
absl::StatusOr<TokenId> Continuation(std::span<const TokenId> tokens,
                                     std::span<const TokenId> context) {
  std::optional<TokenId> next;
  for (auto it = tokens.begin();;) {
    it = std::search(it, tokens.end(), context.begin(), context.end());
    const auto after =
        tokens.end() - it > kRecallTokens ? it + kRecallTokens : tokens.end();
    if (after == tokens.end()) break;
    if (next && *next != *after) {
      return absl::FailedPreconditionError(absl::StrCat(
          "the last ", kRecallTokens,
          " tokens stand in the document several times and go on differently; "
          "needs a line that goes on in one way"));
    }
    next = *after;
    ++it;
  }
  if (next) return *next;
  return absl::NotFoundError(absl::StrCat(
      "needs the beginning of a line of the document, found no place with the "
      "last ",
      kRecallTokens, " tokens of the question"));
}

}  // namespace

absl::StatusOr<std::string> RecallAnswer(const Tokenizer& tokenizer,
                                         absl::string_view document,
                                         absl::string_view question) {
  const std::vector<TokenId> tokens = EncodeLiterally(tokenizer, document);
  std::vector<TokenId> context = EncodeLiterally(tokenizer, question);
  if (context.size() < kRecallTokens) {
    return absl::InvalidArgumentError(
        absl::StrCat("the question needs ", kRecallTokens, " tokens, found ",
                     context.size()));
  }
  std::vector<TokenId> answer;
  while (answer.size() < kMaxAnswerTokens) {
    const absl::StatusOr<TokenId> next =
        Continuation(tokens, std::span(context).last(kRecallTokens));
    if (!next.ok()) {
      if (answer.empty()) return next.status();
      return absl::Status(
          next.status().code(),
          absl::StrCat(next.status().message(), "; it is certain up to \"",
                       question, tokenizer.Decode(answer), "\""));
    }
    if (IsLineFeeds(tokenizer.TokenBytes(*next))) break;
    answer.push_back(*next);
    context.push_back(*next);
  }
  if (answer.empty()) {
    return absl::NotFoundError(
        "the question is a whole line of the document: "
        "nothing follows it there");
  }
  return std::string(absl::StripAsciiWhitespace(tokenizer.Decode(answer)));
}

}  // namespace lapidary
