#include "worker/parallel/hello.h"

#include <unistd.h>

#include <climits>

#include "absl/strings/str_cat.h"
#include "worker/parallel/wire.h"

namespace lapidary {
namespace {

absl::Status Differs(absl::string_view what, const std::string& theirs,
                     const Hello& them, const std::string& ours,
                     const Hello& us) {
  return absl::FailedPreconditionError(
      absl::StrCat(what, " differs: \"", theirs, "\" on ", NameOf(them), ", \"",
                   ours, "\" on ", NameOf(us)));
}

}  // namespace

std::string HostName() {
  char name[HOST_NAME_MAX + 1] = {};
  if (gethostname(name, sizeof(name) - 1) != 0) return "unknown";
  return name;
}

std::string NameOf(const Hello& hello) {
  return absl::StrCat("rank ", hello.rank, " (host ", hello.host, ")");
}

std::string EncodeHello(const Hello& hello) {
  WireWriter writer;
  writer.PutInt(hello.rank);
  writer.PutInt(hello.num_ranks);
  writer.PutString(hello.host);
  writer.PutInt(static_cast<int64_t>(hello.facts.size()));
  for (const Fact& fact : hello.facts) {
    writer.PutString(fact.name);
    writer.PutString(fact.value);
  }
  return writer.bytes();
}

absl::StatusOr<Hello> DecodeHello(absl::string_view bytes) {
  if (bytes.size() > kMaxHelloBytes) {
    return absl::InvalidArgumentError(
        absl::StrCat("needs a hello of at most ", kMaxHelloBytes,
                     " bytes, it has ", bytes.size()));
  }
  WireReader reader(bytes);
  Hello hello;
  hello.rank = static_cast<int>(reader.Count(INT_MAX));
  hello.num_ranks = static_cast<int>(reader.Count(INT_MAX));
  hello.host = reader.String();
  const int64_t num_facts = reader.Count(kMaxFacts);
  for (int64_t i = 0; i < num_facts && reader.ok(); ++i) {
    std::string name = reader.String();
    hello.facts.push_back({std::move(name), reader.String()});
  }
  if (!reader.done()) {
    return absl::InvalidArgumentError(
        absl::StrCat("needs a hello, ", bytes.size(), " bytes are none"));
  }
  return hello;
}

absl::Status CheckFits(const Hello& own, const Hello& theirs) {
  if (theirs.num_ranks != own.num_ranks) {
    return Differs("number of ranks", absl::StrCat(theirs.num_ranks), theirs,
                   absl::StrCat(own.num_ranks), own);
  }
  if (theirs.rank < 1 || theirs.rank >= own.num_ranks) {
    return absl::FailedPreconditionError(
        absl::StrCat("needs a rank from 1 to ", own.num_ranks - 1, ", this is ",
                     NameOf(theirs)));
  }
  for (size_t i = 0; i < own.facts.size() && i < theirs.facts.size(); ++i) {
    const Fact& ours = own.facts[i];
    const Fact& other = theirs.facts[i];
    if (ours.name != other.name) {
      return Differs("what ranks tell", other.name, theirs, ours.name, own);
    }
    if (ours.value != other.value) {
      return Differs(ours.name, other.value, theirs, ours.value, own);
    }
  }
  if (theirs.facts.size() != own.facts.size()) {
    return Differs("how much ranks tell", absl::StrCat(theirs.facts.size()),
                   theirs, absl::StrCat(own.facts.size()), own);
  }
  return absl::OkStatus();
}

}  // namespace lapidary
