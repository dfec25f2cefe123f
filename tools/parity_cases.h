// Reference cases: prompts, and what the reference implementation made of them.

#ifndef TOOLS_PARITY_CASES_H_
#define TOOLS_PARITY_CASES_H_

#include <optional>
#include <span>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "common/tokens.h"
#include "worker/loader/safetensors.h"

namespace lapidary {

struct ParityCase {
  std::string id;
  std::vector<TokenId> tokens;  // BOS included.
  std::vector<int> positions;   // Where logits are stored, ascending.
  // What the reference's own bf16 run is off by at those positions.
  std::optional<double> bf16_rms_error;
  // What it generates greedily, and the gaps between its two best logits.
  std::vector<TokenId> greedy;
  std::vector<double> greedy_margin;
};

// Reads the form of tests/testdata/models/*/cases.json and cases_long.json:
// {"cases": [{"id", "tokens" | "tokens_rule", "positions", …}, …]}.
//
// Errors: those of ReadFile(); INVALID_ARGUMENT, naming file, case and key.
absl::StatusOr<std::vector<ParityCase>> ReadParityCases(
    const std::string& path);

// The stored logits of `parity_case`, [positions, vocab].  Valid as long as the
// file.
//
// Errors: NOT_FOUND; FAILED_PRECONDITION if dtype or shape differ.
absl::StatusOr<std::span<const float>> ReferenceLogits(
    const SafetensorsFile& reference, const ParityCase& parity_case,
    int vocab_size);

}  // namespace lapidary

#endif  // TOOLS_PARITY_CASES_H_
