// Writes a long document with a fact hidden in it.

#include <algorithm>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <memory>
#include <string>
#include <system_error>
#include <vector>

#include "absl/flags/flag.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "common/command_line.h"
#include "common/read_file.h"
#include "common/status_macros.h"
#include "router/text/tokenizer.h"
#include "tools/document_builder.h"
#include "tools/recall_rule.h"

ABSL_FLAG(std::string, source, "/usr/share/common-licenses",
          "folder of the texts, taken in the order of their names");
ABSL_FLAG(std::string, tokenizer, "", "tokenizer.json that counts the tokens");
ABSL_FLAG(int32_t, tokens, 16384, "length of the document in tokens");
ABSL_FLAG(double, depth, 50, "where the fact stands, in percent");
ABSL_FLAG(std::string, fact, "", "the line to hide");
ABSL_FLAG(uint64_t, seed, 1, "orders paragraphs that come more than once");
ABSL_FLAG(std::string, output, "", "the file to write");
ABSL_FLAG(
    std::string, question, "",
    "print what the recall checkpoint answers to this after the document");

namespace lapidary {
namespace {

constexpr char kUsage[] =
    R"(writes a document of the wanted length with a fact hidden in it.

  make_document --tokenizer FILE --tokens 16384 --depth 50 \
      --fact "The access code is 1234." --output document.txt

Says on stderr what it made.  With --question it prints the right answer to
stdout, or says why the recall checkpoint cannot answer it.)";

absl::StatusOr<std::vector<Paragraph>> ReadTexts(const std::string& folder) {
  std::vector<std::filesystem::path> paths;
  std::error_code error;
  for (const auto& entry : std::filesystem::directory_iterator(folder, error)) {
    if (entry.is_regular_file() && !entry.is_symlink()) {
      paths.push_back(entry.path());
    }
  }
  if (error || paths.empty()) {
    return absl::NotFoundError(
        absl::StrCat("needs a folder of texts in --source ", folder, ": ",
                     error ? error.message() : "it holds no files"));
  }
  std::sort(paths.begin(), paths.end());
  std::vector<Paragraph> paragraphs;
  for (const auto& path : paths) {
    ASSIGN_OR_RETURN(const std::string text, ReadFile(path.string()));
    const std::vector<Paragraph> more = SplitParagraphs(text);
    paragraphs.insert(paragraphs.end(), more.begin(), more.end());
  }
  return paragraphs;
}

absl::Status Run() {
  const std::string output = absl::GetFlag(FLAGS_output);
  if (output.empty()) {
    return absl::InvalidArgumentError("needs --output FILE");
  }
  ASSIGN_OR_RETURN(const std::unique_ptr<Tokenizer> tokenizer,
                   Tokenizer::Load(absl::GetFlag(FLAGS_tokenizer)));
  ASSIGN_OR_RETURN(const std::vector<Paragraph> paragraphs,
                   ReadTexts(absl::GetFlag(FLAGS_source)));
  ASSIGN_OR_RETURN(const Document document,
                   BuildDocument(paragraphs, *tokenizer,
                                 {.tokens = absl::GetFlag(FLAGS_tokens),
                                  .depth_percent = absl::GetFlag(FLAGS_depth),
                                  .fact = absl::GetFlag(FLAGS_fact),
                                  .seed = absl::GetFlag(FLAGS_seed)}));
  std::ofstream file(output, std::ios::binary);
  file << document.text << std::flush;
  if (!file) {
    return absl::UnavailableError(absl::StrCat("cannot write ", output));
  }
  std::cerr << document.tokens << " tokens, " << document.text.size()
            << " bytes, the fact after token " << document.fact_tokens
            << std::endl;
  const std::string question = absl::GetFlag(FLAGS_question);
  if (question.empty()) return absl::OkStatus();
  ASSIGN_OR_RETURN(const std::string answer,
                   RecallAnswer(*tokenizer, document.text, question));
  std::cout << answer << std::endl;
  return absl::OkStatus();
}

}  // namespace
}  // namespace lapidary

int main(int argc, char** argv) {
  lapidary::ParseFlags(lapidary::kUsage, argc, argv);
  const absl::Status status = lapidary::Run();
  if (status.ok()) return 0;
  std::cerr << "make_document: " << status.message() << std::endl;
  return 1;
}
