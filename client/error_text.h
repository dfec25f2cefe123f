// How the command line speaks of failures.

#ifndef CLIENT_ERROR_TEXT_H_
#define CLIENT_ERROR_TEXT_H_

#include <string>

#include "absl/status/status.h"

namespace lapidary {

// One line: code, message, each wrong field, when to try again, request id.
//
//   INVALID_ARGUMENT: sampling.top_p: needs (0, 1], found 2 (request 5f3a)
//   RESOURCE_EXHAUSTED: queue holds 900,000 tokens …; try again in 12 s
std::string ErrorText(const absl::Status& status);

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
