#include "router/core/group.h"

namespace lapidary {

absl::string_view GroupStateName(GroupState state) {
  switch (state) {
    case GroupState::kConnecting:
      return "connecting";
    case GroupState::kReady:
      return "ready";
    case GroupState::kSuspect:
      return "suspect";
    case GroupState::kDraining:
      return "draining";
    case GroupState::kRefused:
      return "refused";
  }
  return "unknown";
}

}  // namespace lapidary
