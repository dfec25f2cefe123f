#include "worker/loader/image_builder.h"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <system_error>
#include <utility>
#include <vector>

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include "absl/status/status.h"
#include "absl/strings/escaping.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "common/byte_size.h"
#include "common/deadline.h"
#include "common/status_macros.h"
#include "common/steady_time.h"
#include "kernels/pack.h"
#include "worker/loader/disk_check.h"
#include "worker/loader/image_format.h"
#include "worker/loader/memory_check.h"
#include "worker/loader/piece_threads.h"
#include "xxhash.h"

namespace lapidary {
namespace {

// A thread reads, packs and writes about this much at a time.
constexpr int64_t kPieceBytes = 2 << 20;
// How long to wait before a lock is tried again.
constexpr absl::Duration kLockRetry = absl::Milliseconds(20);

int64_t BytesOf(const TensorSpec& spec) {
  return int64_t{spec.rows} * spec.cols * static_cast<int64_t>(sizeof(Bf16));
}

// A file descriptor that is closed in the end.
class File {
 public:
  static absl::StatusOr<File> Open(const std::string& path, int flags) {
    const int descriptor = open(path.c_str(), flags | O_CLOEXEC, 0666);
    if (descriptor < 0) return absl::ErrnoToStatus(errno, path);
    return File(descriptor, path);
  }
  File(File&& other) noexcept
      : descriptor_(std::exchange(other.descriptor_, -1)),
        path_(std::move(other.path_)) {}
  ~File() {
    if (descriptor_ >= 0) close(descriptor_);
  }

  absl::Status Write(int64_t offset, std::span<const std::byte> data) const {
    while (!data.empty()) {
      const ssize_t written =
          pwrite(descriptor_, data.data(), data.size(), offset);
      if (written < 0) {
        if (errno == EINTR) continue;
        return absl::ErrnoToStatus(errno, path_);
      }
      data = data.subspan(written);
      offset += written;
    }
    return absl::OkStatus();
  }

  // Takes all the disk that the file will need.
  absl::Status Reserve(int64_t bytes) const {
    const int error = posix_fallocate(descriptor_, 0, bytes);
    return error == 0 ? absl::OkStatus() : absl::ErrnoToStatus(error, path_);
  }

  absl::Status Sync() const {
    return fsync(descriptor_) == 0 ? absl::OkStatus()
                                   : absl::ErrnoToStatus(errno, path_);
  }

  // Waits until no other process holds it, for `timeout` at most: again and
  // again, since flock() has no form with a time.  DEADLINE_EXCEEDED.
  absl::Status LockWithin(absl::Duration timeout) const {
    const Deadline deadline = Deadline::In(timeout);
    while (flock(descriptor_, LOCK_EX | LOCK_NB) != 0) {
      if (errno != EINTR && errno != EWOULDBLOCK) {
        return absl::ErrnoToStatus(errno, path_);
      }
      if (deadline.has_passed()) {
        return absl::DeadlineExceededError(absl::StrCat(
            path_, ": another process has been packing these weights for ",
            absl::FormatDuration(timeout)));
      }
      absl::SleepFor(kLockRetry);
    }
    return absl::OkStatus();
  }

 private:
  File(int descriptor, std::string path)
      : descriptor_(descriptor), path_(std::move(path)) {}

