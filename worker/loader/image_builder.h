// Makes the weight image of a checkpoint, once a host.

#ifndef WORKER_LOADER_IMAGE_BUILDER_H_
#define WORKER_LOADER_IMAGE_BUILDER_H_

#include <cstdint>
#include <memory>
#include <span>
#include <string>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "worker/loader/checkpoint.h"
#include "worker/loader/weight_image.h"

namespace lapidary {

struct ImageOptions {
  // Where images are kept; made if it is missing.  An image's name tells the
  // checkpoint's directory and digest and the format's version.  Images can be
  // deleted at any time, and one that is made deletes the older ones of its
  // checkpoint's directory: processes that have mapped them keep them.
  std::string directory;
  // What else the process is going to take, counted when the memory is checked.
  int64_t extra_memory_bytes = 0;
  int num_threads = 0;  // 0: one a core.
  // What another process gets that packs the same weights.
  absl::Duration lock_timeout = absl::Hours(1);
};

struct ImageStats {
  bool built = false;        // False: it was there and was mapped at once.
  absl::Duration pack_time;  // Reading, packing, writing; includes the wait
                             // for another rank that was at it.
  absl::Duration map_time;
  int64_t source_bytes = 0;  // Tensors read from the checkpoint.
  int64_t image_bytes = 0;
  // What was wrong with an image that was there and was packed again; empty if
  // there was none such.
  std::string damage;
};

// Bytes of the image that `checkpoint` makes.
int64_t ImageBytes(const Checkpoint& checkpoint,
                   std::span<const TensorSpec> specs);

// Maps the image of `checkpoint`, after packing it if it is not there: streamed
// to a temporary file and renamed when it is whole.  Ranks that start together
// wait for the one that packs.  A damaged image is packed again.
//
// `specs` are those that the checkpoint was opened with.
//
// Errors: RESOURCE_EXHAUSTED if memory or disk do not suffice, before anything
// is read, with what is needed and what there is; DEADLINE_EXCEEDED if another
// process packs and does not end; those of the file system.
absl::StatusOr<std::unique_ptr<WeightImage>> LoadOrBuildImage(
    const Checkpoint& checkpoint, std::span<const TensorSpec> specs,
    const ImageOptions& options, ImageStats& stats);

}  // namespace lapidary

#endif  // WORKER_LOADER_IMAGE_BUILDER_H_
