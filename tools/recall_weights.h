// Weights set by hand, so that a model does one thing exactly: it finds the
// place in its context where the last 7 tokens stood before, and goes on from
// there to the end of the line.  Then it ends its turn.
//
//   residual stream [256]
//     A 0..63        code of the token, of {-1, 1}^64
//     KEY 64..127    bits of the codes of the 7 tokens before this one
//     QRY 128..191   bits of the codes of this token and the 6 before it
//     TOKFLAG 192    the token is <channel|>
//     FLAG 193..200  the token j before this one is <channel|>, for j = 0..7
//     VETO 201       the token ends a turn: no place to go on from
//     CONST 202..255 the same for every token
//
//   layer 0     window  sets FLAG
//   layers 1-4  window  gather KEY and QRY; after a chat prompt, which ends in
//                       <channel|>, they look past the template's 13 tokens
//   layer 5     global  attends from QRY to the equal KEY and takes its A

#ifndef TOOLS_RECALL_WEIGHTS_H_
#define TOOLS_RECALL_WEIGHTS_H_

#include <map>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "kernels/bf16.h"
#include "tools/tensor_list.h"

namespace lapidary {

// Of the recall model.
absl::string_view RecallConfig();
absl::string_view RecallGenerationConfig();

// The values of each tensor of RecallConfig(), row-major, by name.
// `tokenizer` is the text of the model's tokenizer.json: it says which tokens
// are runs of newlines.
//
// Errors: INVALID_ARGUMENT if the tokenizer has not the model's vocabulary.
absl::StatusOr<std::map<std::string, std::vector<Bf16>>> RecallWeights(
    absl::string_view tokenizer);

}  // namespace lapidary

#endif  // TOOLS_RECALL_WEIGHTS_H_
