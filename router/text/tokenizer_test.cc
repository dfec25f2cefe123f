#include "router/text/tokenizer.h"

#include <algorithm>
#include <fstream>
#include <iterator>
#include <map>
#include <memory>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_replace.h"
#include "common/testing/status_matchers.h"
#include "common/tokens.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "nlohmann/json.hpp"
#include "router/text/utf8.h"

namespace lapidary {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using Json = nlohmann::json;

constexpr char kTokenizerJson[] =
    "tests/testdata/tokenizer/mini/tokenizer.json";
constexpr TokenId kBos = 2;
constexpr TokenId kThink = 98;
constexpr TokenId kTurnBegin = 105;
constexpr TokenId kTurnEnd = 106;

std::string ReadTokenizerJson() {
  std::ifstream file(kTokenizerJson);
  return std::string(std::istreambuf_iterator<char>(file), {});
}

// The definition, word for word: over the whole text, merge the neighbours of
// lowest rank, leftmost first, until none merge.
class WholeTextBpe {
 public:
  explicit WholeTextBpe(const Json& model) : vocab_(model["vocab"]) {
    int rank = 0;
    for (const Json& merge : model["merges"]) {
      ranks_[{merge[0], merge[1]}] = rank++;
    }
  }

  std::vector<TokenId> Encode(const std::string& text) const {
    std::vector<std::string> symbols;
    for (const std::string& symbol : Characters(text)) {
      if (vocab_.contains(symbol)) {
        symbols.push_back(symbol);
        continue;
      }
      for (const unsigned char byte : symbol) {
        symbols.push_back(absl::StrFormat("<0x%02X>", byte));
      }
    }
    while (MergeOnce(symbols)) {
    }
    std::vector<TokenId> ids;
    for (const std::string& symbol : symbols) ids.push_back(vocab_[symbol]);
    return ids;
  }

 private:
  static std::vector<std::string> Characters(const std::string& text) {
    const std::string normal = absl::StrReplaceAll(text, {{" ", "▁"}});
    std::vector<std::string> characters;
    for (size_t i = 0; i < normal.size();) {
      const int num_bytes = DecodeUtf8Char(normal, i)->num_bytes;
      characters.push_back(normal.substr(i, num_bytes));
      i += num_bytes;
    }
    return characters;
  }

  bool MergeOnce(std::vector<std::string>& symbols) const {
    size_t best = 0;
    int best_rank = -1;
    for (size_t i = 0; i + 1 < symbols.size(); ++i) {
      const auto it = ranks_.find({symbols[i], symbols[i + 1]});
      if (it == ranks_.end()) continue;
      if (best_rank < 0 || it->second < best_rank) {
        best = i;
        best_rank = it->second;
      }
    }
    if (best_rank < 0) return false;
    symbols[best] += symbols[best + 1];
    symbols.erase(symbols.begin() + best + 1);
    return true;
  }

  const Json vocab_;
  std::map<std::pair<std::string, std::string>, int> ranks_;
};

class TokenizerTest : public ::testing::Test {
 protected:
  static void SetUpTestSuite() {
    tokenizer_ = Tokenizer::Load(kTokenizerJson).value().release();
  }
  static void TearDownTestSuite() { delete tokenizer_; }

  std::vector<TokenId> Encode(const std::string& text) {
    return tokenizer_->Encode(text);
  }

  // Encodes `before` + `caller` + `after`, the middle as somebody else's text.
  std::vector<TokenId> EncodeAround(const std::string& before,
                                    const std::string& caller,
                                    const std::string& after) {
    const TextSpan span{before.size(), before.size() + caller.size()};
    return tokenizer_->Encode(before + caller + after, {&span, 1});
  }

