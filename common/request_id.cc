#include "common/request_id.h"

#include <algorithm>
#include <cstdint>
#include <random>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"

namespace lapidary {

bool IsRequestId(absl::string_view id) {
  return !id.empty() && id.size() <= kMaxRequestIdBytes &&
         std::all_of(id.begin(), id.end(),
                     [](unsigned char c) { return absl::ascii_isgraph(c); });
}

std::string NewRequestId() {
  thread_local std::random_device entropy;
  const uint64_t high = entropy();
  const uint64_t low = entropy();
  return absl::StrCat(absl::Hex(high << 32 | low, absl::kZeroPad16));
}

}  // namespace lapidary
