#include "router/text/stop_matcher.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "glog/logging.h"

namespace lapidary {
namespace {

int64_t EdgeKey(int32_t state, unsigned char byte) {
  return int64_t{state} * 256 + byte;
}

}  // namespace

StopMatcher::StopMatcher(std::span<const std::string> stop_strings) {
  for (size_t i = 0; i < stop_strings.size(); ++i) {
    CHECK(!stop_strings[i].empty()) << "stop string " << i << " is empty";
    AddStop(stop_strings[i], static_cast<int>(i));
  }
  LinkFallbacks();
}

void StopMatcher::AddStop(absl::string_view text, int stop) {
  int32_t state = 0;
  for (const unsigned char byte : text) {
    const auto next = static_cast<int32_t>(states_.size());
    const auto [edge, is_new] = edges_.try_emplace(EdgeKey(state, byte), next);
    if (is_new) {
      states_.push_back({.num_bytes = states_[state].num_bytes + 1,
                         .parent = state,
                         .byte = byte});
    }
    state = edge->second;
  }
  if (states_[state].stop < 0) states_[state].stop = stop;
  states_[state].stop_bytes = text.size();
}

// In order of length: the fallback of a state is shorter than the state.
void StopMatcher::LinkFallbacks() {
  std::vector<std::vector<int32_t>> states_by_length;
  for (int32_t i = 1; i < static_cast<int32_t>(states_.size()); ++i) {
    const size_t length = states_[i].num_bytes;
    if (states_by_length.size() < length) states_by_length.resize(length);
    states_by_length[length - 1].push_back(i);
  }
  for (const std::vector<int32_t>& states : states_by_length) {
    for (const int32_t i : states) {
      State& state = states_[i];
      if (state.parent == 0) continue;
      state.fallback = Next(states_[state.parent].fallback, state.byte);
      const State& suffix = states_[state.fallback];
      if (state.stop >= 0) continue;
      state.stop = suffix.stop;
      state.stop_bytes = suffix.stop_bytes;
    }
  }
}

int32_t StopMatcher::Next(int32_t state, unsigned char byte) const {
  while (true) {
    const auto edge = edges_.find(EdgeKey(state, byte));
    if (edge != edges_.end()) return edge->second;
    if (state == 0) return 0;
    state = states_[state].fallback;
  }
}

StopMatcher::Output StopMatcher::Push(absl::string_view text) {
  if (found_) return {};
  std::string seen = absl::StrCat(std::exchange(held_, ""), text);
  for (size_t i = seen.size() - text.size(); i < seen.size(); ++i) {
    state_ = Next(state_, seen[i]);
    const State& state = states_[state_];
    if (state.stop < 0) continue;
    found_ = true;
    seen.resize(i + 1 - state.stop_bytes);
    return {.text = std::move(seen), .stop = state.stop};
  }
  const size_t shown = seen.size() - states_[state_].num_bytes;
  held_ = seen.substr(shown);
  seen.resize(shown);
  return {.text = std::move(seen)};
}

std::string StopMatcher::Flush() {
  state_ = 0;
  return std::exchange(held_, "");
}

}  // namespace lapidary