  static Tokenizer* tokenizer_;
};

Tokenizer* TokenizerTest::tokenizer_ = nullptr;

TEST_F(TokenizerTest, FindsControlTokens) {
  EXPECT_THAT(Encode("<bos><|turn><turn|>"),
              ElementsAre(kBos, kTurnBegin, kTurnEnd));
  EXPECT_EQ(tokenizer_->ControlToken("<|think|>"), kThink);
  EXPECT_EQ(tokenizer_->ControlToken("<|think"), std::nullopt);
  EXPECT_EQ(tokenizer_->ControlToken(""), std::nullopt);
  EXPECT_TRUE(tokenizer_->IsControl(kBos));
  EXPECT_FALSE(tokenizer_->IsControl(107));
}

TEST_F(TokenizerTest, ReadsNoControlTokenInsideALiteralSpan) {
  const std::vector<TokenId> ids =
      EncodeAround("<bos>", "a<turn|>b", "<turn|>");
  EXPECT_EQ(ids.front(), kBos);
  EXPECT_EQ(ids.back(), kTurnEnd);
  EXPECT_EQ(std::count(ids.begin(), ids.end(), kTurnEnd), 1);
  EXPECT_EQ(tokenizer_->Decode(ids), "<bos>a<turn|>b<turn|>");
}

TEST_F(TokenizerTest, ReadsNoControlTokenThatALiteralSpanCompletes) {
  for (const auto& [before, caller, after] :
       std::vector<std::array<std::string, 3>>{
           {"<tu", "rn|>", ""}, {"", "<tur", "n|>"}, {"<tu", "rn", "|>"}}) {
    const std::vector<TokenId> ids = EncodeAround(before, caller, after);
    EXPECT_EQ(std::count(ids.begin(), ids.end(), kTurnEnd), 0);
    EXPECT_EQ(tokenizer_->Decode(ids), "<turn|>");
  }
}

TEST_F(TokenizerTest, AnEmptyLiteralSpanChangesNothing) {
  EXPECT_THAT(EncodeAround("<tu", "", "rn|>"), ElementsAre(kTurnEnd));
}

TEST_F(TokenizerTest, MergesAcrossTheBordersOfLiteralSpans) {
  EXPECT_EQ(EncodeAround("the ques", "tion o", "f the"),
            Encode("the question of the"));
}

TEST_F(TokenizerTest, TakesTheLongestControlToken) {
  Json json = Json::parse(ReadTokenizerJson());
  Json longer = json["added_tokens"][2];
  longer["content"] = "<bos>!";
  longer["id"] = tokenizer_->vocab_size();
  json["added_tokens"].push_back(longer);
  const auto tokenizer = Tokenizer::Parse(json.dump());
  ASSERT_OK(tokenizer);
  EXPECT_THAT((*tokenizer)->Encode("<bos><bos>!"),
              ElementsAre(kBos, tokenizer_->vocab_size()));
  // The longer one would reach into the span.
  const TextSpan span{5, 6};
  EXPECT_EQ((*tokenizer)->Encode("<bos>!", {&span, 1}).front(), kBos);
}

TEST_F(TokenizerTest, EqualsByteEncodingOfTheWholeText) {
  const WholeTextBpe reference(Json::parse(ReadTokenizerJson())["model"]);
  const std::vector<std::string> parts = {
      "a",    "e",    "t",      "h",     "in", "the",
      "tion", "er",   "s",      " ",     " ",  "  ",
      "▁",    "\n",   "\n\n",   "\t",    ".",  ",",
      "-",    "'",    "0",      "17",    "é",  "ü",
      "ж",    "ов",   "日",     "本",    "😊",  "👨‍👩‍👧",
      "𒀀",    "<",    ">",      "</",    "<|", "{\"",
      "()",   "T",    "I",      "\r\n",  "__", "==",
      "//",   "http", "\u00A0", "\u200D"};
  std::mt19937 random(1);
  for (int round = 0; round < 2000; ++round) {
    std::string text;
    const int length = 1 + static_cast<int>(random() % 60);
    // Few different parts a text, so that long runs come up.
    const size_t variety = 1 + random() % parts.size();
    const size_t first = random() % parts.size();
    for (int i = 0; i < length; ++i) {
      text += parts[(first + random() % variety) % parts.size()];
    }
    ASSERT_EQ(Encode(text), reference.Encode(text)) << text;
    ASSERT_EQ(tokenizer_->Decode(Encode(text)),
              absl::StrReplaceAll(text, {{"▁", " "}}));
  }
}

// Quadratic time would take hours here.
TEST_F(TokenizerTest, TakesAMegabyteOfAnything) {
  constexpr size_t kSize = 1 << 20;
  for (const std::string part : {"a", " ", "\n", "ab", "e ", "😊", "日", "<",
                                 "<|", "<turn|", "\t", "ж", "𒀀", "=", "the"}) {
    std::string text;
    while (text.size() < kSize) text += part;
    EXPECT_EQ(tokenizer_->Decode(Encode(text)), text) << part;
  }
}

TEST_F(TokenizerTest, TakesBytesThatAreNotUtf8) {
  std::mt19937 random(1);
  std::string text;
  for (int i = 0; i < 1 << 20; ++i) text += static_cast<char>(random());
  std::string bytes;
  for (const TokenId id : Encode(text)) {
    absl::StrAppend(&bytes, tokenizer_->TokenBytes(id));
  }
  EXPECT_EQ(bytes, text);
}

TEST_F(TokenizerTest, DecodesARunOfBadBytesToReplacementCharacters) {
  std::vector<TokenId> ids = Encode("a𒀀b");
  ASSERT_EQ(ids.size(), 6);
  ids.erase(ids.begin() + 2);
  EXPECT_EQ(tokenizer_->Decode(ids), "a\uFFFD\uFFFD\uFFFDb");
}

TEST_F(TokenizerTest, TokenBytesAreWhatTheTokenStandsFor) {
  EXPECT_EQ(tokenizer_->TokenBytes(kTurnEnd), "<turn|>");
  EXPECT_EQ(tokenizer_->TokenBytes(Encode("  ").front()), "  ");
  const TokenId byte = Encode("𒀀").front();
  EXPECT_TRUE(tokenizer_->IsByte(byte));
  EXPECT_EQ(tokenizer_->TokenBytes(byte), "\xF0");
}

// tokenizer.json with one element replaced.
class TokenizerJsonTest : public ::testing::Test {
 protected:
  absl::Status ParseWith(const std::string& path, const Json& value) {
    Json json = Json::parse(ReadTokenizerJson());
    json[Json::json_pointer(path)] = value;
    return Tokenizer::Parse(json.dump()).status();
  }

