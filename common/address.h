// Addresses HOST:PORT, as flags and environment variables name them.

#ifndef COMMON_ADDRESS_H_
#define COMMON_ADDRESS_H_

#include "absl/status/status.h"
#include "absl/strings/string_view.h"

namespace lapidary {

// Check that `address` has a host and a port that exists; gRPC takes ports
// above 65535 modulo 65536.  They do not look for the host.  `name` is the flag
// or variable that the address comes from.
//
// Errors: INVALID_ARGUMENT, with `name`.
absl::Status CheckAddress(absl::string_view name, absl::string_view address);
// Of where to listen: port 0 takes a free one.
absl::Status CheckListenAddress(absl::string_view name,
                                absl::string_view address);

}  // namespace lapidary

#endif  // COMMON_ADDRESS_H_
