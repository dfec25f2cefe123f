#include "worker/loader/safetensors_writer.h"

#include <cerrno>
#include <cstring>
#include <utility>

#include <fcntl.h>
#include <unistd.h>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "common/status_macros.h"
#include "nlohmann/json.hpp"

namespace lapidary {
namespace {

constexpr int64_t kLengthBytes = 8;
constexpr int64_t kDataAlignment = 64;

absl::Status WriteAt(int file, const std::string& path, int64_t offset,
                     std::span<const std::byte> data) {
  while (!data.empty()) {
    const ssize_t written = pwrite(file, data.data(), data.size(), offset);
    if (written < 0) {
      if (errno == EINTR) continue;
      return absl::ErrnoToStatus(errno, path);
    }
    data = data.subspan(written);
    offset += written;
  }
  return absl::OkStatus();
}

// The header, with spaces at its end so that the data is aligned.
std::string MakeHeader(const std::vector<TensorHeader>& tensors) {
  nlohmann::json header = nlohmann::json::object();
  header["__metadata__"]["format"] = "pt";
  int64_t begin = 0;
  for (const TensorHeader& tensor : tensors) {
    const int64_t end = begin + tensor.bytes();
    header[tensor.name] = {{"dtype", tensor.dtype},
                           {"shape", tensor.shape},
                           {"data_offsets", {begin, end}}};
    begin = end;
  }
  std::string text = header.dump();
  const int64_t unpadded = kLengthBytes + static_cast<int64_t>(text.size());
  text.append((kDataAlignment - unpadded % kDataAlignment) % kDataAlignment,
              ' ');
  return text;
}

}  // namespace

int64_t TensorHeader::bytes() const {
  int64_t bytes = dtype == "F32" ? 4 : 2;
  for (const int64_t size : shape) bytes *= size;
  return bytes;
}

absl::StatusOr<std::unique_ptr<SafetensorsWriter>> SafetensorsWriter::Create(
    const std::string& path, std::vector<TensorHeader> tensors) {
  const int file =
      open(path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
  if (file < 0) return absl::ErrnoToStatus(errno, path);
  std::unique_ptr<SafetensorsWriter> writer(new SafetensorsWriter());
  writer->path_ = path;
  writer->file_ = file;

  const std::string header = MakeHeader(tensors);
  int64_t end = kLengthBytes + static_cast<int64_t>(header.size());
  for (const TensorHeader& tensor : tensors) {
    writer->begins_.push_back(end);
    end += tensor.bytes();
  }
  // Finds out about a full disk now, not after minutes of work.
  if (const int error = posix_fallocate(file, 0, end); error != 0) {
    return absl::ErrnoToStatus(error,
                               absl::StrCat(path, ": needs ", end, " bytes"));
  }
  const uint64_t header_bytes = header.size();
  RETURN_IF_ERROR(
      WriteAt(file, path, 0, std::as_bytes(std::span(&header_bytes, 1))));
  RETURN_IF_ERROR(
      WriteAt(file, path, kLengthBytes, std::as_bytes(std::span(header))));
  return writer;
}

SafetensorsWriter::~SafetensorsWriter() {
  if (file_ >= 0) close(file_);
}

absl::Status SafetensorsWriter::Write(int tensor, int64_t offset,
                                      std::span<const std::byte> data) {
  return WriteAt(file_, path_, begins_[tensor] + offset, data);
}

absl::Status SafetensorsWriter::Close() {
  const bool synced = fsync(file_) == 0;
  const int error = errno;
  close(std::exchange(file_, -1));
  return synced ? absl::OkStatus() : absl::ErrnoToStatus(error, path_);
}

}  // namespace lapidary
