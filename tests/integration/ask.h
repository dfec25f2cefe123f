// Requests about a document with a fact in it, and what comes back.

#ifndef TESTS_INTEGRATION_ASK_H_
#define TESTS_INTEGRATION_ASK_H_

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "grpcpp/grpcpp.h"
#include "proto/lapidary/v1/inference.grpc.pb.h"

namespace lapidary {

inline constexpr char kQuestion[] = "The access code of the north gate is";
inline constexpr char kAnswer[] = "71-KESTREL-94.";

// A document of about `tokens` tokens; its line of question and answer stands
// at `depth_percent`, and the recall checkpoint finds it.
std::string DocumentWithFact(int tokens, double depth_percent);

// One user message, or a text to continue; greedy, at most 64 tokens.
v1::GenerateRequest ChatRequest(absl::string_view text);
v1::GenerateRequest TextRequest(absl::string_view text);

// A request that generates until it is stopped: `tokens` tokens.
v1::GenerateRequest EndlessRequest(int tokens = 100'000);

// A stream as it came.
struct Reply {
  absl::Status status;
  std::string text;
  std::vector<uint32_t> token_ids;
  std::vector<v1::Progress> progress;
  v1::Completed completed;
  std::string request_id;  // From the trailer.
};

// Reads the whole stream.  Calls `on_first_delta`, if there is one, with the
// call's context when the first delta has come.
Reply Ask(
    v1::Inference::Stub& stub, const v1::GenerateRequest& request,
    const std::function<void(grpc::ClientContext&)>& on_first_delta = nullptr,
    absl::Duration deadline = absl::Minutes(5),
    const std::string& request_id = "");

// Calls `method`, such as "/grpc.health.v1.Health/Check", with the bytes of a
// message and returns the bytes of the first answer.
absl::StatusOr<std::string> CallRaw(
    const std::shared_ptr<grpc::Channel>& channel, const std::string& method,
    absl::string_view request);

}  // namespace lapidary

#endif  // TESTS_INTEGRATION_ASK_H_
