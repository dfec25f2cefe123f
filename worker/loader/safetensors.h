// The safetensors format: named tensors behind a JSON header.
//
//   file   := u64 header bytes | header | data
//   header := {"NAME": {"dtype": "BF16", "shape": [2, 3],
//                       "data_offsets": [begin, end]}, …,
//              "__metadata__": {"KEY": "VALUE", …}}
//
// Little-endian; offsets count from the start of the data; tensors are
// row-major.

#ifndef WORKER_LOADER_SAFETENSORS_H_
#define WORKER_LOADER_SAFETENSORS_H_

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "worker/loader/mapped_file.h"

namespace lapidary {

struct StoredTensor {
  std::string dtype;  // "BF16", "F32", …
  std::vector<int64_t> shape;
  std::span<const std::byte> data;
};

// "[2, 3]"
std::string FormatShape(std::span<const int64_t> shape);

// One mapped file.  Immutable; thread-safe.
class SafetensorsFile {
 public:
  static constexpr int64_t kMaxHeaderBytes = 100'000'000;

  // Maps `path` and checks all of its header: lengths against the file's,
  // shapes and dtypes against offsets, that tensors neither overlap nor leave
  // gaps nor share a name.
  //
  // Errors: those of MappedFile; DATA_LOSS with file, tensor, what was expected
  // and what was found.
  static absl::StatusOr<std::unique_ptr<SafetensorsFile>> Open(
      const std::string& path);

  // By name.
  const std::map<std::string, StoredTensor>& tensors() const {
    return tensors_;
  }
  // Null if there is none of that name.
  const StoredTensor* Find(absl::string_view name) const;

  // The header as it stands in the file.
  absl::string_view header() const { return header_; }
  const MappedFile& file() const { return *file_; }

 private:
  SafetensorsFile() = default;

  std::unique_ptr<MappedFile> file_;
  absl::string_view header_;
  std::map<std::string, StoredTensor> tensors_;
};

}  // namespace lapidary

#endif  // WORKER_LOADER_SAFETENSORS_H_
