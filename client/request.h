// What a person asked for on the command line, as a request of the API.

#ifndef CLIENT_REQUEST_H_
#define CLIENT_REQUEST_H_

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "proto/lapidary/v1/inference.pb.h"
#include "proto/lapidary/v1/sampling.pb.h"

namespace lapidary {

// What is not set is left to the model's defaults.  Ranges are the router's to
// check: it names every field that is wrong.
struct SamplingOptions {
  std::optional<float> temperature{};
  std::optional<uint32_t> top_k{};
  std::optional<float> top_p{};
  std::optional<float> min_p{};
  std::optional<float> repetition_penalty{};
  std::optional<float> presence_penalty{};
  std::optional<float> frequency_penalty{};
  std::string logit_bias{};  // "ID:VALUE,ID:VALUE"
  std::optional<uint64_t> seed{};
  std::optional<uint32_t> logprobs{};
};

enum class PromptForm {
  kChat,          // One user message, rendered by the model's template.
  kText,          // Continued as it stands.
  kTextControls,  // As kText, control tokens in it are control tokens.
};

struct RequestOptions {
  PromptForm form = PromptForm::kChat;
  std::string document{};  // Stands before the prompt, a blank line between.
  std::string prompt{};
  std::string system{};  // Chat form only.
  bool think = false;    // Chat form only.
  SamplingOptions sampling{};
  uint32_t max_tokens = 0;  // 0 = as many as the context allows.
  std::string stop{};       // Strings, as SplitList() reads them.
  std::string stop_token_ids{};
  int32_t priority = 0;
  bool ignore_eos = false;
};

// Errors: INVALID_ARGUMENT if there is no text at all, if an option does not go
// with the form, or if a list cannot be read.
absl::StatusOr<v1::GenerateRequest> MakeRequest(const RequestOptions& options);

// As MakeRequest(), without the prompt.
absl::StatusOr<v1::GenerateRequest> MakeRequestSettings(
    const RequestOptions& options);

// Splits at commas.  In the items \n, \t, \\ and \, stand for a line feed, a
// tab, a backslash and a comma.  An empty text is an empty list.
//
// Errors: INVALID_ARGUMENT on another character after a backslash.
absl::StatusOr<std::vector<std::string>> SplitList(absl::string_view text);

}  // namespace lapidary

#endif  // CLIENT_REQUEST_H_
