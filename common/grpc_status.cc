#include "common/grpc_status.h"

#include <algorithm>
#include <utility>

#include "absl/strings/cord.h"
#include "absl/strings/str_cat.h"
#include "glog/logging.h"
#include "third_party/google/rpc/error_details.pb.h"
#include "third_party/google/rpc/status.pb.h"

namespace lapidary {
namespace {

constexpr char kTypeUrlPrefix[] = "type.googleapis.com/";
constexpr size_t kMaxMessageBytes = 2000;
constexpr size_t kMaxDetailBytes = 3000;
constexpr size_t kMaxDescriptionBytes = 300;

// The start of `text`, at most `max_bytes`, without a cut character at its end.
std::string CutTo(absl::string_view text, size_t max_bytes) {
  if (text.size() <= max_bytes) return std::string(text);
  constexpr absl::string_view kCut = "...";
  size_t end = max_bytes - kCut.size();
  while (end > 0 && (text[end] & 0xC0) == 0x80) --end;
  return absl::StrCat(text.substr(0, end), kCut);
}

template <typename Detail>
std::string TypeUrl() {
  return absl::StrCat(kTypeUrlPrefix, Detail::descriptor()->full_name());
}

template <typename Detail>
void SetDetail(const Detail& detail, absl::Status& status) {
  status.SetPayload(TypeUrl<Detail>(), absl::Cord(detail.SerializeAsString()));
}

template <typename Detail>
std::optional<Detail> GetDetail(const absl::Status& status) {
  const absl::optional<absl::Cord> payload =
      status.GetPayload(TypeUrl<Detail>());
  Detail detail;
  if (!payload.has_value() || !detail.ParseFromString(std::string(*payload)))
    return std::nullopt;
  return detail;
}

}  // namespace

grpc::Status ToGrpcStatus(const absl::Status& status) {
  if (status.ok()) return grpc::Status::OK;
  google::rpc::Status proto;
  proto.set_code(static_cast<int>(status.code()));
  proto.set_message(CutTo(status.message(), kMaxMessageBytes));
  size_t detail_bytes = 0;
  status.ForEachPayload(
      [&](absl::string_view type_url, const absl::Cord& payload) {
        detail_bytes += type_url.size() + payload.size();
        if (detail_bytes > kMaxDetailBytes) return;
        google::protobuf::Any& detail = *proto.add_details();
        detail.set_type_url(std::string(type_url));
        detail.set_value(std::string(payload));
      });
  const auto code = static_cast<grpc::StatusCode>(status.code());
  if (proto.details().empty()) return grpc::Status(code, proto.message());
  // The message stands in grpc-message already: once is enough of the 8 KiB.
  std::string message;
  message.swap(*proto.mutable_message());
  return grpc::Status(code, message, proto.SerializeAsString());
}

absl::Status FromGrpcStatus(const grpc::Status& status) {
  absl::Status result(static_cast<absl::StatusCode>(status.error_code()),
                      status.error_message());
  google::rpc::Status proto;
  if (!proto.ParseFromString(status.error_details())) return result;
  for (const google::protobuf::Any& detail : proto.details())
    result.SetPayload(detail.type_url(), absl::Cord(detail.value()));
  return result;
}

absl::Status BadRequestError(std::vector<FieldViolation> violations) {
  CHECK(!violations.empty());
  std::string message =
      absl::StrCat(violations[0].field, ": ", violations[0].description);
  if (violations.size() > 1)
    absl::StrAppend(&message, " (and ", violations.size() - 1, " more)");

  google::rpc::BadRequest bad_request;
  const size_t count =
      std::min(violations.size(), static_cast<size_t>(kMaxViolations));
  for (size_t i = 0; i < count; ++i) {
    auto& violation = *bad_request.add_field_violations();
    violation.set_field(CutTo(violations[i].field, kMaxDescriptionBytes));
    violation.set_description(
        CutTo(violations[i].description, kMaxDescriptionBytes));
    if (bad_request.ByteSizeLong() > kMaxDetailBytes - 500) {
      bad_request.mutable_field_violations()->RemoveLast();
      break;
    }
  }
  absl::Status status = absl::InvalidArgumentError(message);
  SetDetail(bad_request, status);
  return status;
}

std::vector<FieldViolation> GetFieldViolations(const absl::Status& status) {
  std::vector<FieldViolation> violations;
  if (const auto detail = GetDetail<google::rpc::BadRequest>(status)) {
    for (const auto& violation : detail->field_violations())
      violations.push_back({violation.field(), violation.description()});
  }
  return violations;
}

void SetRetryDelay(absl::Duration delay, absl::Status& status) {
  google::rpc::RetryInfo retry_info;
  retry_info.mutable_retry_delay()->set_seconds(
      absl::IDivDuration(delay, absl::Seconds(1), &delay));
  retry_info.mutable_retry_delay()->set_nanos(
      static_cast<int32_t>(absl::ToInt64Nanoseconds(delay)));
  SetDetail(retry_info, status);
}

std::optional<absl::Duration> GetRetryDelay(const absl::Status& status) {
  const auto detail = GetDetail<google::rpc::RetryInfo>(status);
  if (!detail.has_value()) return std::nullopt;
  return absl::Seconds(detail->retry_delay().seconds()) +
         absl::Nanoseconds(detail->retry_delay().nanos());
}

void SetRequestId(absl::string_view request_id, absl::Status& status) {
  google::rpc::RequestInfo request_info;
  request_info.set_request_id(std::string(request_id));
  SetDetail(request_info, status);
}

std::optional<std::string> GetRequestId(const absl::Status& status) {
  const auto detail = GetDetail<google::rpc::RequestInfo>(status);
  if (!detail.has_value()) return std::nullopt;
  return detail->request_id();
}

}  // namespace lapidary
