#include "tools/document_builder.h"

#include <algorithm>
#include <numeric>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"

namespace lapidary {
namespace {

constexpr int kMinTokens = 256;

// The next number of the sequence that starts at `state`: splitmix64.
uint64_t NextRandom(uint64_t& state) {
  state += 0x9E3779B97F4A7C15u;
  uint64_t z = state;
  z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
  z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
  return z ^ (z >> 31);
}

std::vector<size_t> Order(size_t count) {
  std::vector<size_t> order(count);
  std::iota(order.begin(), order.end(), size_t{0});
  return order;
}

void Shuffle(uint64_t& state, std::vector<size_t>& order) {
  for (size_t i = order.size(); i > 1; --i) {
    std::swap(order[i - 1], order[NextRandom(state) % i]);
  }
}

// Whether a sentence ends before the word at `i`.
bool StartsSentence(const std::vector<absl::string_view>& words, size_t i) {
  if (i == 0) return false;
  const char last = words[i - 1].back();
  return (last == '.' || last == '?' || last == '!') &&
         words[i - 1].size() > 2 && absl::ascii_isupper(words[i].front());
}

Paragraph SplitSentences(absl::string_view text) {
  const std::vector<absl::string_view> words =
      absl::StrSplit(text, absl::ByAnyChar(" \t\r\n\f"), absl::SkipEmpty());
  Paragraph sentences;
  for (size_t i = 0; i < words.size(); ++i) {
    if (i == 0 || StartsSentence(words, i)) {
      sentences.emplace_back(words[i]);
    } else {
      absl::StrAppend(&sentences.back(), " ", words[i]);
    }
  }
  return sentences;
}

std::string TextOf(const Paragraph& paragraph) {
  return absl::StrCat(absl::StrJoin(paragraph, "\n"), "\n\n");
}

int CountTokens(const Tokenizer& tokenizer, absl::string_view text) {
  const TextSpan literal{0, text.size()};
  return static_cast<int>(tokenizer.Encode(text, {&literal, 1}).size());
}

// Appends the leading sentences of `paragraph` that `budget` has room for.
void AppendSentences(const Paragraph& paragraph, const Tokenizer& tokenizer,
                     int budget, std::vector<std::string>& texts) {
  Paragraph part;
  for (const std::string& sentence : paragraph) {
    part.push_back(sentence);
    if (CountTokens(tokenizer, TextOf(part)) > budget) {
      part.pop_back();
      break;
    }
  }
  if (!part.empty()) texts.push_back(TextOf(part));
}

// Paragraphs, and the first sentences of one more, of `budget` tokens in all.
std::vector<std::string> Fill(const std::vector<Paragraph>& paragraphs,
                              const Tokenizer& tokenizer, uint64_t seed,
                              int budget) {
  std::vector<int> costs;
  for (const Paragraph& paragraph : paragraphs) {
    costs.push_back(CountTokens(tokenizer, TextOf(paragraph)));
  }
  std::vector<std::string> texts;
  for (std::vector<size_t> order = Order(paragraphs.size());;
       Shuffle(seed, order)) {
    for (const size_t i : order) {
      if (costs[i] > budget) {
        AppendSentences(paragraphs[i], tokenizer, budget, texts);
        return texts;
      }
      texts.push_back(TextOf(paragraphs[i]));
      budget -= costs[i];
    }
  }
}

absl::Status Check(const std::vector<Paragraph>& paragraphs,
                   const DocumentOptions& options) {
  if (paragraphs.empty()) {
    return absl::InvalidArgumentError(
        "needs texts with paragraphs, found none");
  }
  if (options.tokens < kMinTokens) {
    return absl::InvalidArgumentError(
        absl::StrCat("a document needs at least ", kMinTokens,
                     " tokens, found ", options.tokens));
  }
  if (!(options.depth_percent >= 0 && options.depth_percent <= 100)) {
    return absl::InvalidArgumentError(absl::StrCat(
        "the depth needs to be in [0, 100], found ", options.depth_percent));
  }
  if (options.fact.empty() || absl::StrContains(options.fact, '\n')) {
    return absl::InvalidArgumentError("the fact needs to be one line of text");
  }
  return absl::OkStatus();
}

}  // namespace

std::vector<Paragraph> SplitParagraphs(absl::string_view text) {
  std::vector<Paragraph> paragraphs;
  std::string lines;
  const auto end_paragraph = [&] {
    if (std::any_of(lines.begin(), lines.end(), absl::ascii_isalpha)) {
      paragraphs.push_back(SplitSentences(lines));
    }
    lines.clear();
  };
  for (const absl::string_view line : absl::StrSplit(text, '\n')) {
    if (absl::StripAsciiWhitespace(line).empty()) {
      end_paragraph();
    } else {
      absl::StrAppend(&lines, line, " ");
    }
  }
  end_paragraph();
  return paragraphs;
}

absl::StatusOr<Document> BuildDocument(const std::vector<Paragraph>& paragraphs,
                                       const Tokenizer& tokenizer,
                                       const DocumentOptions& options) {
  if (absl::Status status = Check(paragraphs, options); !status.ok()) {
    return status;
  }
  const std::string fact = TextOf({options.fact});
  const int budget = options.tokens - CountTokens(tokenizer, fact);
  std::vector<std::string> texts =
      Fill(paragraphs, tokenizer, options.seed, std::max(budget, 0));
  if (texts.empty()) {
    return absl::InvalidArgumentError(
        absl::StrCat("the fact leaves ", budget, " of ", options.tokens,
                     " tokens for the document: too few for a sentence"));
  }
  size_t bytes = 0;
  for (const std::string& text : texts) bytes += text.size();
  const double bytes_before = bytes * options.depth_percent / 100;

  Document document;
  bool placed = false;
  const auto place_fact = [&] {
    document.fact_tokens = CountTokens(tokenizer, document.text);
    absl::StrAppend(&document.text, fact);
    placed = true;
  };
  for (const std::string& text : texts) {
    if (!placed && document.text.size() + text.size() / 2.0 > bytes_before) {
      place_fact();
    }
    absl::StrAppend(&document.text, text);
  }
  if (!placed) place_fact();
  document.tokens = CountTokens(tokenizer, document.text);
  return document;
}

}  // namespace lapidary
