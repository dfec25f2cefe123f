// Weights packed once a host: one read-only file that all ranks map.
//
//   image := header  directory  data
//   header := magic "LAPIDARY" | u32 format version | u32 entries
//             | u64 directory bytes | 16 bytes checkpoint digest
//   directory := entries x (u32 name length, name, u8 form, u32 rows, u32 cols,
//                           u64 offset from the start of the file)
//   data := the tensors, each aligned to 64 bytes
//
// Little-endian.  A packed tensor has the layout of PackedMatrix, a plain one
// is row-major bf16.

#ifndef WORKER_LOADER_WEIGHT_IMAGE_H_
#define WORKER_LOADER_WEIGHT_IMAGE_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "kernels/bf16.h"
#include "kernels/tensor.h"
#include "worker/loader/mapped_file.h"

namespace lapidary {

inline constexpr uint32_t kImageFormatVersion = 1;

// Of the checkpoint that an image was made from.
using ImageDigest = std::array<std::byte, 16>;

enum class TensorForm : uint8_t { kPlain, kPacked };

// A tensor that a model needs: how it is called in the checkpoint after the
// text prefix ("layers.0.mlp.up_proj.weight"), its shape, its form in the
// image.
struct TensorSpec {
  std::string name;
  int rows = 0;  // 1 for a vector.
  int cols = 0;
  TensorForm form = TensorForm::kPlain;
  // Leave it out of the image where the checkpoint has none.
  bool optional = false;
};

// Immutable once mapped; thread-safe.
class WeightImage {
 public:
  // Maps an image and checks its header, directory and length.
  //
  // Errors: NOT_FOUND; DATA_LOSS, with file, what was expected and found.
  static absl::StatusOr<std::unique_ptr<WeightImage>> Map(
      const std::string& path);
  ~WeightImage();

  WeightImage(const WeightImage&) = delete;
  WeightImage& operator=(const WeightImage&) = delete;

  bool Has(absl::string_view name) const;
  // Errors: NOT_FOUND; FAILED_PRECONDITION if form or shape differ.
  absl::StatusOr<PackedMatrix> Packed(absl::string_view name, int rows,
                                      int cols) const;
  absl::StatusOr<const Bf16*> Vector(absl::string_view name, int size) const;

  int64_t bytes() const { return file_->bytes(); }
  const std::string& path() const { return file_->path(); }
  const ImageDigest& digest() const { return digest_; }

 private:
  struct Entry {
    TensorForm form;
    int rows;
    int cols;
    const Bf16* data;
  };
  explicit WeightImage(std::unique_ptr<MappedFile> file);

  absl::Status ReadHeader();
  absl::StatusOr<const Entry*> Find(absl::string_view name, TensorForm form,
                                    int rows, int cols) const;

  std::unique_ptr<MappedFile> file_;
  ImageDigest digest_ = {};
  absl::flat_hash_map<std::string, Entry> entries_;
};

}  // namespace lapidary

#endif  // WORKER_LOADER_WEIGHT_IMAGE_H_
