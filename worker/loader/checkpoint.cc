#include "worker/loader/checkpoint.h"

#include <algorithm>
#include <utility>

#include <sys/stat.h>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "common/json_fields.h"
#include "common/read_file.h"
#include "common/status_macros.h"
#include "xxhash.h"

namespace lapidary {
namespace {

constexpr char kSingleFile[] = "model.safetensors";
constexpr char kIndexFile[] = "model.safetensors.index.json";

constexpr std::array<absl::string_view, 4> kTextPrefixes = {
    "model.language_model.", "model.", "language_model.model.",
    "language_model."};

// Where tensors that stand beside the text model are looked for too: the head
// of a re-saved checkpoint.
constexpr std::array<absl::string_view, 2> kOuterPrefixes = {"",
                                                             "language_model."};

// A digest sees this much at the beginning, middle and end of each tensor.
constexpr size_t kSampleBytes = 4096;

bool Exists(const std::string& path) {
  struct stat status;
  return stat(path.c_str(), &status) == 0;
}

std::vector<int64_t> ShapeOf(const TensorSpec& spec) {
  if (spec.form == TensorForm::kPlain && spec.rows == 1) return {spec.cols};
  return {spec.rows, spec.cols};
}

void HashSamples(std::span<const std::byte> data, XXH3_state_t* state) {
  if (data.size() <= 3 * kSampleBytes) {
    XXH3_128bits_update(state, data.data(), data.size());
    return;
  }
  for (const size_t begin : {size_t{0}, (data.size() - kSampleBytes) / 2,
                             data.size() - kSampleBytes}) {
    XXH3_128bits_update(state, data.data() + begin, kSampleBytes);
  }
}

}  // namespace

absl::StatusOr<std::unique_ptr<Checkpoint>> Checkpoint::Open(
    const std::string& directory, std::span<const TensorSpec> specs) {
  std::unique_ptr<Checkpoint> checkpoint(new Checkpoint());
  checkpoint->directory_ = directory;
  RETURN_IF_ERROR(checkpoint->OpenFiles());
  RETURN_IF_ERROR(checkpoint->FindTensors(specs));
  checkpoint->ComputeDigest();
  return checkpoint;
}

absl::Status Checkpoint::OpenFiles() {
  const std::string single = absl::StrCat(directory_, "/", kSingleFile);
  const std::string index = absl::StrCat(directory_, "/", kIndexFile);
  if (!Exists(single)) {
    if (Exists(index)) return OpenShards(index);
    return absl::NotFoundError(absl::StrCat(directory_, ": needs ", kSingleFile,
                                            " or ", kIndexFile,
                                            ", found neither"));
  }
  ASSIGN_OR_RETURN(std::unique_ptr<SafetensorsFile> file,
                   SafetensorsFile::Open(single));
  for (const auto& [name, tensor] : file->tensors()) {
    locations_[name] = file.get();
  }
  files_[kSingleFile] = std::move(file);
  return absl::OkStatus();
}

absl::Status Checkpoint::OpenShards(const std::string& index_path) {
  ASSIGN_OR_RETURN(const std::string text, ReadFile(index_path));
  const absl::StatusOr<nlohmann::json> index = ParseJsonObject(text);
  if (!index.ok()) {
    return absl::DataLossError(
        absl::StrCat(index_path, ": ", index.status().message()));
  }
  const auto map = index->find("weight_map");
  if (map == index->end() || !map->is_object()) {
    return absl::DataLossError(
        absl::StrCat(index_path, ": weight_map: needs an object, found ",
                     map == index->end() ? "nothing" : ShowJson(*map)));
  }
  for (const auto& [tensor, file] : map->items()) {
    const std::string name = file.is_string() ? file.get<std::string>() : "";
    if (name.empty() || name.find('/') != std::string::npos) {
      return absl::DataLossError(
          absl::StrCat(index_path, ": tensor ", tensor,
                       ": needs the name of a file beside the index, found ",
                       ShowJson(file)));
    }
    std::unique_ptr<SafetensorsFile>& shard = files_[name];
    if (shard == nullptr) {
      const std::string path = absl::StrCat(directory_, "/", name);
      if (!Exists(path)) {
        return absl::NotFoundError(absl::StrCat(
            path, ": needed for tensor ", tensor, ", there is no such file"));
      }
      ASSIGN_OR_RETURN(shard, SafetensorsFile::Open(path));
    }
    if (shard->Find(tensor) == nullptr) {
      return absl::FailedPreconditionError(
          absl::StrCat(shard->file().path(), ": needs tensor ", tensor,
                       ", which ", kIndexFile, " says it has"));
    }
    locations_[tensor] = shard.get();
  }
  return absl::OkStatus();
}

absl::Status Checkpoint::FindTensors(std::span<const TensorSpec> specs) {
  // The first tensor that must be there tells the prefix.
  const auto first =
      std::find_if(specs.begin(), specs.end(),
                   [](const TensorSpec& spec) { return !spec.optional; });
  if (first == specs.end()) return absl::OkStatus();
  const auto prefix = std::find_if(
      kTextPrefixes.begin(), kTextPrefixes.end(), [&](absl::string_view text) {
        return locations_.contains(absl::StrCat(text, first->name));
      });
  if (prefix == kTextPrefixes.end()) {
    return absl::FailedPreconditionError(absl::StrCat(
        directory_, ": needs tensor ", first->name, " after one of \"",
        absl::StrJoin(kTextPrefixes, "\", \""), "\", found it in none of ",
        locations_.size(), " tensors"));
  }
  for (const TensorSpec& spec : specs) {
    std::vector<std::string> names = {absl::StrCat(*prefix, spec.name)};
    for (const absl::string_view outer : kOuterPrefixes) {
      names.push_back(absl::StrCat(outer, spec.name));
    }
    const auto name =
        std::find_if(names.begin(), names.end(), [this](const auto& candidate) {
          return locations_.contains(candidate);
        });
    if (name == names.end()) {
      if (spec.optional) continue;
      return absl::FailedPreconditionError(
          absl::StrCat(directory_, ": needs tensor ", names.front(), " ",
                       FormatShape(ShapeOf(spec)), ", found none"));
    }
    const SafetensorsFile& file = *locations_.at(*name);
    const StoredTensor& tensor = *file.Find(*name);
    if (tensor.dtype != "BF16" || tensor.shape != ShapeOf(spec)) {
      return absl::FailedPreconditionError(
          absl::StrCat(file.file().path(), ": tensor ", *name, ": needs BF16 ",
                       FormatShape(ShapeOf(spec)), ", found ", tensor.dtype,
                       " ", FormatShape(tensor.shape)));
    }
    tensors_[spec.name] = {&file.file(), tensor.data};
    bytes_ += static_cast<int64_t>(tensor.data.size());
  }
  num_ignored_tensors_ = static_cast<int>(locations_.size() - tensors_.size());
  return absl::OkStatus();
}

void Checkpoint::ComputeDigest() {
  const std::unique_ptr<XXH3_state_t, XXH_errorcode (*)(XXH3_state_t*)> state(
      XXH3_createState(), XXH3_freeState);
  XXH3_128bits_reset(state.get());
  const auto update = [&state](const void* bytes, size_t size) {
    XXH3_128bits_update(state.get(), bytes, size);
  };
  for (const auto& [name, file] : files_) {
    const int64_t facts[] = {file->file().bytes(),
                             file->file().modified_nanos()};
    update(name.c_str(), name.size() + 1);
    update(facts, sizeof(facts));
    update(file->header().data(), file->header().size());
  }
  for (const auto& [name, tensor] : tensors_) {
    update(name.c_str(), name.size() + 1);
    HashSamples(tensor.data, state.get());
  }
  XXH128_canonical_t canonical;
  XXH128_canonicalFromHash(&canonical, XXH3_128bits_digest(state.get()));
  static_assert(sizeof(canonical) == sizeof(ImageDigest));
  std::transform(std::begin(canonical.digest), std::end(canonical.digest),
                 digest_.begin(),
                 [](unsigned char byte) { return std::byte{byte}; });
}

const Checkpoint::Tensor* Checkpoint::Find(absl::string_view name) const {
  const auto it = tensors_.find(std::string(name));
  return it == tensors_.end() ? nullptr : &it->second;
}

}  // namespace lapidary
