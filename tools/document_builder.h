// Long documents of known length with a fact hidden in them.
//
//   paragraph of a text           one sentence a line
//   paragraph of a text
//   The access code of …          the fact, a paragraph of its own
//   paragraph of a text
//   …
//
// Beyond the length of the texts their paragraphs come again, shuffled.

#ifndef TOOLS_DOCUMENT_BUILDER_H_
#define TOOLS_DOCUMENT_BUILDER_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "router/text/tokenizer.h"

namespace lapidary {

// A paragraph: its sentences, each one line.
using Paragraph = std::vector<std::string>;

// The paragraphs of `text`, which blank lines part.  Joins wrapped lines, runs
// of white space become one space, and drops paragraphs without a letter.
std::vector<Paragraph> SplitParagraphs(absl::string_view text);

struct DocumentOptions {
  int tokens = 0;             // The document's length, at most.
  double depth_percent = 50;  // Where the fact stands: 0 first, 100 last.
  std::string fact{};         // One line.
  uint64_t seed = 1;          // Orders the paragraphs that come again.
};

struct Document {
  std::string text;
  int tokens = 0;       // Of `text`; short of what was asked by a sentence.
  int fact_tokens = 0;  // Tokens before the fact.
};

// The same inputs give the same document.
//
// Errors: INVALID_ARGUMENT if there are no paragraphs, if the fact is empty or
// not one line, if the depth is not in [0, 100], or if `tokens` is less than
// the fact and a few sentences need.
absl::StatusOr<Document> BuildDocument(const std::vector<Paragraph>& paragraphs,
                                       const Tokenizer& tokenizer,
                                       const DocumentOptions& options);

}  // namespace lapidary

#endif  // TOOLS_DOCUMENT_BUILDER_H_
