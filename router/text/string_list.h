// Many short strings in two allocations.

#ifndef ROUTER_TEXT_STRING_LIST_H_
#define ROUTER_TEXT_STRING_LIST_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"

namespace lapidary {

// Append-only.  Views are valid until the next Add().  Thread-compatible.
//
// Holds up to 4 GB of text.
class StringList {
 public:
  void Add(absl::string_view text) {
    bytes_.append(text.data(), text.size());
    ends_.push_back(static_cast<uint32_t>(bytes_.size()));
  }

  // REQUIRES: i < size().
  absl::string_view operator[](size_t i) const {
    const uint32_t begin = i == 0 ? 0 : ends_[i - 1];
    return absl::string_view(bytes_.data() + begin, ends_[i] - begin);
  }

  size_t size() const { return ends_.size(); }

  void ShrinkToFit() {
    bytes_.shrink_to_fit();
    ends_.shrink_to_fit();
  }

 private:
  std::string bytes_;
  std::vector<uint32_t> ends_;
};

}  // namespace lapidary

#endif  // ROUTER_TEXT_STRING_LIST_H_
