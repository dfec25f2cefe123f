#include "worker/parallel/wire.h"

namespace lapidary {

std::string EncodeResult(const absl::StatusOr<std::string>& result) {
  WireWriter writer;
  writer.PutInt(static_cast<int64_t>(result.status().code()));
  writer.PutString(result.ok() ? absl::string_view(*result)
                               : result.status().message());
  return writer.bytes();
}

absl::Status DecodeResult(absl::string_view bytes,
                          absl::StatusOr<std::string>& result) {
  WireReader reader(bytes);
  const auto code = static_cast<absl::StatusCode>(
      reader.Count(static_cast<int64_t>(absl::StatusCode::kUnauthenticated)));
  std::string text = reader.String();
  if (!reader.done()) {
    return absl::InvalidArgumentError("it sent a malformed result");
  }
  if (code == absl::StatusCode::kOk) {
    result = std::move(text);
  } else {
    result = absl::Status(code, text);
  }
  return absl::OkStatus();
}

std::string EncodeList(const std::vector<std::string>& list) {
  WireWriter writer;
  writer.PutInt(static_cast<int64_t>(list.size()));
  for (const std::string& element : list) writer.PutString(element);
  return writer.bytes();
}

absl::StatusOr<std::vector<std::string>> DecodeList(absl::string_view bytes,
                                                    int size) {
  WireReader reader(bytes);
  std::vector<std::string> list;
  if (reader.Int() == size) {
    for (int i = 0; i < size && reader.ok(); ++i) {
      list.push_back(reader.String());
    }
  }
  if (!reader.done()) {
    return absl::InvalidArgumentError("it sent a malformed list");
  }
  return list;
}

}  // namespace lapidary
