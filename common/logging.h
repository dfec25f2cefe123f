// The log of a process: one line an event, on stderr.
//
//   I1124 08:30:12.345678 1234 worker_service.cc:88] request=7f3a… finished: …
//
// A line about a request begins with request=ID, on router and worker alike.

#ifndef COMMON_LOGGING_H_
#define COMMON_LOGGING_H_

#include <string>

#include "absl/strings/string_view.h"

namespace lapidary {

// Sends LOG() of glog to stderr.  Call it once, in main(), before the first
// thread.  `program` is argv[0].
void StartLogging(const char* program);

// "request=ID ", for the beginning of a log line.
std::string RequestTag(absl::string_view request_id);

}  // namespace lapidary

#endif  // COMMON_LOGGING_H_
