// The groups of the router's list: who is there, who is ready, and when to try
// again.
//
//              Describe ok, first news          news stop
//   connecting ───────────────────────► ready ◄──────────► suspect
//    ▲  │ other model                     │ says so            │ lease over
//    │  ▼                                 ▼                    │
//    │ refused                        draining                 │
//    └─────────────────────────────────────────────────────────┘
//
// Pure: the shell performs the actions and reports what became of them.  Each
// attempt to reach a group has a number; what is reported about an older
// attempt is ignored.

#ifndef ROUTER_CORE_REGISTRY_H_
#define ROUTER_CORE_REGISTRY_H_

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "router/core/group.h"

namespace lapidary {

// Thread-compatible.
class Registry {
 public:
  // Causes of failures that are told apart, of a group; what comes after them
  // is "other".
  static constexpr int kMaxCauses = 16;

  struct Options {
    std::vector<std::string> addresses;  // HOST:PORT, one a group.

    // What a group must serve.
    std::string config_digest;
    std::string tokenizer_digest;
    int protocol_version = 1;

    // Without news for this long, a group is suspect.  Groups send news every
    // second at least.
    absl::Duration silence = absl::Seconds(3);
    // A group that is suspect for this long is gone.
    absl::Duration lease = absl::Seconds(5);
    // Between attempts to reach a group; doubles from the one to the other.
    absl::Duration min_backoff = absl::Milliseconds(100);
    absl::Duration max_backoff = absl::Seconds(5);
  };

  struct Action {
    enum class Kind {
      kDescribe,   // Ask the group what it is.
      kWatch,      // Listen to its news.
      kStopWatch,  // Stop listening; the attempt is over.
      kGone,       // Its requests are lost.
    };
    Kind kind;
    GroupId group;
    uint64_t attempt;
  };

  Registry(Options options, absl::Time now);

  // Reports of the shell.  Reasons and states change; actions are appended.
  void OnDescribed(GroupId id, uint64_t attempt,
                   const absl::StatusOr<GroupDescription>& description,
                   absl::Time now, std::vector<Action>& actions);
  void OnLoad(GroupId id, uint64_t attempt, const GroupLoad& load,
              absl::Time now);
  void OnWatchEnded(GroupId id, uint64_t attempt, const absl::Status& status,
                    absl::Time now);

  // Finds what is due: attempts, silences, leases.
  void Tick(absl::Time now, std::vector<Action>& actions);

  // A request that was sent there came back undone: the group is suspect until
  // it sends news.
  void OnRequestLost(GroupId id, absl::string_view reason, absl::Time now);

  // Work that this router sent to a group, and what the group did of it.
  void AddRequest(GroupId id, int64_t tokens);
  void RemoveTokens(GroupId id, int64_t tokens);
  void RemoveRequest(GroupId id, int64_t tokens);

  const std::vector<Group>& groups() const { return groups_; }
  bool AnyReady() const;

 private:
  enum class Link { kIdle, kDescribing, kWatching };

  // How this router reaches a group.  Parallel to groups_.
  struct Contact {
    Link link = Link::kIdle;
    uint64_t attempt = 0;
    absl::Time next_attempt;
    absl::Duration backoff;
    absl::Time last_news;      // Or when the watch began.
    absl::Time suspect_since;  // While the group is suspect.
    // The start of the group whose failure was counted last.
    std::optional<uint64_t> failed_epoch;
  };

  static void CountSilentEnd(Group& group, Contact& contact);
  static void CountFailure(const GroupLoad& load, Group& group,
                           Contact& contact);
  bool IsCurrent(GroupId id, uint64_t attempt) const;
  void Retry(Contact& contact, absl::Time now);
  void Suspect(Group& group, Contact& contact, std::string reason,
               absl::Time now);
  void CheckSilence(Group& group, Contact& contact, absl::Time now);
  void CheckLease(Group& group, Contact& contact, absl::Time now,
                  std::vector<Action>& actions);

  const Options options_;
  std::vector<Group> groups_;
  std::vector<Contact> contacts_;
};

}  // namespace lapidary

#endif  // ROUTER_CORE_REGISTRY_H_