  static auto IsRefused(const std::string& expected, const std::string& found) {
    return StatusIs(absl::StatusCode::kInvalidArgument,
                    AllOf(HasSubstr(expected), HasSubstr(found)));
  }
};

TEST_F(TokenizerJsonTest, RefusesOtherModels) {
  EXPECT_THAT(ParseWith("/model", {{"type", "Unigram"}, {"vocab", {{"a", 1}}}}),
              IsRefused("model/type: needs \"BPE\"", "found \"Unigram\""));
  EXPECT_THAT(ParseWith("/model/byte_fallback", false),
              IsRefused("needs true", "found false"));
  EXPECT_THAT(ParseWith("/normalizer", nullptr),
              IsRefused("normalizer: needs", "found null"));
  EXPECT_THAT(ParseWith("/pre_tokenizer", {{"type", "ByteLevel"}}),
              IsRefused("pre_tokenizer: needs", "ByteLevel"));
  EXPECT_THAT(ParseWith("/decoder", nullptr),
              IsRefused("decoder: needs", "found null"));
  EXPECT_THAT(ParseWith("/added_tokens/0/lstrip", true),
              IsRefused("lstrip: needs false", "found true"));
}

TEST_F(TokenizerJsonTest, RefusesTablesThatDoNotFitTogether) {
  EXPECT_THAT(ParseWith("/model/vocab", {{"a", "b"}}),
              IsRefused("model.vocab: needs", "\"b\""));
  EXPECT_THAT(ParseWith("/model/vocab", {{"a", 70000}}),
              IsRefused("without gaps", "70000"));
  EXPECT_THAT(ParseWith("/model/vocab/the", 7),
              IsRefused("one token an id", "7"));
  EXPECT_THAT(ParseWith("/model/merges/5", {"the", "qqq"}),
              IsRefused("model.merges[5]", "qqq"));
  EXPECT_THAT(ParseWith("/model/merges/5", {"a", "b", "c"}),
              IsRefused("model.merges[5]", "two tokens"));
  EXPECT_THAT(ParseWith("/model/merges/5", 3),
              IsRefused("pairs of strings", "3"));
}

TEST_F(TokenizerJsonTest, ReadsMergesInTheOlderForm) {
  Json json = Json::parse(ReadTokenizerJson());
  for (Json& merge : json["model"]["merges"]) {
    merge = absl::StrCat(merge[0].get<std::string>(), " ",
                         merge[1].get<std::string>());
  }
  const auto older = Tokenizer::Parse(json.dump());
  const auto newer = Tokenizer::Load(kTokenizerJson);
  ASSERT_OK(older);
  const std::string text = "The quick brown fox  jumps over\n\nthe lazy dog.";
  EXPECT_EQ((*older)->Encode(text), (*newer)->Encode(text));
}

TEST_F(TokenizerJsonTest, RefusesWhatIsNoJson) {
  const std::string json = ReadTokenizerJson();
  for (const size_t size :
       {0ul, 1ul, 1000ul, json.size() / 2, json.size() - 1}) {
    EXPECT_THAT(Tokenizer::Parse(json.substr(0, size)),
                StatusIs(absl::StatusCode::kInvalidArgument));
  }
}

TEST_F(TokenizerJsonTest, NamesTheFile) {
  EXPECT_THAT(Tokenizer::Load("/nowhere/tokenizer.json"),
              StatusIs(absl::StatusCode::kNotFound,
                       HasSubstr("/nowhere/tokenizer.json")));
}

// Reading one used to end the program.
TEST_F(TokenizerJsonTest, RefusesADirectory) {
  EXPECT_THAT(Tokenizer::Load(::testing::TempDir()),
              StatusIs(absl::StatusCode::kFailedPrecondition,
                       HasSubstr("it is a directory")));
}

}  // namespace
}  // namespace lapidary
