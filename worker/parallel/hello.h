// What a rank says of itself when the ranks of a group meet.

#ifndef WORKER_PARALLEL_HELLO_H_
#define WORKER_PARALLEL_HELLO_H_

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace lapidary {

// Something that must be the same on all ranks: {"checkpoint digest", "1f…"}.
struct Fact {
  std::string name;
  std::string value;

  bool operator==(const Fact&) const = default;
};

struct Hello {
  int rank = 0;
  int num_ranks = 0;
  std::string host;         // Ranks with the same share a machine.
  std::vector<Fact> facts;  // In the same order on all ranks.

  bool operator==(const Hello&) const = default;
};

// Bounds of a Hello that is accepted.
inline constexpr int kMaxRanks = 64;
inline constexpr int kMaxFacts = 64;
inline constexpr int kMaxHelloBytes = 64 << 10;

// The name of this machine.
std::string HostName();

// "rank 2 (host a)": how messages name a rank.
std::string NameOf(const Hello& hello);

std::string EncodeHello(const Hello& hello);

// Errors: INVALID_ARGUMENT if the bytes are none, or beyond the bounds.
absl::StatusOr<Hello> DecodeHello(absl::string_view bytes);

// Whether a rank that says `theirs` may join the group of the leader, which
// says `own`.
//
// Errors: FAILED_PRECONDITION, saying what differs: both values, both ranks and
// hosts.
absl::Status CheckFits(const Hello& own, const Hello& theirs);

}  // namespace lapidary

#endif  // WORKER_PARALLEL_HELLO_H_
