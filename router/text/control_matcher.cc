#include "router/text/control_matcher.h"

namespace lapidary {

void ControlMatcher::Add(absl::string_view content, TokenId token) {
  first_bytes_.set(static_cast<unsigned char>(content.front()));
  int64_t node = 0;
  for (const unsigned char byte : content) {
    const int64_t next_node = static_cast<int64_t>(children_.size()) + 1;
    node = children_.try_emplace(node * 256 + byte, next_node).first->second;
  }
  tokens_[node] = token;
}

int64_t ControlMatcher::Child(int64_t node, unsigned char byte) const {
  const auto it = children_.find(node * 256 + byte);
  return it == children_.end() ? 0 : it->second;
}

std::optional<ControlMatcher::Match> ControlMatcher::LongestAt(
    absl::string_view text, size_t begin) const {
  std::optional<Match> longest;
  int64_t node = 0;
  for (size_t i = begin; i < text.size(); ++i) {
    node = Child(node, text[i]);
    if (node == 0) break;
    if (const auto it = tokens_.find(node); it != tokens_.end()) {
      longest = Match{.begin = begin, .end = i + 1, .token = it->second};
    }
  }
  return longest;
}

std::optional<ControlMatcher::Match> ControlMatcher::FindFirst(
    absl::string_view text, size_t begin) const {
  for (size_t i = begin; i < text.size(); ++i) {
    if (!first_bytes_[static_cast<unsigned char>(text[i])]) continue;
    if (const std::optional<Match> match = LongestAt(text, i)) return match;
  }
  return std::nullopt;
}

std::optional<TokenId> ControlMatcher::Find(absl::string_view content) const {
  const std::optional<Match> match = LongestAt(content, 0);
  if (!match.has_value() || match->end != content.size()) return std::nullopt;
  return match->token;
}

}  // namespace lapidary
