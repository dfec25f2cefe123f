// What a router needs of a model's directory: config.json, tokenizer.json,
// generation_config.json and, to compare, the chat template.  No weights.

#ifndef ROUTER_RPC_SERVED_MODEL_H_
#define ROUTER_RPC_SERVED_MODEL_H_

#include <cstdint>
#include <limits>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "common/generation_config.h"
#include "common/model_files.h"
#include "common/tokens.h"
#include "proto/lapidary/v1/sampling.pb.h"
#include "router/text/chat_template.h"
#include "router/text/tokenizer.h"

namespace lapidary {

// Immutable and thread-safe once loaded.
struct ServedModel {
  // Errors: those of reading and parsing the files, with their paths;
  // INVALID_ARGUMENT if the files contradict each other.
  static absl::StatusOr<std::unique_ptr<const ServedModel>> Load(
      const std::string& directory);

  std::string name;  // The directory's.
  std::string model_type;
  int vocab_size = 0;
  int max_context_tokens = 0;
  // A longer text has more than max_context_tokens.
  int64_t max_prompt_bytes = std::numeric_limits<int64_t>::max();
  ModelDigests digests;

  std::unique_ptr<const Tokenizer> tokenizer;
  TokenId bos_token = 0;
  TemplateVariant template_variant = TemplateVariant::kLarge;
  // Set if the directory's chat template is neither published one.
  std::string template_warning;

  // All fields set but logit_bias, seed and logprobs.
  v1::Sampling default_sampling;
  std::vector<TokenId> stop_tokens;
  std::vector<TokenId> suppressed_tokens;
};

}  // namespace lapidary

#endif  // ROUTER_RPC_SERVED_MODEL_H_
