// What is in frames, as bytes.  Little-endian: so are all machines that this
// runs on.

#ifndef WORKER_PARALLEL_WIRE_H_
#define WORKER_PARALLEL_WIRE_H_

#include <cstdint>
#include <cstring>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace lapidary {

class WireWriter {
 public:
  void PutInt(int64_t value) {
    bytes_.append(reinterpret_cast<const char*>(&value), sizeof(value));
  }
  void PutString(absl::string_view value) {
    PutInt(static_cast<int64_t>(value.size()));
    bytes_.append(value.data(), value.size());
  }

  const std::string& bytes() const { return bytes_; }

 private:
  std::string bytes_;
};

// Reads what a WireWriter wrote.  After what does not fit, ok() is false and
// all that is read is 0 and "".
class WireReader {
 public:
  explicit WireReader(absl::string_view bytes) : rest_(bytes) {}

  int64_t Int() {
    int64_t value = 0;
    const absl::string_view bytes = Take(sizeof(value));
    if (ok_) std::memcpy(&value, bytes.data(), sizeof(value));
    return value;
  }
  // In [0, limit], else not ok().
  int64_t Count(int64_t limit) {
    const int64_t value = Int();
    ok_ = ok_ && value >= 0 && value <= limit;
    return ok_ ? value : 0;
  }
  std::string String() {
    const int64_t size = Int();
    ok_ = ok_ && size >= 0;
    return std::string(Take(ok_ ? size : 0));
  }

  bool ok() const { return ok_; }
  // All was read, and fitted.
  bool done() const { return ok_ && rest_.empty(); }

 private:
  absl::string_view Take(int64_t size) {
    if (!ok_ || size > static_cast<int64_t>(rest_.size())) {
      ok_ = false;
      return {};
    }
    const absl::string_view taken = rest_.substr(0, size);
    rest_.remove_prefix(size);
    return taken;
  }

  absl::string_view rest_;
  bool ok_ = true;
};

// A string, or the error that is there instead of it.
std::string EncodeResult(const absl::StatusOr<std::string>& result);
// Errors: INVALID_ARGUMENT if `bytes` are none; `result` is then unchanged.
absl::Status DecodeResult(absl::string_view bytes,
                          absl::StatusOr<std::string>& result);

std::string EncodeList(const std::vector<std::string>& list);
// Errors: INVALID_ARGUMENT if `bytes` are no list of `size` strings.
absl::StatusOr<std::vector<std::string>> DecodeList(absl::string_view bytes,
                                                    int size);

}  // namespace lapidary

#endif  // WORKER_PARALLEL_WIRE_H_
