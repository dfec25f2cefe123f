#include "router/core/registry.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"

namespace lapidary {
namespace {

// Why `description` cannot be served by this router; empty if it can.
std::string Mismatch(const GroupDescription& description,
                     const Registry::Options& options) {
  if (description.protocol_version != options.protocol_version) {
    return absl::StrCat("protocol version ", description.protocol_version,
                        ", this router speaks ", options.protocol_version);
  }
  if (description.config_digest != options.config_digest) {
    return absl::StrCat("config digest ", description.config_digest,
                        ", this router's is ", options.config_digest);
  }
  if (description.tokenizer_digest != options.tokenizer_digest) {
    return absl::StrCat("tokenizer digest ", description.tokenizer_digest,
                        ", this router's is ", options.tokenizer_digest);
  }
  return "";
}

}  // namespace

Registry::Registry(Options options, absl::Time now)
    : options_(std::move(options)),
      groups_(options_.addresses.size()),
      contacts_(options_.addresses.size()) {
  for (size_t i = 0; i < groups_.size(); ++i) {
    groups_[i].id = static_cast<GroupId>(i);
    groups_[i].address = options_.addresses[i];
    groups_[i].reason = "not reached yet";
    contacts_[i].next_attempt = now;
    contacts_[i].backoff = options_.min_backoff;
  }
}

void Registry::OnDescribed(GroupId id, uint64_t attempt,
                           const absl::StatusOr<GroupDescription>& description,
                           absl::Time now, std::vector<Action>& actions) {
  Group& group = groups_[id];
  Contact& contact = contacts_[id];
  if (!IsCurrent(id, attempt) || contact.link != Link::kDescribing) return;
  if (!description.ok()) {
    Retry(contact, now);
    if (group.state == GroupState::kSuspect) return;  // Until its lease ends.
    group.state = GroupState::kConnecting;
    group.reason = std::string(description.status().message());
    return;
  }
  // A group that started anew has lost what it was sent.
  if (group.description.has_value() &&
      group.description->epoch != description->epoch) {
    actions.push_back({Action::Kind::kGone, id, attempt});
    CountSilentEnd(group, contact);
  }
  group.description = *description;
  if (std::string mismatch = Mismatch(*description, options_);
      !mismatch.empty()) {
    group.state = GroupState::kRefused;
    group.reason = std::move(mismatch);
    contact.backoff = options_.max_backoff;
    Retry(contact, now);
    return;
  }
  contact.link = Link::kWatching;
  contact.last_news = now;
  actions.push_back({Action::Kind::kWatch, id, attempt});
}

void Registry::OnLoad(GroupId id, uint64_t attempt, const GroupLoad& load,
                      absl::Time now) {
  Group& group = groups_[id];
  Contact& contact = contacts_[id];
  if (!IsCurrent(id, attempt) || contact.link != Link::kWatching) return;
  contact.last_news = now;
  contact.backoff = options_.min_backoff;
  group.load = load;
  group.unreported_tokens = 0;
  group.state = load.draining ? GroupState::kDraining : GroupState::kReady;
  group.reason = load.draining ? "drains" : "";
  if (!load.failure.empty()) CountFailure(load, group, contact);
}

// A leader that is killed has no last words, as one that drains or fails has.
void Registry::CountSilentEnd(Group& group, Contact& contact) {
  if (group.load.draining || group.load.epoch != group.description->epoch) {
    return;
  }
  GroupLoad last = group.load;
  last.failure = "rank 0: it ended, and said nothing";
  last.failure_cause = "leader_lost";
  CountFailure(last, group, contact);
}

// Once, however often a group tells it: a router that lost its news may hear it
// again while the group ends.
void Registry::CountFailure(const GroupLoad& load, Group& group,
                            Contact& contact) {
  if (contact.failed_epoch == load.epoch) return;
  contact.failed_epoch = load.epoch;
  group.last_failure = load.failure;
  const bool known = group.failures.contains(load.failure_cause) ||
                     group.failures.size() < kMaxCauses;
  ++group.failures[known ? load.failure_cause : "other"];
}

void Registry::OnWatchEnded(GroupId id, uint64_t attempt,
                            const absl::Status& status, absl::Time now) {
  Contact& contact = contacts_[id];
  if (!IsCurrent(id, attempt) || contact.link != Link::kWatching) return;
  Retry(contact, now);
  Suspect(groups_[id], contact,
          status.ok() ? "it ended its news" : std::string(status.message()),
          now);
}

void Registry::Tick(absl::Time now, std::vector<Action>& actions) {
  for (Group& group : groups_) {
    Contact& contact = contacts_[group.id];
    CheckSilence(group, contact, now);
    CheckLease(group, contact, now, actions);
    if (contact.link == Link::kIdle && now >= contact.next_attempt) {
      contact.link = Link::kDescribing;
      ++contact.attempt;
      actions.push_back({Action::Kind::kDescribe, group.id, contact.attempt});
    }
  }
}

void Registry::OnRequestLost(GroupId id, absl::string_view reason,
                             absl::Time now) {
  if (groups_[id].state != GroupState::kReady) return;
  Suspect(groups_[id], contacts_[id],
          absl::StrCat("it lost a request: ", reason), now);
}

void Registry::AddRequest(GroupId id, int64_t tokens) {
  groups_[id].own_tokens += tokens;
  groups_[id].unreported_tokens += tokens;
  ++groups_[id].own_requests;
}

void Registry::RemoveTokens(GroupId id, int64_t tokens) {
  Group& group = groups_[id];
  group.own_tokens -= tokens;
  group.unreported_tokens =
      std::max<int64_t>(0, group.unreported_tokens - tokens);
}

void Registry::RemoveRequest(GroupId id, int64_t tokens) {
  RemoveTokens(id, tokens);
  --groups_[id].own_requests;
}

bool Registry::AnyReady() const {
  return std::any_of(groups_.begin(), groups_.end(), [](const Group& group) {
    return group.state == GroupState::kReady;
  });
}

bool Registry::IsCurrent(GroupId id, uint64_t attempt) const {
  return contacts_[id].attempt == attempt;
}

void Registry::Retry(Contact& contact, absl::Time now) {
  contact.link = Link::kIdle;
  contact.next_attempt = now + contact.backoff;
  contact.backoff = std::min(contact.backoff * 2, options_.max_backoff);
}

void Registry::Suspect(Group& group, Contact& contact, std::string reason,
                       absl::Time now) {
  group.reason = std::move(reason);
  if (group.state == GroupState::kSuspect) return;
  if (group.state == GroupState::kConnecting) return;  // Nothing to lose.
  group.state = GroupState::kSuspect;
  contact.suspect_since = now;
}

void Registry::CheckSilence(Group& group, Contact& contact, absl::Time now) {
  if (contact.link != Link::kWatching) return;
  const absl::Duration silence = now - contact.last_news;
  if (silence <= options_.silence) return;
  Suspect(group, contact,
          absl::StrCat("no news for ", absl::FormatDuration(absl::Trunc(
                                           silence, absl::Milliseconds(100)))),
          now);
}

void Registry::CheckLease(Group& group, Contact& contact, absl::Time now,
                          std::vector<Action>& actions) {
  const bool was_silent =
      contact.link == Link::kWatching &&
      now - contact.last_news > options_.silence + options_.lease;
  const bool was_suspect = group.state == GroupState::kSuspect &&
                           now - contact.suspect_since > options_.lease;
  if (!was_silent && !was_suspect) return;
  group.state = GroupState::kConnecting;
  if (contact.link == Link::kWatching) {
    actions.push_back({Action::Kind::kStopWatch, group.id, contact.attempt});
    Retry(contact, now);
  }
  actions.push_back({Action::Kind::kGone, group.id, contact.attempt});
}

}  // namespace lapidary
