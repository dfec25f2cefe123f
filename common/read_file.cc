#include "common/read_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <memory>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"

namespace lapidary {
namespace {

// Closes a descriptor at the end of its scope.
class Closer {
 public:
  explicit Closer(int file) : file_(file) {}
  ~Closer() { ::close(file_); }
  Closer(const Closer&) = delete;
  Closer& operator=(const Closer&) = delete;

 private:
  const int file_;
};

const char* KindOf(mode_t mode) {
  if (S_ISDIR(mode)) return "a directory";
  if (S_ISFIFO(mode)) return "a pipe";
  if (S_ISSOCK(mode)) return "a socket";
  return "a device";
}

absl::Status TooLarge(const std::string& name, int64_t max_bytes) {
  return absl::ResourceExhaustedError(
      absl::StrCat(name, ": needs at most ", max_bytes, " bytes, has more"));
}

}  // namespace

absl::StatusOr<std::string> ReadFile(const std::string& path,
                                     int64_t max_bytes) {
  // Without O_NONBLOCK, a pipe would be opened when somebody writes to it.
  const int file = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (file < 0) return absl::ErrnoToStatus(errno, path);
  const Closer closer(file);
  struct stat status;
  if (::fstat(file, &status) != 0) return absl::ErrnoToStatus(errno, path);
  if (!S_ISREG(status.st_mode)) {
    return absl::FailedPreconditionError(absl::StrCat(
        path, ": needs a regular file, it is ", KindOf(status.st_mode)));
  }
  if (status.st_size > max_bytes) return TooLarge(path, max_bytes);
  // Files of /proc and /sys have no size to read by.
  return ReadToEnd(file, path, max_bytes);
}

absl::StatusOr<std::string> ReadToEnd(int file, const std::string& name,
                                      int64_t max_bytes) {
  constexpr size_t kPartBytes = 64 << 10;
  const auto part = std::make_unique<std::array<char, kPartBytes>>();
  std::string bytes;
  for (;;) {
    const ssize_t read = ::read(file, part->data(), part->size());
    if (read == 0) return bytes;
    if (read < 0) {
      if (errno == EINTR) continue;
      return absl::ErrnoToStatus(errno, name);
    }
    if (static_cast<int64_t>(bytes.size()) + read > max_bytes) {
      return TooLarge(name, max_bytes);
    }
    bytes.append(part->data(), static_cast<size_t>(read));
  }
}

}  // namespace lapidary
