#include "worker/loader/memory_check.h"

#include <algorithm>
#include <optional>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "common/byte_size.h"
#include "common/read_file.h"
#include "common/status_macros.h"

namespace lapidary {
namespace {

// The number after `key` and blanks, in a file of lines "KEY VALUE …".
std::optional<int64_t> FindNumber(absl::string_view text,
                                  absl::string_view key) {
  for (const absl::string_view line : absl::StrSplit(text, '\n')) {
    const std::vector<absl::string_view> words =
        absl::StrSplit(line, absl::ByAnyChar(" \t"), absl::SkipEmpty());
    int64_t number = 0;
    if (words.size() >= 2 && words[0] == key &&
        absl::SimpleAtoi(words[1], &number)) {
      return number;
    }
  }
  return std::nullopt;
}

// A file that holds one number; empty for "max" and where there is none.
std::optional<int64_t> ReadNumber(const std::string& path) {
  const absl::StatusOr<std::string> text = ReadFile(path);
  int64_t number = 0;
  if (!text.ok() ||
      !absl::SimpleAtoi(absl::StripAsciiWhitespace(*text), &number)) {
    return std::nullopt;
  }
  return number;
}

// How a version of control groups calls its files.
struct GroupFiles {
  const char* limit;
  const char* usage;
  const char* active_files;  // Keys of memory.stat.
  const char* inactive_files;
};
constexpr GroupFiles kVersion2 = {"memory.max", "memory.current", "active_file",
                                  "inactive_file"};
constexpr GroupFiles kVersion1 = {"memory.limit_in_bytes",
                                  "memory.usage_in_bytes", "total_active_file",
                                  "total_inactive_file"};

// What the group in `folder` has left; empty if it has no limit.
std::optional<int64_t> LeftInGroup(const std::string& folder,
                                   const GroupFiles& files) {
  const auto limit = ReadNumber(absl::StrCat(folder, "/", files.limit));
  const auto usage = ReadNumber(absl::StrCat(folder, "/", files.usage));
  if (!limit.has_value() || !usage.has_value()) return std::nullopt;
  const std::string stat =
      ReadFile(absl::StrCat(folder, "/memory.stat")).value_or("");
  const int64_t cached = FindNumber(stat, files.active_files).value_or(0) +
                         FindNumber(stat, files.inactive_files).value_or(0);
  return std::max<int64_t>(*limit - *usage + std::min(cached, *usage), 0);
}

// The least of the group at `path` under `mount` and all those around it.
int64_t LeftInGroups(const std::string& mount, std::string path,
                     const GroupFiles& files) {
  int64_t left = INT64_MAX;
  while (true) {
    const std::string folder = path == "/" ? mount : mount + path;
    left = std::min(left, LeftInGroup(folder, files).value_or(INT64_MAX));
    if (path.empty() || path == "/") return left;
    path.resize(path.rfind('/'));
  }
}

}  // namespace

absl::StatusOr<int64_t> AvailableMemory(const std::string& root) {
  const std::string path = root + "/proc/meminfo";
  const std::optional<int64_t> kibibytes =
      FindNumber(ReadFile(path).value_or(""), "MemAvailable:");
  if (!kibibytes.has_value()) {
    return absl::InternalError(
        absl::StrCat(path, ": needs a line MemAvailable, found none"));
  }
  int64_t available = *kibibytes * 1024;
  const std::string groups = ReadFile(root + "/proc/self/cgroup").value_or("");
  // Lines "ID:CONTROLLERS:PATH"; version 2 has no controllers.
  for (const absl::string_view line : absl::StrSplit(groups, '\n')) {
    const std::vector<std::string> parts =
        absl::StrSplit(line, absl::MaxSplits(':', 2));
    if (parts.size() != 3 || !absl::StartsWith(parts[2], "/")) continue;
    if (parts[1].empty()) {
      available = std::min(available, LeftInGroups(root + "/sys/fs/cgroup",
                                                   parts[2], kVersion2));
    } else if (parts[1] == "memory") {
      available = std::min(
          available,
          LeftInGroups(root + "/sys/fs/cgroup/memory", parts[2], kVersion1));
    }
  }
  return available;
}

absl::Status CheckMemory(int64_t needed_bytes, absl::string_view what,
                         const std::string& root) {
  ASSIGN_OR_RETURN(const int64_t available, AvailableMemory(root));
  if (needed_bytes <= available) return absl::OkStatus();
  return absl::ResourceExhaustedError(
      absl::StrCat("needs ", FormatByteSize(needed_bytes), " of memory for ",
                   what, ", ", FormatByteSize(available), " available"));
}

}  // namespace lapidary
