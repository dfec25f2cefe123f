#include "router/rpc/request_check.h"

#include <algorithm>
#include <cmath>
#include <string>
#include <utility>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"

namespace lapidary {
namespace {

// Collects violations, kMaxViolations at most.
class Violations {
 public:
  void Add(std::string field, std::string description) {
    if (!full()) list_.push_back({std::move(field), std::move(description)});
  }

  bool full() const { return list_.size() >= kMaxViolations; }

  // Says whether a list is short enough to be looked at.
  bool CheckCount(const std::string& field, int count, int max) {
    if (count <= max) return true;
    Add(field, absl::StrCat("expected at most ", max, ", got ", count));
    return false;
  }

  std::vector<FieldViolation> Take() { return std::move(list_); }

 private:
  std::vector<FieldViolation> list_;
};

enum class Bound { kOpen, kClosed };

// `min` belongs to the range if `bound` is closed; `max` does.
void CheckFloat(const char* field, float value, float min, Bound bound,
                float max, Violations& violations) {
  const bool above = bound == Bound::kClosed ? value >= min : value > min;
  if (above && value <= max) return;  // Both false for NaN.
  violations.Add(
      absl::StrCat("sampling.", field),
      absl::StrFormat("expected a number in %c%g, %g], got %g",
                      bound == Bound::kClosed ? '[' : '(', min, max, value));
}

void CheckToken(const std::string& field, uint32_t token,
                const ServedModel& model, Violations& violations) {
  if (token < static_cast<uint32_t>(model.vocab_size)) return;
  violations.Add(field, absl::StrCat("expected a token id from 0 to ",
                                     model.vocab_size - 1, ", got ", token));
}

void CheckLogitBias(const v1::Sampling& sampling, const ServedModel& model,
                    Violations& violations) {
  if (!violations.CheckCount("sampling.logit_bias",
                             static_cast<int>(sampling.logit_bias_size()),
                             kMaxLogitBias)) {
    return;
  }
  for (const auto& [token, bias] : sampling.logit_bias()) {
    const std::string field = absl::StrCat("sampling.logit_bias[", token, "]");
    CheckToken(field, token, model, violations);
    if (!(bias >= -100 && bias <= 100)) {
      violations.Add(
          field,
          absl::StrFormat("expected a number in [-100, 100], got %g", bias));
    }
  }
}

void CheckSampling(const v1::Sampling& sampling, const ServedModel& model,
                   Violations& violations) {
  if (sampling.has_temperature()) {
    CheckFloat("temperature", sampling.temperature(), 0, Bound::kClosed, 100,
               violations);
  }
  if (sampling.has_top_p())
    CheckFloat("top_p", sampling.top_p(), 0, Bound::kOpen, 1, violations);
  if (sampling.has_min_p())
    CheckFloat("min_p", sampling.min_p(), 0, Bound::kClosed, 1, violations);
  if (sampling.has_repetition_penalty()) {
    CheckFloat("repetition_penalty", sampling.repetition_penalty(), 0,
               Bound::kOpen, 100, violations);
  }
  if (sampling.has_presence_penalty()) {
    CheckFloat("presence_penalty", sampling.presence_penalty(), -100,
               Bound::kClosed, 100, violations);
  }
  if (sampling.has_frequency_penalty()) {
    CheckFloat("frequency_penalty", sampling.frequency_penalty(), -100,
               Bound::kClosed, 100, violations);
  }
  if (sampling.has_logprobs() && sampling.logprobs() > kMaxLogprobs) {
    violations.Add("sampling.logprobs",
                   absl::StrCat("expected at most ", kMaxLogprobs, ", got ",
                                sampling.logprobs()));
  }
  CheckLogitBias(sampling, model, violations);
}

void CheckStops(const v1::GenerateRequest& request, const ServedModel& model,
                Violations& violations) {
  if (violations.CheckCount("stop", request.stop_size(), kMaxStopStrings)) {
    for (int i = 0; i < request.stop_size(); ++i) {
      const size_t size = request.stop(i).size();
      if (size >= 1 && size <= kMaxStopStringBytes) continue;
      violations.Add(absl::StrCat("stop[", i, "]"),
                     absl::StrCat("expected 1 to ", kMaxStopStringBytes,
                                  " bytes, got ", size));
    }
  }
  if (violations.CheckCount("stop_token_ids", request.stop_token_ids_size(),
                            kMaxStopTokens)) {
    for (int i = 0; i < request.stop_token_ids_size(); ++i) {
      CheckToken(absl::StrCat("stop_token_ids[", i, "]"),
                 request.stop_token_ids(i), model, violations);
    }
  }
}

// Enough of a caller's text to recognise it, on one line.
std::string Quote(absl::string_view text) {
  constexpr size_t kShownBytes = 40;
  return absl::StrCat("\"", absl::CHexEscape(text.substr(0, kShownBytes)),
                      "\"");
}

void CheckMessage(const v1::Message& message, const std::string& path,
                  Violations& violations) {
  static constexpr absl::string_view kRoles[] = {"system", "developer", "user",
                                                 "assistant", "tool"};
  if (std::find(std::begin(kRoles), std::end(kRoles), message.role()) ==
      std::end(kRoles)) {
    violations.Add(path + ".role",
                   absl::StrCat("expected system, developer, user, assistant "
                                "or tool, got ",
                                Quote(message.role())));
  }
  if (message.content().empty() && message.tool_calls().empty()) {
    violations.Add(path + ".content",
                   "expected at least 1 part or tool call, got none");
  }
  if (violations.CheckCount(path + ".content", message.content_size(),
                            kMaxContentParts)) {
    for (int i = 0; i < message.content_size(); ++i) {
      if (message.content(i).part_case() == v1::ContentPart::kText) continue;
      violations.Add(absl::StrCat(path, ".content[", i, "]"),
                     "expected text, got a part without");
    }
  }
  if (!violations.CheckCount(path + ".tool_calls", message.tool_calls_size(),
                             kMaxToolCalls)) {
    return;
  }
  for (int i = 0; i < message.tool_calls_size(); ++i) {
    if (!message.tool_calls(i).name().empty()) continue;
    violations.Add(absl::StrCat(path, ".tool_calls[", i, "].name"),
                   "expected the name of a function, got \"\"");
  }
}

// Text that cannot fit the context whatever it says, so that no memory goes
// into tokenizing it.
void CheckBytes(const std::string& field, size_t bytes,
                const ServedModel& model, Violations& violations) {
  if (static_cast<int64_t>(bytes) <= model.max_prompt_bytes) return;
  violations.Add(
      field, absl::StrCat("expected at most ", model.max_prompt_bytes,
                          " bytes, the longest text of ",
                          model.max_context_tokens, " tokens, got ", bytes));
}

void CheckConversation(const v1::Conversation& conversation,
                       const ServedModel& model, Violations& violations) {
  if (conversation.messages().empty()) {
    violations.Add("conversation.messages",
                   "expected at least 1 message, got none");
  }
  violations.CheckCount("conversation.tools_json",
                        conversation.tools_json_size(), kMaxTools);
  if (!violations.CheckCount("conversation.messages",
                             conversation.messages_size(), kMaxMessages)) {
    return;
  }
  CheckBytes("conversation", conversation.ByteSizeLong(), model, violations);
  for (int i = 0; i < conversation.messages_size() && !violations.full(); ++i) {
    CheckMessage(conversation.messages(i),
                 absl::StrCat("conversation.messages[", i, "]"), violations);
  }
}

void CheckTokenIds(const v1::TokenIds& token_ids, const ServedModel& model,
                   Violations& violations) {
  if (token_ids.ids().empty())
    violations.Add("token_ids.ids", "expected at least 1 token, got none");
  if (!violations.CheckCount("token_ids.ids", token_ids.ids_size(),
                             model.max_context_tokens)) {
    return;
  }
  const auto limit = static_cast<uint32_t>(model.vocab_size);
  for (int i = 0; i < token_ids.ids_size() && !violations.full(); ++i) {
    if (token_ids.ids(i) < limit) continue;  // The usual, without a string.
    CheckToken(absl::StrCat("token_ids.ids[", i, "]"), token_ids.ids(i), model,
               violations);
  }
}

void CheckPrompt(const v1::GenerateRequest& request, const ServedModel& model,
                 Violations& violations) {
  switch (request.prompt_case()) {
    case v1::GenerateRequest::kConversation:
      CheckConversation(request.conversation(), model, violations);
      break;
    case v1::GenerateRequest::kText:
      if (request.text().text().empty())
        violations.Add("text.text", "expected at least 1 character, got none");
      CheckBytes("text.text", request.text().text().size(), model, violations);
      break;
    case v1::GenerateRequest::kTokenIds:
      CheckTokenIds(request.token_ids(), model, violations);
      break;
    case v1::GenerateRequest::PROMPT_NOT_SET:
      violations.Add("prompt",
                     "expected one of conversation, text, token_ids, got none");
      break;
  }
}

}  // namespace

std::vector<FieldViolation> CheckRequest(const v1::GenerateRequest& request,
                                         const ServedModel& model) {
  Violations violations;
  CheckPrompt(request, model, violations);
  CheckSampling(request.sampling(), model, violations);
  CheckStops(request, model, violations);
  if (request.priority() < -kMaxPriority || request.priority() > kMaxPriority) {
    violations.Add("priority",
                   absl::StrCat("expected -", kMaxPriority, " to ",
                                kMaxPriority, ", got ", request.priority()));
  }
  return violations.Take();
}

std::optional<FieldViolation> CheckLength(const v1::GenerateRequest& request,
                                          int64_t prompt_tokens,
                                          const ServedModel& model) {
  const int64_t limit = model.max_context_tokens;
  if (prompt_tokens >= limit) {
    return FieldViolation{
        "prompt", absl::StrCat("expected fewer than ", limit, " tokens, got ",
                               prompt_tokens)};
  }
  if (prompt_tokens + request.max_tokens() > limit) {
    return FieldViolation{
        "max_tokens", absl::StrCat("expected at most ", limit - prompt_tokens,
                                   ", what a prompt of ", prompt_tokens,
                                   " tokens leaves of the context of ", limit,
                                   ", got ", request.max_tokens())};
  }
  return std::nullopt;
}

v1::Sampling CompleteSampling(const v1::Sampling& request,
                              const ServedModel& model, uint64_t drawn_seed) {
  v1::Sampling sampling = model.default_sampling;
  sampling.set_seed(drawn_seed);
  sampling.MergeFrom(request);  // Fields that are set win.
  return sampling;
}

std::vector<TokenId> StopTokens(const v1::GenerateRequest& request,
                                const ServedModel& model) {
  std::vector<TokenId> tokens(request.stop_token_ids().begin(),
                              request.stop_token_ids().end());
  if (!request.ignore_eos()) {
    tokens.insert(tokens.end(), model.stop_tokens.begin(),
                  model.stop_tokens.end());
  }
  return tokens;
}

}  // namespace lapidary
