// The bytes at the beginning of a weight image (worker/loader/weight_image.h),
// for those who write and read them.

#ifndef WORKER_LOADER_IMAGE_FORMAT_H_
#define WORKER_LOADER_IMAGE_FORMAT_H_

#include <cstdint>

#include "worker/loader/weight_image.h"

namespace lapidary {

inline constexpr char kImageMagic[8] = {'L', 'A', 'P', 'I', 'D', 'A', 'R', 'Y'};
inline constexpr int64_t kImageAlignment = 64;

struct ImageHeader {
  char magic[8];
  uint32_t format_version;
  uint32_t num_entries;
  uint64_t directory_bytes;
  ImageDigest digest;
};
static_assert(sizeof(ImageHeader) == 40);

}  // namespace lapidary

#endif  // WORKER_LOADER_IMAGE_FORMAT_H_
