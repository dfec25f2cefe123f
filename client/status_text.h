// The state of a router and its groups, for people.

#ifndef CLIENT_STATUS_TEXT_H_
#define CLIENT_STATUS_TEXT_H_

#include <string>

#include "absl/strings/string_view.h"
#include "proto/lapidary/v1/inference.pb.h"

namespace lapidary {

// A few lines for the router and for each group, each ended by a line feed.
//
//   router 127.0.0.1:8470  version 0.1  up 2m5s
//     requests   1 running, 0 waiting (0 tokens)
//   group 127.0.0.1:40123  ready
//     model      gemma-4-12b  bf16  1 rank  2 CPU threads, avx512_bf16
//     requests   1 running, 0 waiting, 12,288 tokens to prefill
//     global     130 of 4,096 pages used (3%), 160 KiB each
//     window     17 of 320 pages used (5%), 640 KiB each
//     speed      3,105 tokens/s prefill, 41.2 tokens/s decode
//
// A group that is "connecting" or "suspect" shows no load.
std::string StatusText(absl::string_view router_address,
                       const v1::GetStatusResponse& status);

}  // namespace lapidary

#endif  // CLIENT_STATUS_TEXT_H_
