// Text to token ids and back, as JSON lines.

#include <iostream>
#include <string>
#include <vector>

#include "absl/flags/flag.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "common/command_line.h"
#include "common/tokens.h"
#include "nlohmann/json.hpp"
#include "router/text/tokenizer.h"
#include "tools/json_lines.h"

ABSL_FLAG(std::string, tokenizer, "", "the tokenizer.json to use");
ABSL_FLAG(bool, decode, false, "read {\"ids\"} and write {\"text\"}");

namespace lapidary {
namespace {

using Json = nlohmann::json;

constexpr char kUsage[] =
    R"(reads a line {"text": …} each, writes {"ids": […]}; with --decode the
other way.

  echo '{"text": "Hello"}' | tokenize --tokenizer DIR/tokenizer.json

Control tokens in the text are read as such; no <bos> is added.  A bad line ends
the program with exit code 1 and a message that names the line.)";

absl::StatusOr<Json> Encode(const Tokenizer& tokenizer, const Json& line) {
  const auto text = line.find("text");
  if (text == line.end() || !text->is_string()) {
    return absl::InvalidArgumentError("text: needs a string");
  }
  return Json{{"ids", tokenizer.Encode(text->get_ref<const std::string&>())}};
}

absl::StatusOr<Json> Decode(const Tokenizer& tokenizer, const Json& line) {
  const auto ids = line.find("ids");
  if (ids == line.end() || !ids->is_array()) {
    return absl::InvalidArgumentError("ids: needs an array of token ids");
  }
  std::vector<TokenId> tokens;
  for (const Json& id : *ids) {
    if (!id.is_number_unsigned() ||
        id.get<uint64_t>() >= static_cast<uint64_t>(tokenizer.vocab_size())) {
      return absl::InvalidArgumentError(
          absl::StrCat("ids[", tokens.size(), "]: needs 0 to ",
                       tokenizer.vocab_size() - 1, ", found ", id.dump()));
    }
    tokens.push_back(id.get<TokenId>());
  }
  return Json{{"text", tokenizer.Decode(tokens)}};
}

int Main(int argc, char** argv) {
  ParseFlags(kUsage, argc, argv);
  const std::string path = absl::GetFlag(FLAGS_tokenizer);
  if (path.empty()) {
    std::cerr << "tokenize: needs --tokenizer FILE" << std::endl;
    return 1;
  }
  const auto tokenizer = Tokenizer::Load(path);
  if (!tokenizer.ok()) {
    std::cerr << "tokenize: " << tokenizer.status().message() << std::endl;
    return 1;
  }
  const auto answer = absl::GetFlag(FLAGS_decode) ? Decode : Encode;
  return AnswerStandardInput(
      "tokenize", [&](const Json& line) { return answer(**tokenizer, line); });
}

}  // namespace
}  // namespace lapidary

int main(int argc, char** argv) { return lapidary::Main(argc, argv); }
