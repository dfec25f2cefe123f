// Writes one safetensors file (worker/loader/safetensors.h), piece by piece.

#ifndef WORKER_LOADER_SAFETENSORS_WRITER_H_
#define WORKER_LOADER_SAFETENSORS_WRITER_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace lapidary {

struct TensorHeader {
  std::string name;
  std::string dtype;  // "BF16" or "F32".
  std::vector<int64_t> shape;

  int64_t bytes() const;
};

// Thread-safe between Create() and Close().
class SafetensorsWriter {
 public:
  // Creates `path` with the header of `tensors` and room for their data.
  //
  // Errors: RESOURCE_EXHAUSTED on a full disk; ALREADY_EXISTS, NOT_FOUND,
  // PERMISSION_DENIED; all name the path.
  static absl::StatusOr<std::unique_ptr<SafetensorsWriter>> Create(
      const std::string& path, std::vector<TensorHeader> tensors);
  ~SafetensorsWriter();

  SafetensorsWriter(const SafetensorsWriter&) = delete;
  SafetensorsWriter& operator=(const SafetensorsWriter&) = delete;

  // Puts `data` at byte `offset` of tensor number `tensor`.
  absl::Status Write(int tensor, int64_t offset,
                     std::span<const std::byte> data);

  // Makes it last.  Call it once, last.
  absl::Status Close();

 private:
  SafetensorsWriter() = default;

  std::string path_;
  int file_ = -1;
  std::vector<int64_t> begins_;  // Of each tensor, from the start of the file.
};

}  // namespace lapidary

#endif  // WORKER_LOADER_SAFETENSORS_WRITER_H_
