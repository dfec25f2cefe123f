#include "router/text/tokenizer.h"

#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "common/read_file.h"
#include "common/status_macros.h"
#include "glog/logging.h"
#include "router/text/piece_encoder.h"
#include "router/text/tokenizer_json.h"
#include "router/text/tokenizer_tables.h"
#include "router/text/utf8.h"

namespace lapidary {

Tokenizer::Tokenizer(std::unique_ptr<const TokenizerTables> tables)
    : tables_(std::move(tables)) {}

Tokenizer::~Tokenizer() = default;

absl::StatusOr<std::unique_ptr<Tokenizer>> Tokenizer::Load(
    const std::string& path) {
  ASSIGN_OR_RETURN(const std::string json, ReadFile(path));
  absl::StatusOr<std::unique_ptr<Tokenizer>> tokenizer = Parse(json);
  if (tokenizer.ok()) return tokenizer;
  return absl::Status(tokenizer.status().code(),
                      absl::StrCat(path, ": ", tokenizer.status().message()));
}

absl::StatusOr<std::unique_ptr<Tokenizer>> Tokenizer::Parse(
    absl::string_view json) {
  ASSIGN_OR_RETURN(const TokenizerJson parsed, ParseTokenizerJson(json));
  ASSIGN_OR_RETURN(std::unique_ptr<const TokenizerTables> tables,
                   BuildTokenizerTables(parsed));
  return std::unique_ptr<Tokenizer>(new Tokenizer(std::move(tables)));
}

std::vector<TokenId> Tokenizer::Encode(
    absl::string_view text, std::span<const TextSpan> literal) const {
  std::vector<TokenId> ids;
  ids.reserve(text.size() / 4 + 16);
  PieceEncoder encoder(*tables_, text.size());
  size_t segment = 0;  // Begin of the text that is not encoded yet.
  const auto match_controls = [&](size_t begin, size_t end) {
    while (const auto match =
               tables_->controls.FindFirst(text.substr(0, end), begin)) {
      encoder.Encode(text.substr(segment, match->begin - segment), ids);
      ids.push_back(match->token);
      segment = begin = match->end;
    }
  };
  size_t gap = 0;  // Begin of the text between two literal spans.
  for (const TextSpan& span : literal) {
    CHECK(gap <= span.begin && span.begin <= span.end &&
          span.end <= text.size())
        << "literal spans out of order: [" << span.begin << ", " << span.end
        << ") after " << gap << " of " << text.size();
    if (span.begin == span.end) continue;
    match_controls(gap, span.begin);
    gap = span.end;
  }
  match_controls(gap, text.size());
  encoder.Encode(text.substr(segment), ids);
  return ids;
}

std::string Tokenizer::Decode(std::span<const TokenId> ids) const {
  std::string text;
  std::string byte_run;
  for (const TokenId id : ids) {
    if (IsByte(id)) {
      absl::StrAppend(&byte_run, TokenBytes(id));
      continue;
    }
    absl::StrAppend(&text, DecodeByteRun(byte_run), TokenBytes(id));
    byte_run.clear();
  }
  return absl::StrCat(text, DecodeByteRun(byte_run));
}

absl::string_view Tokenizer::TokenBytes(TokenId id) const {
  CHECK(id >= 0 && id < vocab_size()) << "token id " << id;
  return tables_->bytes[id];
}

bool Tokenizer::IsByte(TokenId id) const {
  CHECK(id >= 0 && id < vocab_size()) << "token id " << id;
  return tables_->kinds[id] == TokenKind::kByte;
}

bool Tokenizer::IsControl(TokenId id) const {
  CHECK(id >= 0 && id < vocab_size()) << "token id " << id;
  return tables_->kinds[id] == TokenKind::kControl;
}

std::optional<TokenId> Tokenizer::ControlToken(
    absl::string_view content) const {
  return tables_->controls.Find(content);
}

int Tokenizer::vocab_size() const {
  return static_cast<int>(tables_->bytes.size());
}

int Tokenizer::max_token_bytes() const { return tables_->max_token_bytes; }

}  // namespace lapidary
