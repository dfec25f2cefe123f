// The bytes of a request to a message.
//
// protobuf refuses a message whose `string` fields are not UTF-8, without
// saying which.  The services take requests as bytes and parse them here, so
// that the client hears which field it was.

#ifndef ROUTER_RPC_REQUEST_PARSER_H_
#define ROUTER_RPC_REQUEST_PARSER_H_

#include "absl/status/status.h"
#include "google/protobuf/message.h"
#include "grpcpp/support/byte_buffer.h"

namespace lapidary {

// Errors: INVALID_ARGUMENT, with a BadRequest that names the field and the byte
// if that is invalid UTF-8.
absl::Status ParseRequest(const grpc::ByteBuffer& bytes,
                          google::protobuf::Message& request);

// REQUIRES: `message` has all its required fields, as in proto3 always.
grpc::ByteBuffer SerializeMessage(const google::protobuf::Message& message);

}  // namespace lapidary

#endif  // ROUTER_RPC_REQUEST_PARSER_H_
