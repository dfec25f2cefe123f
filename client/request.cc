#include "client/request.h"

#include <utility>

#include "absl/status/status.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "common/status_macros.h"

namespace lapidary {
namespace {

absl::Status AddLogitBias(absl::string_view text, v1::Sampling& sampling) {
  for (const absl::string_view entry :
       absl::StrSplit(text, ',', absl::SkipEmpty())) {
    const std::vector<absl::string_view> parts = absl::StrSplit(entry, ':');
    uint32_t id = 0;
    float value = 0;
    if (parts.size() != 2 || !absl::SimpleAtoi(parts[0], &id) ||
        !absl::SimpleAtof(parts[1], &value)) {
      return absl::InvalidArgumentError(absl::StrCat(
          "--logit-bias needs entries of the form ID:VALUE, found \"", entry,
          "\""));
    }
    (*sampling.mutable_logit_bias())[id] = value;
  }
  return absl::OkStatus();
}

absl::StatusOr<v1::Sampling> MakeSampling(const SamplingOptions& options) {
  v1::Sampling sampling;
  if (options.temperature) sampling.set_temperature(*options.temperature);
  if (options.top_k) sampling.set_top_k(*options.top_k);
  if (options.top_p) sampling.set_top_p(*options.top_p);
  if (options.min_p) sampling.set_min_p(*options.min_p);
  if (options.repetition_penalty) {
    sampling.set_repetition_penalty(*options.repetition_penalty);
  }
  if (options.presence_penalty) {
    sampling.set_presence_penalty(*options.presence_penalty);
  }
  if (options.frequency_penalty) {
    sampling.set_frequency_penalty(*options.frequency_penalty);
  }
  if (options.seed) sampling.set_seed(*options.seed);
  if (options.logprobs) sampling.set_logprobs(*options.logprobs);
  RETURN_IF_ERROR(AddLogitBias(options.logit_bias, sampling));
  return sampling;
}

std::string DocumentAndPrompt(const RequestOptions& options) {
  if (options.document.empty()) return options.prompt;
  if (options.prompt.empty()) return options.document;
  return absl::StrCat(options.document, "\n\n", options.prompt);
}

void AddMessage(absl::string_view role, std::string text,
                v1::Conversation& conversation) {
  v1::Message& message = *conversation.add_messages();
  message.set_role(std::string(role));
  message.add_content()->set_text(std::move(text));
}

}  // namespace

absl::StatusOr<std::vector<std::string>> SplitList(absl::string_view text) {
  std::vector<std::string> items;
  if (text.empty()) return items;
  items.emplace_back();
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] == ',') {
      items.emplace_back();
      continue;
    }
    if (text[i] != '\\') {
      items.back() += text[i];
      continue;
    }
    const char escaped = ++i < text.size() ? text[i] : '\0';
    switch (escaped) {
      case 'n':
        items.back() += '\n';
        break;
      case 't':
        items.back() += '\t';
        break;
      case '\\':
      case ',':
        items.back() += escaped;
        break;
      default:
        return absl::InvalidArgumentError(absl::StrCat(
            "needs n, t, \\ or a comma after the backslash, found \"",
            text.substr(i), "\""));
    }
  }
  return items;
}

absl::StatusOr<v1::GenerateRequest> MakeRequestSettings(
    const RequestOptions& options) {
  v1::GenerateRequest request;
  ASSIGN_OR_RETURN(*request.mutable_sampling(), MakeSampling(options.sampling));
  request.set_max_tokens(options.max_tokens);
  ASSIGN_OR_RETURN(const std::vector<std::string> stop,
                   SplitList(options.stop));
  for (const std::string& text : stop) request.add_stop(text);
  for (const absl::string_view text :
       absl::StrSplit(options.stop_token_ids, ',', absl::SkipEmpty())) {
    uint32_t id = 0;
    if (!absl::SimpleAtoi(text, &id)) {
      return absl::InvalidArgumentError(absl::StrCat(
          "--stop-token-ids needs token ids, found \"", text, "\""));
    }
    request.add_stop_token_ids(id);
  }
  request.set_priority(options.priority);
  request.set_ignore_eos(options.ignore_eos);
  return request;
}

absl::StatusOr<v1::GenerateRequest> MakeRequest(const RequestOptions& options) {
  if (options.document.empty() && options.prompt.empty()) {
    return absl::InvalidArgumentError("needs --prompt TEXT or --file FILE");
  }
  ASSIGN_OR_RETURN(v1::GenerateRequest request, MakeRequestSettings(options));
  if (options.form == PromptForm::kChat) {
    v1::Conversation& conversation = *request.mutable_conversation();
    conversation.set_enable_thinking(options.think);
    if (!options.system.empty()) {
      AddMessage("system", options.system, conversation);
    }
    AddMessage("user", DocumentAndPrompt(options), conversation);
    return request;
  }
  if (!options.system.empty() || options.think) {
    return absl::InvalidArgumentError(
        "--system and --think belong to the chat form, not to --raw");
  }
  request.mutable_text()->set_text(DocumentAndPrompt(options));
  request.mutable_text()->set_parse_control_tokens(options.form ==
                                                   PromptForm::kTextControls);
  return request;
}

}  // namespace lapidary
