#include "router/text/tokenizer_tables.h"

#include <algorithm>
#include <optional>
#include <string>
#include <utility>

#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/string_view.h"
#include "common/status_macros.h"
#include "router/text/utf8.h"

namespace lapidary {
namespace {

constexpr absl::string_view kSpaceMarkText = "▁";

char32_t FirstChar(absl::string_view text) {
  const std::optional<Utf8Char> c = DecodeUtf8Char(text, 0);
  return c.has_value() ? c->code_point : 0;
}

char32_t LastChar(absl::string_view text) {
  size_t begin = text.size() - 1;
  while (begin > 0 &&
         (static_cast<unsigned char>(text[begin]) & 0xC0) == 0x80) {
    --begin;
  }
  return FirstChar(text.substr(begin));
}

// Fills the tables, a step after the other.
class TablesBuilder {
 public:
  TablesBuilder(const TokenizerJson& json, TokenizerTables& tables)
      : json_(json), tables_(tables) {}

  absl::Status Build() {
    RETURN_IF_ERROR(PlaceTokens());
    RETURN_IF_ERROR(FindByteTokens());
    SpellTokens();
    return AddMerges();
  }

 private:
  // Gives each id its spelling.
  absl::Status PlaceTokens() {
    const size_t num_vocab = json_.vocab.size();
    spellings_.resize(num_vocab + json_.added_tokens.size());
    tables_.kinds.assign(spellings_.size(), TokenKind::kText);
    ids_.reserve(num_vocab);
    for (size_t i = 0; i < num_vocab; ++i) {
      RETURN_IF_ERROR(Place(json_.vocab_ids[i], json_.vocab[i]));
      ids_[json_.vocab[i]] = json_.vocab_ids[i];
    }
    for (const auto& [content, id] : json_.added_tokens) {
      RETURN_IF_ERROR(Place(id, content));
      tables_.kinds[id] = TokenKind::kControl;
      tables_.controls.Add(content, id);
    }
    while (!spellings_.empty() && spellings_.back().empty()) {
      spellings_.pop_back();
    }
    tables_.kinds.resize(spellings_.size());
    for (size_t id = 0; id < spellings_.size(); ++id) {
      if (spellings_[id].empty()) {
        return absl::InvalidArgumentError(
            absl::StrCat("needs a token for each id below ", spellings_.size(),
                         ", none has id ", id));
      }
    }
    return absl::OkStatus();
  }

  absl::Status Place(TokenId id, absl::string_view spelling) {
    if (static_cast<size_t>(id) >= spellings_.size()) {
      return absl::InvalidArgumentError(
          absl::StrCat("needs ids without gaps, token \"", spelling, "\" of ",
                       spellings_.size(), " has id ", id));
    }
    if (!spellings_[id].empty() && spellings_[id] != spelling) {
      return absl::InvalidArgumentError(
          absl::StrCat("needs one token an id, id ", id, " is \"",
                       spellings_[id], "\" and \"", spelling, "\""));
    }
    spellings_[id] = spelling;
    return absl::OkStatus();
  }

  absl::Status FindByteTokens() {
    for (int byte = 0; byte < TokenizerTables::kNumBytes; ++byte) {
      const std::string spelling = absl::StrFormat("<0x%02X>", byte);
      const auto it = ids_.find(spelling);
      if (it == ids_.end()) {
        return absl::InvalidArgumentError(
            absl::StrCat("model.vocab: needs 256 byte tokens, \"", spelling,
                         "\" is not there"));
      }
      tables_.byte_tokens[byte] = it->second;
      tables_.kinds[it->second] = TokenKind::kByte;
    }
    return absl::OkStatus();
  }

  // What each token stands for, and which tokens are single characters.
  void SpellTokens() {
    std::array<TokenId, TokenizerTables::kNumBytes>& byte_tokens =
        tables_.byte_tokens;
    absl::flat_hash_map<TokenId, char> bytes;
    for (int byte = 0; byte < TokenizerTables::kNumBytes; ++byte) {
      bytes[byte_tokens[byte]] = static_cast<char>(byte);
    }
    for (size_t id = 0; id < spellings_.size(); ++id) {
      // A text may hold a space as the three bytes of "▁".
      tables_.max_token_bytes = std::max(
          tables_.max_token_bytes, static_cast<int>(spellings_[id].size()));
      switch (tables_.kinds[id]) {
        case TokenKind::kByte:
          tables_.bytes.Add(absl::string_view(&bytes[id], 1));
          break;
        case TokenKind::kControl:
          tables_.bytes.Add(spellings_[id]);
          break;
        case TokenKind::kText:
          tables_.bytes.Add(
              absl::StrReplaceAll(spellings_[id], {{kSpaceMarkText, " "}}));
          AddChar(static_cast<TokenId>(id));
          break;
      }
    }
    tables_.bytes.ShrinkToFit();
  }

  void AddChar(TokenId id) {
    const std::optional<Utf8Char> c = DecodeUtf8Char(spellings_[id], 0);
    if (!c.has_value() || spellings_[id].size() != c->num_bytes + 0u) return;
    std::vector<TokenId>& chars = tables_.char_tokens;
    if (c->code_point >= chars.size()) {
      chars.resize(c->code_point + 1, TokenizerTables::kNoToken);
    }
    chars[c->code_point] = id;
    if (c->code_point == kSpaceMark) chars[' '] = id;
  }

  absl::Status AddMerges() {
    for (size_t i = 0; i < json_.merges.size(); i += 2) {
      const absl::string_view left = json_.merges[i];
      const absl::string_view right = json_.merges[i + 1];
      const auto left_id = ids_.find(left);
      const auto right_id = ids_.find(right);
      const auto token = ids_.find(absl::StrCat(left, right));
      if (left_id == ids_.end() || right_id == ids_.end() ||
          token == ids_.end()) {
        return absl::InvalidArgumentError(
            absl::StrCat("model.merges[", i / 2, "]: needs \"", left, "\", \"",
                         right, "\" and both together in model.vocab"));
      }
      // A byte token stands for a byte of any character, so that the borders
      // between pieces could not be told from characters.
      if (tables_.kinds[left_id->second] == TokenKind::kByte ||
          tables_.kinds[right_id->second] == TokenKind::kByte) {
        return absl::InvalidArgumentError(absl::StrCat(
            "model.merges[", i / 2, "]: needs tokens of text, found \"", left,
            "\" and \"", right, "\""));
      }
      tables_.merges.Add(
          left_id->second, right_id->second,
          {.rank = static_cast<int32_t>(i / 2), .token = token->second});
      tables_.splitter.AddMerge(LastChar(left), FirstChar(right));
    }
    return absl::OkStatus();
  }

  const TokenizerJson& json_;
  TokenizerTables& tables_;
  std::vector<absl::string_view> spellings_;  // By id; empty where none is.
  absl::flat_hash_map<absl::string_view, TokenId> ids_;  // By spelling.
};

}  // namespace

absl::StatusOr<std::unique_ptr<const TokenizerTables>> BuildTokenizerTables(
    const TokenizerJson& json) {
  auto tables = std::make_unique<TokenizerTables>(json.merges.size() / 2);
  RETURN_IF_ERROR(TablesBuilder(json, *tables).Build());
  return tables;
}

}  // namespace lapidary
