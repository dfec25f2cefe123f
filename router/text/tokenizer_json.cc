#include "router/text/tokenizer_json.h"

#include <array>
#include <cstdint>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "common/status_macros.h"
#include "nlohmann/json.hpp"

namespace lapidary {
namespace {

using Json = nlohmann::json;

// Takes model.vocab and model.merges out of the event stream, so that the JSON
// tree, which holds the rest, stays small.
class LargeTables {
 public:
  explicit LargeTables(TokenizerJson& out) : out_(out) {}

  // For Json::parse(): whether the element stays in the tree.
  bool operator()(int depth, Json::parse_event_t event, Json& element) {
    if (event == Json::parse_event_t::key) {
      if (depth <= kEntryDepth) keys_[depth] = element.get<std::string>();
      return !(depth == kEntryDepth && IsIn("vocab"));
    }
    if (depth < kEntryDepth) return true;
    if (IsIn("vocab")) return TakeVocabEntry(depth, event, element);
    if (IsIn("merges")) return TakeMergeElement(depth, event, element);
    return true;
  }

  absl::Status status() const { return status_; }

 private:
  static constexpr int kEntryDepth = 3;  // Of the elements of both tables.

  bool IsIn(absl::string_view table) const {
    return keys_[1] == "model" && keys_[2] == table;
  }

  bool TakeVocabEntry(int depth, Json::parse_event_t event,
                      const Json& element) {
    if (event != Json::parse_event_t::value) return true;
    if (depth == kEntryDepth && element.is_number_unsigned() &&
        element.get<uint64_t>() <= INT32_MAX) {
      out_.vocab.Add(keys_[kEntryDepth]);
      out_.vocab_ids.push_back(element.get<TokenId>());
    } else {
      Fail(
          absl::StrCat("model.vocab: needs a token's id after each token, "
                       "found ",
                       element.dump(), " after \"", keys_[kEntryDepth], "\""));
    }
    return false;
  }

  // A merge is ["left", "right"] or, in older files, "left right".
  bool TakeMergeElement(int depth, Json::parse_event_t event,
                        const Json& element) {
    if (event == Json::parse_event_t::array_start) return true;
    if (event == Json::parse_event_t::array_end) {
      CheckPair();
      return false;
    }
    if (event != Json::parse_event_t::value || !element.is_string()) {
      Fail(absl::StrCat("model.merges: needs pairs of strings, found ",
                        element.dump()));
      return true;
    }
    const auto& text = element.get_ref<const std::string&>();
    if (depth == kEntryDepth) {
      const size_t space = text.find(' ');
      out_.merges.Add(text.substr(0, space));
      if (space != std::string::npos) out_.merges.Add(text.substr(space + 1));
      CheckPair();
    } else {
      out_.merges.Add(text);
    }
    return false;
  }

  void CheckPair() {
    merge_strings_ += 2;
    if (out_.merges.size() == merge_strings_) return;
    Fail(absl::StrCat("model.merges[", merge_strings_ / 2 - 1,
                      "]: needs two tokens"));
  }

  void Fail(const std::string& message) {
    if (status_.ok()) status_ = absl::InvalidArgumentError(message);
  }

  TokenizerJson& out_;
  std::array<std::string, kEntryDepth + 1> keys_;  // Of the element, by depth.
  size_t merge_strings_ = 0;  // That the merges so far should have added.
  absl::Status status_;
};

// The element at `path`, or null.
const Json& At(const Json& root, const std::string& path) {
  static const Json* const kNull = new Json();
  const Json::json_pointer pointer(path);
  return root.contains(pointer) ? root.at(pointer) : *kNull;
}

absl::Status Expect(const Json& root, const std::string& path,
                    const Json& expected) {
  const Json& found = At(root, path);
  if (found == expected) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat(
      path.substr(1), ": needs ", expected.dump(), ", found ", found.dump()));
}

// As Expect(), but null will do as well.
absl::Status ExpectOrNull(const Json& root, const std::string& path,
                          const Json& expected) {
  if (At(root, path).is_null()) return absl::OkStatus();
  return Expect(root, path, expected);
}

absl::Status CheckModel(const Json& root) {
  RETURN_IF_ERROR(Expect(root, "/model/type", "BPE"));
  RETURN_IF_ERROR(Expect(root, "/model/byte_fallback", true));
  RETURN_IF_ERROR(ExpectOrNull(root, "/model/ignore_merges", false));
  RETURN_IF_ERROR(ExpectOrNull(root, "/model/dropout", 0.0));
  RETURN_IF_ERROR(ExpectOrNull(root, "/model/continuing_subword_prefix", ""));
  return ExpectOrNull(root, "/model/end_of_word_suffix", "");
}

absl::Status CheckPipeline(const Json& root) {
  const Json space_to_mark = {
      {"type", "Replace"}, {"pattern", {{"String", " "}}}, {"content", "▁"}};
  RETURN_IF_ERROR(Expect(root, "/normalizer", space_to_mark));
  // Splits at spaces, of which the normalizer leaves none.
  RETURN_IF_ERROR(ExpectOrNull(root, "/pre_tokenizer",
                               {{"type", "Split"},
                                {"pattern", {{"String", " "}}},
                                {"behavior", "MergedWithPrevious"},
                                {"invert", false}}));
  const Json mark_to_space = {
      {"type", "Replace"}, {"pattern", {{"String", "▁"}}}, {"content", " "}};
  return Expect(
      root, "/decoder",
      {{"type", "Sequence"},
       {"decoders",
        {mark_to_space, {{"type", "ByteFallback"}}, {{"type", "Fuse"}}}}});
}

absl::Status ReadAddedTokens(const Json& root, TokenizerJson& out) {
  const Json& tokens = At(root, "/added_tokens");
  if (!tokens.is_null() && !tokens.is_array()) {
    return absl::InvalidArgumentError("added_tokens: needs an array");
  }
  for (size_t i = 0; i < tokens.size(); ++i) {
    const std::string path = absl::StrCat("/added_tokens/", i);
    const Json& id = At(root, path + "/id");
    const Json& content = At(root, path + "/content");
    if (!id.is_number_unsigned() || id.get<uint64_t>() > INT32_MAX ||
        !content.is_string() || content.get_ref<const std::string&>().empty()) {
      return absl::InvalidArgumentError(
          absl::StrCat(path.substr(1), ": needs an id and a content, found ",
                       tokens[i].dump()));
    }
    for (const char* flag :
         {"/single_word", "/lstrip", "/rstrip", "/normalized"}) {
      RETURN_IF_ERROR(ExpectOrNull(root, path + flag, false));
    }
    out.added_tokens.push_back(
        {.content = content.get<std::string>(), .id = id.get<TokenId>()});
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<TokenizerJson> ParseTokenizerJson(absl::string_view json) {
  TokenizerJson out;
  LargeTables tables(out);
  const Json root = Json::parse(json.begin(), json.end(), std::ref(tables),
                                /*allow_exceptions=*/false);
  if (root.is_discarded() || !root.is_object()) {
    return absl::InvalidArgumentError(absl::StrCat(
        "needs a JSON object, found ", json.size(), " bytes that are none"));
  }
  RETURN_IF_ERROR(CheckModel(root));
  RETURN_IF_ERROR(tables.status());
  RETURN_IF_ERROR(CheckPipeline(root));
  RETURN_IF_ERROR(ReadAddedTokens(root, out));
  return out;
}

}  // namespace lapidary
