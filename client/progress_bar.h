// The line that shows how far a prefill is.
//
//   prefill [=========>            ]  41%  6,720 of 16,384 tokens, 3,100/s, 3 s

#ifndef CLIENT_PROGRESS_BAR_H_
#define CLIENT_PROGRESS_BAR_H_

#include <cstdint>
#include <string>

#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "proto/lapidary/v1/inference.pb.h"

namespace lapidary {

// Thread-compatible.
class ProgressBar {
 public:
  // `start`: when the request was sent.
  explicit ProgressBar(absl::Time start) : start_(start) {}

  // The line for `progress` as it is at `now`.  At most 79 columns, no line
  // feed.  The rate counts from the first report of a prefill, without tokens
  // that came from the cache, so that waiting does not spoil it, and is left
  // out in the first second.
  std::string Line(const v1::Progress& progress, absl::Time now);

 private:
  const absl::Time start_;
  absl::Time prefill_start_ = absl::InfinitePast();
  uint32_t tokens_at_start_ = 0;
};

// "1234567" as "1,234,567".
std::string WithThousands(uint64_t value);

// "1 step", "12,288 steps".
std::string Counted(uint64_t count, absl::string_view noun);

}  // namespace lapidary

#endif  // CLIENT_PROGRESS_BAR_H_
