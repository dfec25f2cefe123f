#include "common/address.h"

#include <algorithm>

#include "absl/strings/ascii.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"

namespace lapidary {
namespace {

constexpr int kMaxPort = 65535;

// absl::SimpleAtoi() would take signs and blanks as well.
bool IsPort(absl::string_view text, int min_port) {
  int port = 0;
  return std::all_of(text.begin(), text.end(), absl::ascii_isdigit) &&
         absl::SimpleAtoi(text, &port) && port >= min_port && port <= kMaxPort;
}

absl::Status Check(absl::string_view name, absl::string_view address,
                   int min_port) {
  const size_t colon = address.rfind(':');
  if (colon != absl::string_view::npos && colon > 0 &&
      IsPort(address.substr(colon + 1), min_port)) {
    return absl::OkStatus();
  }
  return absl::InvalidArgumentError(
      absl::StrCat(name, " needs HOST:PORT with a port from ", min_port, " to ",
                   kMaxPort, ", got \"", address, "\""));
}

}  // namespace

absl::Status CheckAddress(absl::string_view name, absl::string_view address) {
  return Check(name, address, /*min_port=*/1);
}

absl::Status CheckListenAddress(absl::string_view name,
                                absl::string_view address) {
  return Check(name, address, /*min_port=*/0);
}

}  // namespace lapidary
