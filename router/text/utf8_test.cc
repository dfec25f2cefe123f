#include "router/text/utf8.h"

#include <string>

#include "absl/status/status.h"
#include "common/testing/status_matchers.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace lapidary {
namespace {

using ::testing::HasSubstr;

TEST(Utf8Test, EveryCharacterSurvivesARoundTrip) {
  for (char32_t c = 0; c <= 0x10FFFF; ++c) {
    if (c >= 0xD800 && c <= 0xDFFF) continue;
    std::string text;
    AppendUtf8(c, text);
    ASSERT_OK(ValidateUtf8(text)) << static_cast<uint32_t>(c);
    const auto decoded = DecodeUtf8Char(text, 0);
    ASSERT_TRUE(decoded.has_value()) << static_cast<uint32_t>(c);
    ASSERT_EQ(decoded->code_point, c);
    ASSERT_EQ(decoded->num_bytes, static_cast<int>(text.size()));
  }
}

TEST(Utf8Test, NamesTheOffsetOfTheBadByte) {
  EXPECT_THAT(ValidateUtf8("caf\xC3\xA9 \xFF!"),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       HasSubstr("0xff at offset 6")));
}

TEST(Utf8Test, RefusesWhatIsNotWellFormed) {
  for (const std::string bad : {
           "\x80",              // No lead byte.
           "\xC3",              // Cut off.
           "\xE2\x96",          // Cut off.
           "\xF0\x9F\x98",      // Cut off.
           "\xC0\x80",          // Overlong.
           "\xC1\xBF",          // Overlong.
           "\xE0\x80\x80",      // Overlong.
           "\xF0\x80\x80\x80",  // Overlong.
           "\xED\xA0\x80",      // Surrogate.
           "\xF4\x90\x80\x80",  // Beyond U+10FFFF.
           "\xF5\x80\x80\x80",  // Beyond U+10FFFF.
           "\xE2\x28\xA1",      // No continuation.
       }) {
    EXPECT_THAT(ValidateUtf8(bad), StatusIs(absl::StatusCode::kInvalidArgument))
        << ::testing::PrintToString(bad);
  }
}

TEST(Utf8Test, TrimsUnicodeWhiteSpace) {
  EXPECT_EQ(TrimUnicode("\u3000 \n\u00A0a b\u2003\x1C\t"), "a b");
  EXPECT_EQ(TrimUnicode(" \u2028 "), "");
  EXPECT_EQ(TrimUnicode("\u200Bx\u200B"), "\u200Bx\u200B");  // No white space.
}

TEST(Utf8Test, LowersLettersOfManyScripts) {
  EXPECT_EQ(LowerUnicode("AbZ ÄÖŸ ΑΩ КЛЮЧ ԱՖ Ḁ Ａ 𐐀 ß 1"),
            "abz äöÿ αω ключ աֆ ḁ ａ 𐐨 ß 1");
}

}  // namespace
}  // namespace lapidary