  int descriptor_;
  std::string path_;
};

// Where everything goes in the image.
struct Layout {
  std::vector<TensorSpec> specs;  // Those that the checkpoint has.
  std::vector<int64_t> offsets;   // Of each, from the start of the file.
  std::string head;               // Header and directory.
  int64_t bytes = 0;              // Of the whole file.
};

template <typename T>
void AppendBytes(const T& value, std::string& text) {
  text.append(reinterpret_cast<const char*>(&value), sizeof(value));
}

int64_t Align(int64_t offset) {
  return (offset + kImageAlignment - 1) / kImageAlignment * kImageAlignment;
}

Layout MakeLayout(const Checkpoint& checkpoint,
                  std::span<const TensorSpec> specs) {
  constexpr int64_t kEntryBytes = 4 + 1 + 4 + 4 + 8;
  Layout layout;
  int64_t directory_bytes = 0;
  for (const TensorSpec& spec : specs) {
    if (checkpoint.Find(spec.name) == nullptr) continue;
    layout.specs.push_back(spec);
    directory_bytes += kEntryBytes + static_cast<int64_t>(spec.name.size());
  }
  ImageHeader header = {};
  memcpy(header.magic, kImageMagic, sizeof(header.magic));
  header.format_version = kImageFormatVersion;
  header.num_entries = static_cast<uint32_t>(layout.specs.size());
  header.directory_bytes = static_cast<uint64_t>(directory_bytes);
  header.digest = checkpoint.digest();
  AppendBytes(header, layout.head);
  layout.bytes = static_cast<int64_t>(sizeof(header)) + directory_bytes;
  for (const TensorSpec& spec : layout.specs) {
    const int64_t offset = Align(layout.bytes);
    layout.offsets.push_back(offset);
    layout.bytes = offset + BytesOf(spec);
    AppendBytes(static_cast<uint32_t>(spec.name.size()), layout.head);
    layout.head += spec.name;
    AppendBytes(static_cast<uint8_t>(spec.form), layout.head);
    AppendBytes(static_cast<uint32_t>(spec.rows), layout.head);
    AppendBytes(static_cast<uint32_t>(spec.cols), layout.head);
    AppendBytes(static_cast<uint64_t>(offset), layout.head);
  }
  return layout;
}

// Some rows of one tensor: a thread's unit of work.
struct Piece {
  int tensor;
  int first_row;
  int num_rows;
};

std::vector<Piece> CutPieces(const Layout& layout) {
  std::vector<Piece> pieces;
  for (size_t i = 0; i < layout.specs.size(); ++i) {
    const TensorSpec& spec = layout.specs[i];
    const int block =
        spec.form == TensorForm::kPacked ? PackedMatrix::kBlockRows : 1;
    const int64_t block_bytes = BytesOf(spec) / spec.rows * block;
    const int64_t step =
        std::max<int64_t>(kPieceBytes / block_bytes, 1) * block;
    for (int64_t row = 0; row < spec.rows; row += step) {
      pieces.push_back(
          {static_cast<int>(i), static_cast<int>(row),
           static_cast<int>(std::min<int64_t>(step, spec.rows - row))});
    }
  }
  return pieces;
}

// Packs a checkpoint's tensors into an image.  Each thread has its own, for the
// buffers.
class Packer {
 public:
  Packer(const Checkpoint& checkpoint, const Layout& layout, const File& image)
      : checkpoint_(checkpoint), layout_(layout), image_(image) {}

  absl::Status Pack(const Piece& piece) {
    const TensorSpec& spec = layout_.specs[piece.tensor];
    const Checkpoint::Tensor& tensor = *checkpoint_.Find(spec.name);
    const int64_t row_bytes = BytesOf(spec) / spec.rows;
    const int64_t begin = piece.first_row * row_bytes;
    const std::span<const std::byte> source =
        tensor.data.subspan(begin, piece.num_rows * row_bytes);
    std::span<const std::byte> result = source;
    if (spec.form == TensorForm::kPacked) {
      packed_.resize(source.size() / sizeof(Bf16));
      PackRows(Aligned(source), piece.num_rows, spec.cols, packed_.data());
      result = std::as_bytes(std::span(packed_));
    }
    RETURN_IF_ERROR(
        image_.Write(layout_.offsets[piece.tensor] + begin, result));
    tensor.file->Release(source);
    return absl::OkStatus();
  }

 private:
  // Tensors of a safetensors file may begin at an odd byte.
  const Bf16* Aligned(std::span<const std::byte> source) {
    if (reinterpret_cast<uintptr_t>(source.data()) % alignof(Bf16) == 0) {
      return reinterpret_cast<const Bf16*>(source.data());
    }
    aligned_.resize(source.size() / sizeof(Bf16));
    memcpy(aligned_.data(), source.data(), source.size());
    return aligned_.data();
  }

  const Checkpoint& checkpoint_;
  const Layout& layout_;
  const File& image_;
  std::vector<Bf16> aligned_;
  std::vector<Bf16> packed_;
};

absl::Status WriteData(const Checkpoint& checkpoint, const Layout& layout,
                       const File& image, int num_threads) {
  const std::vector<Piece> pieces = CutPieces(layout);
  return RunPieces("pack", num_threads, static_cast<int>(pieces.size()), [&] {
    return [&, packer = Packer(checkpoint, layout, image)](int i) mutable {
      return packer.Pack(pieces[i]);
    };
  });
}

// The paths of one checkpoint directory's images.  Its name is a digest of the
// directory's path, so that what an image supersedes can be told.
class ImagePaths {
 public:
  ImagePaths(const std::string& image_directory, const Checkpoint& checkpoint)
      : image_directory_(image_directory) {
    std::error_code ignored;
    const std::string path =
        std::filesystem::weakly_canonical(checkpoint.directory(), ignored)
            .string();
    prefix_ = absl::StrCat(
        "weights-",
        absl::Hex(XXH3_64bits(path.data(), path.size()), absl::kZeroPad16));
    const ImageDigest& digest = checkpoint.digest();
    const absl::string_view bytes(reinterpret_cast<const char*>(digest.data()),
                                  digest.size());
    image_ = absl::StrCat(prefix_, "-", absl::BytesToHexString(bytes), ".v",
                          kImageFormatVersion, kSuffix);
  }

  std::string image() const { return Path(image_); }
  // Of the directory, whatever it holds: one process writes at a time.
  std::string temporary() const { return Path(prefix_ + ".tmp"); }
  std::string lock() const { return Path(prefix_ + ".lock"); }

