// Finds control tokens in a text, verbatim.

#ifndef ROUTER_TEXT_CONTROL_MATCHER_H_
#define ROUTER_TEXT_CONTROL_MATCHER_H_

#include <bitset>
#include <cstddef>
#include <cstdint>
#include <optional>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/string_view.h"
#include "common/tokens.h"

namespace lapidary {

// A trie over the tokens' bytes.  Thread-compatible.
class ControlMatcher {
 public:
  struct Match {
    size_t begin;
    size_t end;
    TokenId token;
  };

  // REQUIRES: `content` is not empty.
  void Add(absl::string_view content, TokenId token);

  // The first match that begins at `begin` or later and ends before or at the
  // end of `text`; of those that begin there the longest.
  std::optional<Match> FindFirst(absl::string_view text, size_t begin) const;

  // The token that is spelled `content`.
  std::optional<TokenId> Find(absl::string_view content) const;

 private:
  std::optional<Match> LongestAt(absl::string_view text, size_t begin) const;
  // The node below `node` for `byte`; 0, the root, if there is none.
  int64_t Child(int64_t node, unsigned char byte) const;

  std::bitset<256> first_bytes_;
  absl::flat_hash_map<int64_t, int64_t> children_;  // By node * 256 + byte.
  absl::flat_hash_map<int64_t, TokenId> tokens_;    // By node.
};

}  // namespace lapidary

#endif  // ROUTER_TEXT_CONTROL_MATCHER_H_
