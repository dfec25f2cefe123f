#include "worker/loader/disk_check.h"

#include <cerrno>

#include <sys/statvfs.h>

#include "absl/strings/str_cat.h"
#include "common/byte_size.h"

namespace lapidary {

absl::Status CheckDisk(const std::string& directory, int64_t needed_bytes,
                       absl::string_view what) {
  struct statvfs status;
  if (statvfs(directory.c_str(), &status) != 0) {
    return absl::ErrnoToStatus(errno, directory);
  }
  const int64_t available = static_cast<int64_t>(status.f_bavail) *
                            static_cast<int64_t>(status.f_frsize);
  if (needed_bytes <= available) return absl::OkStatus();
  return absl::ResourceExhaustedError(absl::StrCat(
      directory, ": needs ", FormatByteSize(needed_bytes), " of disk for ",
      what, ", ", FormatByteSize(available), " available"));
}

}  // namespace lapidary
