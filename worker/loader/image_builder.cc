#include "worker/loader/image_builder.h"

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <system_error>
#include <thread>
#include <utility>
#include <vector>

#include <fcntl.h>
#include <pthread.h>
#include <sys/file.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "common/byte_size.h"
#include "common/mutex.h"
#include "common/status_macros.h"
#include "kernels/pack.h"
#include "worker/loader/image_format.h"
#include "worker/loader/memory_check.h"

namespace lapidary {
namespace {

// A thread reads, packs and writes about this much at a time.
constexpr int64_t kPieceBytes = 2 << 20;

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

  // Waits until no other process holds it.
  absl::Status Lock() const {
    while (flock(descriptor_, LOCK_EX) != 0) {
      if (errno != EINTR) return absl::ErrnoToStatus(errno, path_);
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

// Fills an image's data on several threads.
class Packer {
 public:
  Packer(const Checkpoint& checkpoint, const Layout& layout, const File& image)
      : checkpoint_(checkpoint),
        layout_(layout),
        image_(image),
        pieces_(CutPieces(layout)) {}

  absl::Status Run(int num_threads) {
    std::vector<std::thread> threads;
    for (int i = 0; i < num_threads; ++i) {
      threads.emplace_back([this, i] {
        pthread_setname_np(pthread_self(), absl::StrCat("pack-", i).c_str());
        Work();
      });
    }
    for (std::thread& thread : threads) thread.join();
    MutexLock lock(mutex_);
    return status_;
  }

 private:
  // Buffers of one thread, kept from piece to piece.
  struct Buffers {
    std::vector<Bf16> aligned;
    std::vector<Bf16> packed;
  };

  void Work() {
    Buffers buffers;
    for (size_t i = next_++; i < pieces_.size() && !failed_; i = next_++) {
      const absl::Status status = Pack(pieces_[i], buffers);
      if (status.ok()) continue;
      MutexLock lock(mutex_);
      status_.Update(status);
      failed_ = true;
    }
  }

  absl::Status Pack(const Piece& piece, Buffers& buffers) {
    const TensorSpec& spec = layout_.specs[piece.tensor];
    const Checkpoint::Tensor& tensor = *checkpoint_.Find(spec.name);
    const int64_t row_bytes = BytesOf(spec) / spec.rows;
    const int64_t begin = piece.first_row * row_bytes;
    const std::span<const std::byte> source =
        tensor.data.subspan(begin, piece.num_rows * row_bytes);
    std::span<const std::byte> result = source;
    if (spec.form == TensorForm::kPacked) {
      buffers.packed.resize(source.size() / sizeof(Bf16));
      PackRows(Aligned(source, buffers.aligned), piece.num_rows, spec.cols,
               buffers.packed.data());
      result = std::as_bytes(std::span(buffers.packed));
    }
    RETURN_IF_ERROR(
        image_.Write(layout_.offsets[piece.tensor] + begin, result));
    tensor.file->Release(source);
    return absl::OkStatus();
  }

  // Tensors of a safetensors file may begin at an odd byte.
  static const Bf16* Aligned(std::span<const std::byte> source,
                             std::vector<Bf16>& buffer) {
    if (reinterpret_cast<uintptr_t>(source.data()) % alignof(Bf16) == 0) {
      return reinterpret_cast<const Bf16*>(source.data());
    }
    buffer.resize(source.size() / sizeof(Bf16));
    memcpy(buffer.data(), source.data(), source.size());
    return buffer.data();
  }

  const Checkpoint& checkpoint_;
  const Layout& layout_;
  const File& image_;
  const std::vector<Piece> pieces_;
  std::atomic<size_t> next_ = 0;
  std::atomic<bool> failed_ = false;
  Mutex mutex_;
  absl::Status status_ ABSL_GUARDED_BY(mutex_);
};

absl::Status CheckDisk(const std::string& directory, int64_t needed_bytes) {
  struct statvfs status;
  if (statvfs(directory.c_str(), &status) != 0) {
    return absl::ErrnoToStatus(errno, directory);
  }
  const int64_t available = static_cast<int64_t>(status.f_bavail) *
                            static_cast<int64_t>(status.f_frsize);
  if (needed_bytes <= available) return absl::OkStatus();
  return absl::ResourceExhaustedError(
      absl::StrCat(directory, ": needs ", FormatByteSize(needed_bytes),
                   " of disk for the packed weights, ",
                   FormatByteSize(available), " available"));
}

absl::Status BuildImage(const Checkpoint& checkpoint, const Layout& layout,
                        const ImageOptions& options, const std::string& path) {
  const std::string temporary = path + ".tmp";
  std::error_code ignored;
  std::filesystem::remove(temporary, ignored);
  RETURN_IF_ERROR(CheckDisk(options.directory, layout.bytes));
  const auto write = [&]() -> absl::Status {
    ASSIGN_OR_RETURN(const File file,
                     File::Open(temporary, O_RDWR | O_CREAT | O_EXCL));
    RETURN_IF_ERROR(file.Reserve(layout.bytes));
    RETURN_IF_ERROR(file.Write(0, std::as_bytes(std::span(layout.head))));
    const int cores = static_cast<int>(std::thread::hardware_concurrency());
    RETURN_IF_ERROR(Packer(checkpoint, layout, file)
                        .Run(options.num_threads > 0 ? options.num_threads
                                                     : std::max(cores, 1)));
    RETURN_IF_ERROR(file.Sync());
    if (rename(temporary.c_str(), path.c_str()) != 0) {
      return absl::ErrnoToStatus(errno, path);
    }
    ASSIGN_OR_RETURN(const File directory,
                     File::Open(options.directory, O_RDONLY | O_DIRECTORY));
    return directory.Sync();
  };
  const absl::Status status = write();
  if (!status.ok()) std::filesystem::remove(temporary, ignored);
  return status;
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

std::string ImagePath(const std::string& directory, const ImageDigest& digest) {
  const absl::string_view bytes(reinterpret_cast<const char*>(digest.data()),
                                digest.size());
  return absl::StrCat(directory, "/weights-", absl::BytesToHexString(bytes),
                      ".v", kImageFormatVersion, ".image");
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

  const std::string path = ImagePath(options.directory, checkpoint.digest());
  const absl::Time start = absl::Now();
  absl::StatusOr<std::unique_ptr<WeightImage>> image =
      MapImage(path, checkpoint.digest());
  if (!image.ok()) {
    ASSIGN_OR_RETURN(const File lock,
                     File::Open(path + ".lock", O_RDWR | O_CREAT));
    RETURN_IF_ERROR(lock.Lock());
    image = MapImage(path, checkpoint.digest());  // Another rank's, by now.
    if (!image.ok()) {
      if (absl::IsDataLoss(image.status())) {
        stats.damage = std::string(image.status().message());
      }
      RETURN_IF_ERROR(BuildImage(checkpoint, layout, options, path));
      stats.built = true;
    }
    stats.pack_time = absl::Now() - start;
  }
  if (stats.built) image = MapImage(path, checkpoint.digest());
  stats.map_time = absl::Now() - start - stats.pack_time;
  return image;
}

}  // namespace lapidary
