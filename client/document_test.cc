#include "client/document.h"

#include <fstream>

#include "absl/strings/str_cat.h"
#include "common/testing/status_matchers.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace lapidary {
namespace {

using ::testing::HasSubstr;

std::string Write(const std::string& name, const std::string& text) {
  const std::string path = absl::StrCat(::testing::TempDir(), "/", name);
  std::ofstream(path, std::ios::binary) << text;
  return path;
}

TEST(DocumentTest, IsTheTextOfTheFile) {
  EXPECT_THAT(ReadDocument(Write("document", "a\nb")), IsOkAndHolds("a\nb"));
}

// Reading one used to end the client.
TEST(DocumentTest, ADirectoryIsNone) {
  EXPECT_THAT(ReadDocument("/"),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       "--file /: needs a regular file, it is a directory"));
}

TEST(DocumentTest, AnEmptyFileIsNone) {
  EXPECT_THAT(ReadDocument(Write("empty", "")),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       HasSubstr("empty: needs a text, it is empty")));
}

TEST(DocumentTest, AMissingFileIsNone) {
  EXPECT_THAT(ReadDocument("/no/such/file"),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       HasSubstr("--file /no/such/file: No such file")));
}

}  // namespace
}  // namespace lapidary
