#include "router/rpc/call_metadata.h"

#include <chrono>

#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "common/grpc_status.h"
#include "common/request_id.h"

namespace lapidary {

std::string TakeRequestId(grpc::CallbackServerContext& context,
                          absl::Status& status) {
  std::string request_id = NewRequestId();
  const auto& metadata = context.client_metadata();
  if (const auto it = metadata.find(kRequestIdKey); it != metadata.end()) {
    const absl::string_view brought(it->second.data(), it->second.size());
    if (IsRequestId(brought)) {
      request_id = std::string(brought);
    } else {
      status = BadRequestError(
          {{kRequestIdKey,
            absl::StrCat("expected 1 to ", kMaxRequestIdBytes,
                         " printable ASCII characters without blanks, got ",
                         brought.size(), " bytes")}});
    }
  }
  context.AddTrailingMetadata(kRequestIdKey, request_id);
  return request_id;
}

absl::Time CallDeadline(const grpc::CallbackServerContext& context) {
  const std::chrono::system_clock::time_point deadline = context.deadline();
  if (deadline == std::chrono::system_clock::time_point::max())
    return absl::InfiniteFuture();
  return absl::FromChrono(deadline);
}

}  // namespace lapidary
