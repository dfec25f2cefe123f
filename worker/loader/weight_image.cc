#include "worker/loader/weight_image.h"

#include <cstring>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/status_macros.h"
#include "worker/loader/image_format.h"

namespace lapidary {
namespace {

// Takes values off the front of untrusted bytes.
class Reader {
 public:
  explicit Reader(std::span<const std::byte> bytes) : bytes_(bytes) {}

  // Empty if too few bytes are left.
  template <typename T>
  std::optional<T> Read() {
    if (bytes_.size() < sizeof(T)) return std::nullopt;
    T value;
    memcpy(&value, bytes_.data(), sizeof(T));
    bytes_ = bytes_.subspan(sizeof(T));
    return value;
  }

  std::optional<std::string> ReadString(size_t size) {
    if (bytes_.size() < size) return std::nullopt;
    std::string text(reinterpret_cast<const char*>(bytes_.data()), size);
    bytes_ = bytes_.subspan(size);
    return text;
  }

  bool empty() const { return bytes_.empty(); }

 private:
  std::span<const std::byte> bytes_;
};

struct DirectoryEntry {
  std::string name;
  uint8_t form;
  uint32_t rows;
  uint32_t cols;
  uint64_t offset;
};

std::optional<DirectoryEntry> ReadEntry(Reader& reader) {
  const auto name_bytes = reader.Read<uint32_t>();
  if (!name_bytes.has_value()) return std::nullopt;
  auto name = reader.ReadString(*name_bytes);
  const auto form = reader.Read<uint8_t>();
  const auto rows = reader.Read<uint32_t>();
  const auto cols = reader.Read<uint32_t>();
  const auto offset = reader.Read<uint64_t>();
  if (!name.has_value() || !offset.has_value()) return std::nullopt;
  return DirectoryEntry{*std::move(name), *form, *rows, *cols, *offset};
}

absl::Status CheckEntry(const DirectoryEntry& entry, uint64_t data_begin,
                        uint64_t file_bytes) {
  const bool packed = entry.form == static_cast<uint8_t>(TensorForm::kPacked);
  const bool plain = entry.form == static_cast<uint8_t>(TensorForm::kPlain);
  constexpr uint32_t kMaxSize = 1u << 30;
  if ((!packed && !plain) || entry.rows == 0 || entry.rows > kMaxSize ||
      entry.cols == 0 || entry.cols > kMaxSize ||
      (packed &&
       (entry.rows % PackedMatrix::kBlockRows != 0 || entry.cols % 2 != 0))) {
    return absl::DataLossError(absl::StrCat(
        "tensor ", entry.name, ": needs a form and a shape, found ", entry.form,
        " and [", entry.rows, ", ", entry.cols, "]"));
  }
  const uint64_t bytes = uint64_t{entry.rows} * entry.cols * sizeof(Bf16);
  if (entry.offset % kImageAlignment != 0 || entry.offset < data_begin ||
      entry.offset > file_bytes || bytes > file_bytes - entry.offset) {
    return absl::DataLossError(absl::StrCat(
        "tensor ", entry.name, ": needs ", bytes, " bytes at byte ",
        entry.offset, ", found a file of ", file_bytes, " bytes"));
  }
  return absl::OkStatus();
}

}  // namespace

WeightImage::WeightImage(std::unique_ptr<MappedFile> file)
    : file_(std::move(file)) {}

WeightImage::~WeightImage() = default;

absl::StatusOr<std::unique_ptr<WeightImage>> WeightImage::Map(
    const std::string& path) {
  ASSIGN_OR_RETURN(std::unique_ptr<MappedFile> file, MappedFile::Open(path));
  std::unique_ptr<WeightImage> image(new WeightImage(std::move(file)));
  if (const absl::Status status = image->ReadHeader(); !status.ok()) {
    return absl::DataLossError(absl::StrCat(path, ": ", status.message()));
  }
  return image;
}

absl::Status WeightImage::ReadHeader() {
  const std::span<const std::byte> bytes = file_->data();
  const std::optional<ImageHeader> header = Reader(bytes).Read<ImageHeader>();
  if (!header.has_value() ||
      memcmp(header->magic, kImageMagic, sizeof(kImageMagic)) != 0) {
    return absl::DataLossError(absl::StrCat("needs a weight image, found ",
                                            bytes.size(),
                                            " bytes that do not begin as one"));
  }
  if (header->format_version != kImageFormatVersion) {
    return absl::DataLossError(absl::StrCat("needs format version ",
                                            kImageFormatVersion, ", found ",
                                            header->format_version));
  }
  if (header->directory_bytes > bytes.size() - sizeof(ImageHeader)) {
    return absl::DataLossError(
        absl::StrCat("needs a directory of ", header->directory_bytes,
                     " bytes, found a file of ", bytes.size(), " bytes"));
  }
  digest_ = header->digest;
  const uint64_t data_begin = sizeof(ImageHeader) + header->directory_bytes;
  Reader directory(bytes.subspan(sizeof(ImageHeader), header->directory_bytes));
  for (uint32_t i = 0; i < header->num_entries; ++i) {
    const std::optional<DirectoryEntry> entry = ReadEntry(directory);
    if (!entry.has_value()) {
      return absl::DataLossError(
          absl::StrCat("needs ", header->num_entries,
                       " entries in its directory, found ", i));
    }
    RETURN_IF_ERROR(CheckEntry(*entry, data_begin, bytes.size()));
    entries_[entry->name] = {
        static_cast<TensorForm>(entry->form), static_cast<int>(entry->rows),
        static_cast<int>(entry->cols),
        reinterpret_cast<const Bf16*>(bytes.data() + entry->offset)};
  }
  if (!directory.empty() || entries_.size() != header->num_entries) {
    return absl::DataLossError(
        absl::StrCat("needs a directory of ", header->num_entries,
                     " entries, found bytes beyond them or names twice"));
  }
  return absl::OkStatus();
}

bool WeightImage::Has(absl::string_view name) const {
  return entries_.contains(name);
}

absl::StatusOr<const WeightImage::Entry*> WeightImage::Find(
    absl::string_view name, TensorForm form, int rows, int cols) const {
  const auto it = entries_.find(name);
  if (it == entries_.end()) {
    return absl::NotFoundError(
        absl::StrCat(path(), ": needs tensor ", name, ", found none"));
  }
  const Entry& entry = it->second;
  if (entry.form != form || entry.rows != rows || entry.cols != cols) {
    const auto show = [](TensorForm f, int r, int c) {
      return absl::StrCat(f == TensorForm::kPacked ? "packed" : "plain", " [",
                          r, ", ", c, "]");
    };
    return absl::FailedPreconditionError(absl::StrCat(
        path(), ": tensor ", name, ": needs ", show(form, rows, cols),
        ", found ", show(entry.form, entry.rows, entry.cols)));
  }
  return &entry;
}

absl::StatusOr<PackedMatrix> WeightImage::Packed(absl::string_view name,
                                                 int rows, int cols) const {
  ASSIGN_OR_RETURN(const Entry* entry,
                   Find(name, TensorForm::kPacked, rows, cols));
  return PackedMatrix{.data = entry->data,
                      .rows = rows,
                      .cols = cols,
                      .block_stride = int64_t{PackedMatrix::kBlockRows} * cols};
}

absl::StatusOr<const Bf16*> WeightImage::Vector(absl::string_view name,
                                                int size) const {
  ASSIGN_OR_RETURN(const Entry* entry, Find(name, TensorForm::kPlain, 1, size));
  return entry->data;
}

}  // namespace lapidary
