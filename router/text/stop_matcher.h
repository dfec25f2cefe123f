// Finds stop strings in a text that comes in pieces.
//
//   stop "\n\nUser:"      Push("Yes.\n")  -> "Yes."
//                         Push("\nUs")    -> ""
//                         Push("e it.")   -> "\n\nUse it."

#ifndef ROUTER_TEXT_STOP_MATCHER_H_
#define ROUTER_TEXT_STOP_MATCHER_H_

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/string_view.h"

namespace lapidary {

// An Aho-Corasick automaton over bytes: time is proportional to the text,
// whatever the number of stop strings.  The string that ends first wins; of two
// that end together, the longer.  How the text is cut makes no difference.
//
// Thread-compatible.
class StopMatcher {
 public:
  struct Output {
    std::string text;  // What can be shown now.
    int stop = -1;     // Index of the stop string that was found after it.
  };

  // REQUIRES: none of `stop_strings` is empty.
  explicit StopMatcher(std::span<const std::string> stop_strings);

  // Takes `text` and returns what is certain not to belong to a stop string.
  // Holds back only what may become one.  After a stop string was found,
  // everything is dropped.
  Output Push(absl::string_view text);

  // What was held back, at the end of the text.
  std::string Flush();

 private:
  // A beginning of a stop string; state 0 is the empty one.
  struct State {
    size_t num_bytes = 0;
    int32_t parent = 0;  // State without the last byte.
    unsigned char byte = 0;
    int32_t fallback = 0;   // State of the longest proper suffix.
    int stop = -1;          // Longest stop string that the state ends with.
    size_t stop_bytes = 0;  // Its length.
  };

  void AddStop(absl::string_view text, int stop);
  void LinkFallbacks();
  int32_t Next(int32_t state, unsigned char byte) const;

  std::vector<State> states_{State()};
  absl::flat_hash_map<int64_t, int32_t> edges_;  // By state * 256 + byte.
  int32_t state_ = 0;
  std::string held_;  // The text of state_, between two calls.
  bool found_ = false;
};

}  // namespace lapidary

#endif  // ROUTER_TEXT_STOP_MATCHER_H_
