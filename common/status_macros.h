// Early return on errors, for functions that return Status or StatusOr.
//
//   RETURN_IF_ERROR(file.Close());
//   ASSIGN_OR_RETURN(const Config config, ReadConfig(path));

#ifndef COMMON_STATUS_MACROS_H_
#define COMMON_STATUS_MACROS_H_

#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

// Returns the error of `expression`, an absl::Status; continues if it is OK.
#define RETURN_IF_ERROR(expression)                      \
  do {                                                   \
    if (absl::Status status_macro_status = (expression); \
        !status_macro_status.ok()) {                     \
      return status_macro_status;                        \
    }                                                    \
  } while (false)

// Declares or assigns `target` from `expression`, an absl::StatusOr, or returns
// its error.  A comma in `target` needs parentheses around no part of it: the
// expression is the rest of the arguments.
#define ASSIGN_OR_RETURN(target, ...)                                      \
  STATUS_MACROS_ASSIGN_(STATUS_MACROS_CONCAT_(status_macro_or_, __LINE__), \
                        target, __VA_ARGS__)

#define STATUS_MACROS_ASSIGN_(result, target, ...)     \
  auto result = (__VA_ARGS__);                         \
  if (!result.ok()) return std::move(result).status(); \
  target = *std::move(result)

#define STATUS_MACROS_CONCAT_(a, b) STATUS_MACROS_CONCAT_INNER_(a, b)
#define STATUS_MACROS_CONCAT_INNER_(a, b) a##b

#endif  // COMMON_STATUS_MACROS_H_
