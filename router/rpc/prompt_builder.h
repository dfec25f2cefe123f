// A request's prompt to token ids: the chat template and the tokenizer.

#ifndef ROUTER_RPC_PROMPT_BUILDER_H_
#define ROUTER_RPC_PROMPT_BUILDER_H_

#include <vector>

#include "absl/status/statusor.h"
#include "common/tokens.h"
#include "proto/lapidary/v1/inference.pb.h"
#include "router/rpc/served_model.h"
#include "router/text/output_parser.h"

namespace lapidary {

struct Prompt {
  std::vector<TokenId> tokens;
  OutputStart output_start = OutputStart::kAnswer;
};

// Levels of nesting that tools_json and arguments_json may have.
inline constexpr int kMaxJsonDepth = 64;

// Takes time proportional to the text: for the tokenization pool.
//
// REQUIRES: CheckRequest() has nothing against `request`.
// Errors: INVALID_ARGUMENT with a BadRequest: tools_json or arguments_json are
// not JSON objects, or the template refuses the conversation.
absl::StatusOr<Prompt> BuildPrompt(const v1::GenerateRequest& request,
                                   const ServedModel& model);

}  // namespace lapidary

#endif  // ROUTER_RPC_PROMPT_BUILDER_H_
