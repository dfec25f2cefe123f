#include "common/byte_size.h"

#include <array>
#include <cmath>

#include "absl/status/status.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/strip.h"

namespace lapidary {
namespace {

struct Unit {
  const char* suffix;
  int64_t bytes;
};

// Largest first; "B" last, because every other suffix ends in it too.
constexpr std::array<Unit, 5> kUnits = {{{"TiB", int64_t{1} << 40},
                                         {"GiB", int64_t{1} << 30},
                                         {"MiB", int64_t{1} << 20},
                                         {"KiB", int64_t{1} << 10},
                                         {"B", 1}}};

}  // namespace

absl::StatusOr<int64_t> ParseByteSize(absl::string_view text) {
  absl::string_view number = text;
  int64_t unit = 1;
  for (const Unit& candidate : kUnits) {
    if (absl::ConsumeSuffix(&number, candidate.suffix)) {
      unit = candidate.bytes;
      break;
    }
  }
  double value = 0;
  if (!absl::SimpleAtod(number, &value) || !(value >= 0) ||
      !(value * static_cast<double>(unit) < 9e18)) {
    return absl::InvalidArgumentError(absl::StrCat(
        "needs a size such as 8GiB, 512MiB or 1000000, got \"", text, "\""));
  }
  return static_cast<int64_t>(std::llround(value * static_cast<double>(unit)));
}

std::string FormatByteSize(int64_t bytes) {
  for (const Unit& unit : kUnits) {
    if (bytes < unit.bytes || unit.bytes == 1) continue;
    return absl::StrFormat("%.2f %s", static_cast<double>(bytes) / unit.bytes,
                           unit.suffix);
  }
  return absl::StrCat(bytes, " B");
}

}  // namespace lapidary
