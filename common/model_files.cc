#include "common/model_files.h"

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "common/json_fields.h"
#include "common/read_file.h"
#include "common/status_macros.h"
#include "xxhash.h"

namespace lapidary {
namespace {

std::string HexDigest(const std::string& bytes) {
  const XXH128_hash_t hash = XXH3_128bits(bytes.data(), bytes.size());
  return absl::StrFormat("%016x%016x", hash.high64, hash.low64);
}

}  // namespace

absl::StatusOr<ModelDigests> DigestModelFiles(const std::string& directory) {
  const std::string config_path = directory + "/config.json";
  ASSIGN_OR_RETURN(const std::string config, ReadFile(config_path));
  const absl::StatusOr<nlohmann::json> parsed = ParseJsonObject(config);
  if (!parsed.ok()) {
    return absl::InvalidArgumentError(
        absl::StrCat(config_path, ": ", parsed.status().message()));
  }
  ASSIGN_OR_RETURN(const std::string tokenizer,
                   ReadFile(directory + "/tokenizer.json"));
  // Dumped with sorted keys and without spaces.
  return ModelDigests{
      .config = HexDigest(parsed->dump(
          -1, ' ', false, nlohmann::json::error_handler_t::replace)),
      .tokenizer = HexDigest(tokenizer)};
}

}  // namespace lapidary
