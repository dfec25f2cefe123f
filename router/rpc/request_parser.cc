#include "router/rpc/request_parser.h"

#include <cstdint>
#include <map>
#include <optional>
#include <string>

#include "absl/strings/str_cat.h"
#include "common/grpc_status.h"
#include "glog/logging.h"
#include "google/protobuf/descriptor.h"
#include "google/protobuf/io/coded_stream.h"
#include "google/protobuf/wire_format_lite.h"
#include "grpcpp/impl/codegen/proto_utils.h"
#include "grpcpp/support/proto_buffer_reader.h"
#include "router/text/utf8.h"

namespace lapidary {
namespace {

using google::protobuf::Descriptor;
using google::protobuf::FieldDescriptor;
using google::protobuf::internal::WireFormatLite;
using google::protobuf::io::CodedInputStream;

std::string FieldPath(const std::string& prefix, const FieldDescriptor& field,
                      int index) {
  std::string path =
      prefix.empty() ? field.name() : absl::StrCat(prefix, ".", field.name());
  if (field.is_repeated()) absl::StrAppend(&path, "[", index, "]");
  return path;
}

// The first string field in `bytes`, a message of type `descriptor`, that is
// not UTF-8.  Messages of this API nest a few levels deep and none holds
// itself.
std::optional<FieldViolation> FindBadString(absl::string_view bytes,
                                            const Descriptor& descriptor,
                                            const std::string& prefix) {
  CodedInputStream input(reinterpret_cast<const uint8_t*>(bytes.data()),
                         static_cast<int>(bytes.size()));
  std::map<int, int> counts;  // Elements seen, by field number.
  while (const uint32_t tag = input.ReadTag()) {
    const FieldDescriptor* field =
        descriptor.FindFieldByNumber(WireFormatLite::GetTagFieldNumber(tag));
    const bool is_string =
        field != nullptr && field->type() == FieldDescriptor::TYPE_STRING;
    const bool is_message =
        field != nullptr && field->type() == FieldDescriptor::TYPE_MESSAGE;
    if (WireFormatLite::GetTagWireType(tag) !=
            WireFormatLite::WIRETYPE_LENGTH_DELIMITED ||
        (!is_string && !is_message)) {
      if (!WireFormatLite::SkipField(&input, tag)) return std::nullopt;
      continue;
    }
    uint32_t size;
    if (!input.ReadVarint32(&size)) return std::nullopt;
    const size_t begin = input.CurrentPosition();
    if (size > bytes.size() - begin) return std::nullopt;
    const absl::string_view value = bytes.substr(begin, size);
    input.Skip(static_cast<int>(size));
    const std::string path =
        FieldPath(prefix, *field, counts[field->number()]++);
    if (is_string) {
      if (const absl::Status status = ValidateUtf8(value); !status.ok())
        return FieldViolation{path, std::string(status.message())};
    } else if (auto bad = FindBadString(value, *field->message_type(), path)) {
      return bad;
    }
  }
  return std::nullopt;
}

std::string Flatten(const grpc::ByteBuffer& bytes) {
  std::vector<grpc::Slice> slices;
  std::string flat;
  flat.reserve(bytes.Length());
  if (!bytes.Dump(&slices).ok()) return flat;
  for (const grpc::Slice& slice : slices)
    flat.append(reinterpret_cast<const char*>(slice.begin()), slice.size());
  return flat;
}

}  // namespace

absl::Status ParseRequest(const grpc::ByteBuffer& bytes,
                          google::protobuf::Message& request) {
  grpc::ByteBuffer copy(bytes);  // Counts references; the reader wants its own.
  grpc::ProtoBufferReader reader(&copy);
  if (!reader.status().ok()) return FromGrpcStatus(reader.status());
  if (request.ParseFromZeroCopyStream(&reader)) return absl::OkStatus();
  if (auto bad = FindBadString(Flatten(bytes), *request.GetDescriptor(), ""))
    return BadRequestError({*std::move(bad)});
  return absl::InvalidArgumentError(
      absl::StrCat("needs a message ", request.GetTypeName(), ", got ",
                   bytes.Length(), " bytes that are none"));
}

grpc::ByteBuffer SerializeMessage(const google::protobuf::Message& message) {
  grpc::ByteBuffer bytes;
  bool own_buffer;
  const grpc::Status status =
      grpc::SerializationTraits<google::protobuf::Message>::Serialize(
          message, &bytes, &own_buffer);
  CHECK(status.ok()) << status.error_message();
  return bytes;
}

}  // namespace lapidary
