// A file in memory: mapped, read-only, paged in as it is read.

#ifndef WORKER_LOADER_MAPPED_FILE_H_
#define WORKER_LOADER_MAPPED_FILE_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>

#include "absl/status/statusor.h"

namespace lapidary {

// Thread-safe.  All ranks of a host that map a file share its pages.
class MappedFile {
 public:
  // Errors: NOT_FOUND; PERMISSION_DENIED; INTERNAL for what else the system
  // says; all name the path.
  static absl::StatusOr<std::unique_ptr<MappedFile>> Open(
      const std::string& path);
  ~MappedFile();

  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;

  const std::string& path() const { return path_; }
  int64_t bytes() const { return static_cast<int64_t>(data_.size()); }
  // Aligned to a page.
  std::span<const std::byte> data() const { return data_; }
  // Time of the last change, in nanoseconds since the epoch.
  int64_t modified_nanos() const { return modified_nanos_; }

  // Takes the whole pages of `part`, of data(), out of this process's memory.
  // They are read from the file again when somebody looks.
  void Release(std::span<const std::byte> part) const;

 private:
  MappedFile() = default;

  std::string path_;
  std::span<const std::byte> data_;
  int64_t modified_nanos_ = 0;
};

}  // namespace lapidary

#endif  // WORKER_LOADER_MAPPED_FILE_H_
