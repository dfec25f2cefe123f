// Whether a request's fields are in range, and what they come to with the
// model's defaults.

#ifndef ROUTER_RPC_REQUEST_CHECK_H_
#define ROUTER_RPC_REQUEST_CHECK_H_

#include <cstdint>
#include <optional>
#include <vector>

#include "common/grpc_status.h"  // FieldViolation
#include "common/tokens.h"
#include "proto/lapidary/v1/inference.pb.h"
#include "proto/lapidary/v1/worker.pb.h"
#include "router/rpc/served_model.h"

namespace lapidary {

// Bounds of a request, beside those in the comments of inference.proto.
inline constexpr int kMaxMessages = 10000;
inline constexpr int kMaxContentParts = 10000;  // Of a message.
inline constexpr int kMaxToolCalls = 1000;      // Of a message.
inline constexpr int kMaxTools = 1000;
inline constexpr int kMaxStopStrings = 64;
inline constexpr int kMaxStopStringBytes = 1024;
inline constexpr int kMaxStopTokens = 64;
inline constexpr int kMaxLogitBias = 1024;
inline constexpr int kMaxLogprobs = 20;
inline constexpr int kMaxPriority = 10;

// Every field that is out of range.  Cheap: reads no text, looks at no more
// than the bounds' number of elements, and stops after kMaxViolations.
std::vector<FieldViolation> CheckRequest(const v1::GenerateRequest& request,
                                         const ServedModel& model);

// Whether prompt and output fit the model's context.
std::optional<FieldViolation> CheckLength(const v1::GenerateRequest& request,
                                          int64_t prompt_tokens,
                                          const ServedModel& model);

// `request`'s sampling with the defaults of `model` and, where it has none,
// `drawn_seed`.
v1::Sampling CompleteSampling(const v1::Sampling& request,
                              const ServedModel& model, uint64_t drawn_seed);

// The tokens that end the output: the request's and, unless it says no, the
// model's.
std::vector<TokenId> StopTokens(const v1::GenerateRequest& request,
                                const ServedModel& model);

}  // namespace lapidary

#endif  // ROUTER_RPC_REQUEST_CHECK_H_
