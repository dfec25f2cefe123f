// How the command line speaks of failures.

#ifndef CLIENT_ERROR_TEXT_H_
#define CLIENT_ERROR_TEXT_H_

#include <string>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"

namespace lapidary {

// One line: code, message, each wrong field, when to try again, request id.
//
//   INVALID_ARGUMENT: sampling.top_p: needs (0, 1], found 2 (request 5f3a)
//   RESOURCE_EXHAUSTED: queue holds 900,000 tokens …; try again in 12 s
std::string ErrorText(const absl::Status& status);

// `status` of a call to `router` with `deadline`, in words for the person at
// the command line where gRPC ended the call by itself: nobody answered, the
// deadline passed, Ctrl-C.  An error of the router carries its request id and
// stays as it is.
absl::Status ExplainCall(const absl::Status& status, absl::string_view router,
                         absl::Duration deadline);

// The exit code of the program:
//
//   0    it worked
//   1    the request failed
//   2    the command line or the request is wrong; the same again will fail
//   3    no room, no group or no router now; the same may work later
//   4    the deadline passed
//   130  interrupted by Ctrl-C
int ExitCode(const absl::Status& status);

}  // namespace lapidary

#endif  // CLIENT_ERROR_TEXT_H_