  // Deletes the directory's other images.  Ranks that have mapped one keep it
  // until they end.
  void RemoveSuperseded() const {
    std::error_code ignored;
    for (const auto& entry :
         std::filesystem::directory_iterator(image_directory_, ignored)) {
      const std::string name = entry.path().filename().string();
      if (name != image_ && absl::StartsWith(name, prefix_ + "-") &&
          absl::EndsWith(name, kSuffix)) {
        std::filesystem::remove(entry.path(), ignored);
      }
    }
  }

 private:
  static constexpr char kSuffix[] = ".image";

  std::string Path(const std::string& name) const {
    return absl::StrCat(image_directory_, "/", name);
  }

  std::string image_directory_;
  std::string prefix_;
  std::string image_;
};

absl::Status BuildImage(const Checkpoint& checkpoint, const Layout& layout,
                        const ImageOptions& options, const ImagePaths& paths) {
  const std::string temporary = paths.temporary();
  std::error_code ignored;
  std::filesystem::remove(temporary, ignored);
  RETURN_IF_ERROR(
      CheckDisk(options.directory, layout.bytes, "the packed weights"));
  const auto write = [&]() -> absl::Status {
    ASSIGN_OR_RETURN(const File file,
                     File::Open(temporary, O_RDWR | O_CREAT | O_EXCL));
    RETURN_IF_ERROR(file.Reserve(layout.bytes));
    RETURN_IF_ERROR(file.Write(0, std::as_bytes(std::span(layout.head))));
    RETURN_IF_ERROR(WriteData(checkpoint, layout, file, options.num_threads));
    RETURN_IF_ERROR(file.Sync());
    if (rename(temporary.c_str(), paths.image().c_str()) != 0) {
      return absl::ErrnoToStatus(errno, paths.image());
    }
    ASSIGN_OR_RETURN(const File directory,
                     File::Open(options.directory, O_RDONLY | O_DIRECTORY));
    return directory.Sync();
  };
  const absl::Status status = write();
  if (!status.ok()) {
    std::filesystem::remove(temporary, ignored);
    return status;
  }
  paths.RemoveSuperseded();
  return absl::OkStatus();
}

// The image at `path`, if it is there and is whole and that of `digest`.
absl::StatusOr<std::unique_ptr<WeightImage>> MapImage(
    const std::string& path, const ImageDigest& digest) {
  ASSIGN_OR_RETURN(std::unique_ptr<WeightImage> image, WeightImage::Map(path));
  if (image->digest() != digest) {
    return absl::DataLossError(
        absl::StrCat(path, ": needs the digest in its name, found another"));
  }
  return image;
}

}  // namespace

int64_t ImageBytes(const Checkpoint& checkpoint,
                   std::span<const TensorSpec> specs) {
  return MakeLayout(checkpoint, specs).bytes;
}

absl::StatusOr<std::unique_ptr<WeightImage>> LoadOrBuildImage(
    const Checkpoint& checkpoint, std::span<const TensorSpec> specs,
    const ImageOptions& options, ImageStats& stats) {
  const Layout layout = MakeLayout(checkpoint, specs);
  stats = ImageStats();
  stats.source_bytes = checkpoint.bytes();
  stats.image_bytes = layout.bytes;
  RETURN_IF_ERROR(
      CheckMemory(layout.bytes + options.extra_memory_bytes,
                  absl::StrCat("the weights of ", checkpoint.directory(), " (",
                               FormatByteSize(layout.bytes),
                               ") and the memory beside them (",
                               FormatByteSize(options.extra_memory_bytes),
                               ", with keys and values)")));
  std::error_code error;
  std::filesystem::create_directories(options.directory, error);
  if (error) return absl::ErrnoToStatus(error.value(), options.directory);

  const ImagePaths paths(options.directory, checkpoint);
  const std::string path = paths.image();
  const absl::Time start = SteadyNow();
  absl::StatusOr<std::unique_ptr<WeightImage>> image =
      MapImage(path, checkpoint.digest());
  if (!image.ok()) {
    ASSIGN_OR_RETURN(const File lock,
                     File::Open(paths.lock(), O_RDWR | O_CREAT));
    RETURN_IF_ERROR(lock.LockWithin(options.lock_timeout));
    image = MapImage(path, checkpoint.digest());  // Another rank's, by now.
    if (!image.ok()) {
      if (absl::IsDataLoss(image.status())) {
        stats.damage = std::string(image.status().message());
      }
      RETURN_IF_ERROR(BuildImage(checkpoint, layout, options, paths));
      stats.built = true;
    }
    stats.pack_time = SteadyNow() - start;
  }
  if (stats.built) image = MapImage(path, checkpoint.digest());
  stats.map_time = SteadyNow() - start - stats.pack_time;
  return image;
}

}  // namespace lapidary
