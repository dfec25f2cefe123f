// The commands of `lapidary`, between the command line and the router.

#ifndef CLIENT_COMMANDS_H_
#define CLIENT_COMMANDS_H_

#include <string>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "client/connection.h"
#include "client/generation_printer.h"
#include "client/request.h"

namespace lapidary {

// Each returns when it is done; its errors are the router's or name what is
// wrong with the options.  Answers go to stdout, all else to stderr.

// Prints the continuation of a prompt, and writes it to the file `output`
// unless that is empty.
absl::Status RunGenerate(Connection& connection, const RequestOptions& request,
                         const PrinterOptions& printer,
                         const std::string& output);

// Reads lines from stdin until /quit or its end, and answers them.  At a
// terminal it prompts and outlives errors; else the first error ends it.
absl::Status RunChat(Connection& connection, const RequestOptions& settings,
                     const PrinterOptions& printer);

enum class ReportForm { kText, kJson };

// Prints how many tokens the prompt has: the bare number, or JSON.
absl::Status RunCount(Connection& connection, const RequestOptions& request,
                      ReportForm form);

// Prints the state of the router and its groups, once or, if `interval` is not
// zero, again and again until it is interrupted.
absl::Status RunStatus(Connection& connection, ReportForm form,
                       absl::Duration interval);

}  // namespace lapidary

#endif  // CLIENT_COMMANDS_H_
