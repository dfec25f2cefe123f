#include "worker/loader/safetensors.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <set>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "common/json_fields.h"
#include "common/status_macros.h"
#include "nlohmann/json.hpp"

namespace lapidary {
namespace {

using nlohmann::json;

constexpr int64_t kLengthBytes = 8;

constexpr std::array<std::pair<absl::string_view, int>, 15> kDTypes = {{
    {"BF16", 2},
    {"F16", 2},
    {"F32", 4},
    {"F64", 8},
    {"F8_E4M3", 1},
    {"F8_E5M2", 1},
    {"F8_E8M0", 1},
    {"I8", 1},
    {"I16", 2},
    {"I32", 4},
    {"I64", 8},
    {"U8", 1},
    {"U16", 2},
    {"U32", 4},
    {"BOOL", 1},
}};

// Bytes of an element; 0 if there is no such dtype.
int DTypeBytes(absl::string_view dtype) {
  for (const auto& [name, bytes] : kDTypes) {
    if (name == dtype) return bytes;
  }
  return 0;
}

// A tensor's place, in bytes from the start of the data.
struct Extent {
  int64_t begin;
  int64_t end;
  std::string name;

  auto operator<=>(const Extent&) const = default;
};

// Parses the header; a name that stands there twice is an error, which
// nlohmann's own parser would hide.
absl::StatusOr<json> ParseHeader(absl::string_view text) {
  std::set<std::string> names;
  std::string twice;
  const json::parser_callback_t see_keys =
      [&](int depth, json::parse_event_t event, json& parsed) {
        if (event == json::parse_event_t::key && depth == 1) {
          const auto& name = parsed.get_ref<const std::string&>();
          if (!names.insert(name).second) twice = name;
        }
        return true;
      };
  json header = json::parse(text.begin(), text.end(), see_keys,
                            /*allow_exceptions=*/false);
  if (header.is_discarded() || !header.is_object()) {
    return absl::DataLossError(absl::StrCat(
        "needs a JSON object as header, its ", text.size(), " bytes are none"));
  }
  if (!twice.empty()) {
    return absl::DataLossError(
        absl::StrCat("tensor ", twice, ": needs one entry, found two"));
  }
  return header;
}

absl::StatusOr<std::vector<int64_t>> ReadInts(const json& entry,
                                              const char* key) {
  const auto it = entry.find(key);
  std::vector<int64_t> ints;
  bool valid = it != entry.end() && it->is_array();
  for (size_t i = 0; valid && i < it->size(); ++i) {
    // Numbers that are not negative parse as unsigned.
    valid = (*it)[i].is_number_unsigned() &&
            (*it)[i].get<uint64_t>() <= uint64_t{INT64_MAX};
    if (valid) ints.push_back((*it)[i].get<int64_t>());
  }
  if (valid) return ints;
  return absl::DataLossError(
      absl::StrCat(key, ": needs a list of whole numbers, found ",
                   it == entry.end() ? "nothing" : ShowJson(*it)));
}

// Bytes that dtype and shape ask for; -1 if they are more than 2^63.
int64_t BytesOf(int dtype_bytes, std::span<const int64_t> shape) {
  int64_t bytes = dtype_bytes;
  for (const int64_t size : shape) {
    if (__builtin_mul_overflow(bytes, size, &bytes)) return -1;
  }
  return bytes;
}

absl::StatusOr<StoredTensor> ReadEntry(const json& entry,
                                       std::span<const std::byte> data,
                                       Extent& extent) {
  if (!entry.is_object()) {
    return absl::DataLossError(
        absl::StrCat("needs an object, found ", ShowJson(entry)));
  }
  StoredTensor tensor;
  const auto dtype = entry.find("dtype");
  if (dtype != entry.end() && dtype->is_string()) {
    tensor.dtype = dtype->get<std::string>();
  }
  const int dtype_bytes = DTypeBytes(tensor.dtype);
  if (dtype_bytes == 0) {
    return absl::DataLossError(
        absl::StrCat("dtype: needs BF16, F32 or another known one, found ",
                     dtype == entry.end() ? "nothing" : ShowJson(*dtype)));
  }
  ASSIGN_OR_RETURN(tensor.shape, ReadInts(entry, "shape"));
  ASSIGN_OR_RETURN(const std::vector<int64_t> offsets,
                   ReadInts(entry, "data_offsets"));
  if (offsets.size() != 2 || offsets[0] > offsets[1]) {
    return absl::DataLossError(
        absl::StrCat("data_offsets: needs [begin, end] with begin <= end, "
                     "found ",
                     FormatShape(offsets)));
  }
  extent.begin = offsets[0];
  extent.end = offsets[1];
  if (extent.end > static_cast<int64_t>(data.size())) {
    return absl::DataLossError(absl::StrCat("needs data to byte ", extent.end,
                                            ", found ", data.size(), " bytes"));
  }
  const int64_t needed = BytesOf(dtype_bytes, tensor.shape);
  if (needed != extent.end - extent.begin) {
    return absl::DataLossError(absl::StrCat(
        "needs ", needed < 0 ? "over 2^63" : absl::StrCat(needed),
        " bytes for ", tensor.dtype, " ", FormatShape(tensor.shape),
        ", found data_offsets of ", extent.end - extent.begin));
  }
  tensor.data = data.subspan(extent.begin, extent.end - extent.begin);
  return tensor;
}

// Tensors fill the data from its first byte to its last, side by side.
absl::Status CheckExtents(std::vector<Extent> extents, int64_t data_bytes) {
  std::sort(extents.begin(), extents.end());
  int64_t end = 0;
  for (const Extent& extent : extents) {
    if (extent.begin != end) {
      return absl::DataLossError(absl::StrCat(
          "tensor ", extent.name, ": needs data from byte ", end,
          " where the one before it ends, found byte ", extent.begin,
          extent.begin < end ? " (they overlap)" : " (a gap)"));
    }
    end = extent.end;
  }
  if (end != data_bytes) {
    return absl::DataLossError(
        absl::StrCat("needs ", end, " bytes of data, found ", data_bytes));
  }
  return absl::OkStatus();
}

absl::StatusOr<std::map<std::string, StoredTensor>> ReadTensors(
    const json& header, std::span<const std::byte> data) {
  std::map<std::string, StoredTensor> tensors;
  std::vector<Extent> extents;
  for (const auto& [name, entry] : header.items()) {
    if (name == "__metadata__") continue;
    Extent extent{.begin = 0, .end = 0, .name = name};
    absl::StatusOr<StoredTensor> tensor = ReadEntry(entry, data, extent);
    if (!tensor.ok()) {
      return absl::DataLossError(
          absl::StrCat("tensor ", name, ": ", tensor.status().message()));
    }
    tensors.emplace(name, *std::move(tensor));
    extents.push_back(std::move(extent));
  }
  RETURN_IF_ERROR(
      CheckExtents(std::move(extents), static_cast<int64_t>(data.size())));
  return tensors;
}

absl::StatusOr<absl::string_view> HeaderOf(std::span<const std::byte> file) {
  const auto file_bytes = static_cast<int64_t>(file.size());
  if (file_bytes < kLengthBytes) {
    return absl::DataLossError(absl::StrCat(
        "needs ", kLengthBytes, " bytes or more, found ", file_bytes));
  }
  uint64_t header_bytes = 0;
  memcpy(&header_bytes, file.data(), kLengthBytes);
  const int64_t limit =
      std::min(file_bytes - kLengthBytes, SafetensorsFile::kMaxHeaderBytes);
  if (header_bytes > static_cast<uint64_t>(limit)) {
    return absl::DataLossError(absl::StrCat(
        "needs a header of at most ", limit, " bytes (the file has ",
        file_bytes, "), found a length of ", header_bytes));
  }
  return absl::string_view(
      reinterpret_cast<const char*>(file.data()) + kLengthBytes, header_bytes);
}

}  // namespace

std::string FormatShape(std::span<const int64_t> shape) {
  return absl::StrCat("[", absl::StrJoin(shape, ", "), "]");
}

absl::StatusOr<std::unique_ptr<SafetensorsFile>> SafetensorsFile::Open(
    const std::string& path) {
  std::unique_ptr<SafetensorsFile> result(new SafetensorsFile());
  ASSIGN_OR_RETURN(result->file_, MappedFile::Open(path));
  const auto read = [&result]() -> absl::Status {
    const std::span<const std::byte> bytes = result->file_->data();
    ASSIGN_OR_RETURN(result->header_, HeaderOf(bytes));
    ASSIGN_OR_RETURN(const json header, ParseHeader(result->header_));
    ASSIGN_OR_RETURN(
        result->tensors_,
        ReadTensors(header,
                    bytes.subspan(kLengthBytes + result->header_.size())));
    return absl::OkStatus();
  };
  if (const absl::Status status = read(); !status.ok()) {
    return absl::DataLossError(absl::StrCat(path, ": ", status.message()));
  }
  return result;
}

const StoredTensor* SafetensorsFile::Find(absl::string_view name) const {
  const auto it = tensors_.find(std::string(name));
  return it == tensors_.end() ? nullptr : &it->second;
}

}  // namespace lapidary
