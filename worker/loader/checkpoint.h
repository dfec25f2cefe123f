// A model as Hugging Face stores it: a directory with config.json and either
//
//   model.safetensors
// or
//   model.safetensors.index.json      {"weight_map": {"NAME": "FILE", …}}
//   model-00001-of-00005.safetensors  …
//
// The text tensors' names begin with one of the prefixes
// "model.language_model.", "model.", "language_model.model." and
// "language_model."; specs leave it out.

#ifndef WORKER_LOADER_CHECKPOINT_H_
#define WORKER_LOADER_CHECKPOINT_H_

#include <array>
#include <cstdint>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "worker/loader/safetensors.h"
#include "worker/loader/weight_image.h"

namespace lapidary {

// Immutable; thread-safe.
class Checkpoint {
 public:
  // Opens the files of `directory` and finds in them every tensor of `specs`,
  // as BF16 and in its shape.  Other tensors (of images, of audio) are ignored.
  // Reads headers only.
  //
  // Errors: NOT_FOUND; FAILED_PRECONDITION for a tensor that is missing or
  // differs; DATA_LOSS for a malformed file; each names file and tensor, what
  // was expected and what was found.
  static absl::StatusOr<std::unique_ptr<Checkpoint>> Open(
      const std::string& directory, std::span<const TensorSpec> specs);

  struct Tensor {
    const MappedFile* file;
    std::span<const std::byte> data;
  };
  // By the name in specs.  Null for an optional tensor that is not there.
  const Tensor* Find(absl::string_view name) const;

  // Tells checkpoints apart without reading all of them: headers, sizes and
  // times of the files, and samples of each tensor that specs name.
  const ImageDigest& digest() const { return digest_; }

  const std::string& directory() const { return directory_; }
  int num_files() const { return static_cast<int>(files_.size()); }
  int num_ignored_tensors() const { return num_ignored_tensors_; }
  // Bytes of the tensors that specs name.
  int64_t bytes() const { return bytes_; }

 private:
  Checkpoint() = default;

  absl::Status OpenFiles();
  absl::Status OpenShards(const std::string& index_path);
  absl::Status FindTensors(std::span<const TensorSpec> specs);
  void ComputeDigest();

  std::string directory_;
  std::map<std::string, std::unique_ptr<SafetensorsFile>> files_;  // By name.
  // Where each stored tensor lies, by its name in the files.
  absl::flat_hash_map<std::string, const SafetensorsFile*> locations_;
  std::map<std::string, Tensor> tensors_;  // By the name in specs.
  ImageDigest digest_ = {};
  int num_ignored_tensors_ = 0;
  int64_t bytes_ = 0;
};

}  // namespace lapidary

#endif  // WORKER_LOADER_CHECKPOINT_H_
