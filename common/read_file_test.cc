#include "common/read_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <fstream>

#include "absl/strings/str_cat.h"
#include "common/testing/status_matchers.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace lapidary {
namespace {

using ::testing::HasSubstr;

std::string Path(const std::string& name) {
  return absl::StrCat(::testing::TempDir(), "/", name);
}

std::string Write(const std::string& name, const std::string& bytes) {
  std::ofstream(Path(name), std::ios::binary) << bytes;
  return Path(name);
}

TEST(ReadFileTest, ReadsBytesAsTheyAre) {
  const std::string bytes("a\0b\r\n", 5);
  EXPECT_THAT(ReadFile(Write("bytes", bytes)), IsOkAndHolds(bytes));
}

TEST(ReadFileTest, ReadsFilesOfManyParts) {
  std::string bytes;
  for (int i = 0; i < 300'000; ++i) bytes.push_back(static_cast<char>(i % 251));
  EXPECT_THAT(ReadFile(Write("large", bytes)), IsOkAndHolds(bytes));
}

TEST(ReadFileTest, AnEmptyFileIsNoError) {
  EXPECT_THAT(ReadFile(Write("empty", "")), IsOkAndHolds(""));
}

TEST(ReadFileTest, ReadsFilesThatHaveNoSize) {
  EXPECT_THAT(ReadFile("/proc/self/status"), IsOkAndHolds(HasSubstr("VmRSS")));
}

TEST(ReadFileTest, NamesTheFileThatIsMissing) {
  EXPECT_THAT(ReadFile("/no/such/file"), StatusIs(absl::StatusCode::kNotFound,
                                                  HasSubstr("/no/such/file")));
}

// Reading one used to end the program.
TEST(ReadFileTest, RefusesADirectory) {
  EXPECT_THAT(ReadFile(::testing::TempDir()),
              StatusIs(absl::StatusCode::kFailedPrecondition,
                       HasSubstr("needs a regular file, it is a directory")));
}

TEST(ReadFileTest, RefusesAPipeThatNobodyWritesTo) {
  ASSERT_EQ(mkfifo(Path("pipe").c_str(), 0600), 0);
  EXPECT_THAT(ReadFile(Path("pipe")),
              StatusIs(absl::StatusCode::kFailedPrecondition,
                       HasSubstr("needs a regular file, it is a pipe")));
}

TEST(ReadFileTest, RefusesAFileAboveTheBound) {
  const std::string path = Write("bound", "12345");
  EXPECT_THAT(ReadFile(path, 5), IsOkAndHolds("12345"));
  EXPECT_THAT(ReadFile(path, 4),
              StatusIs(absl::StatusCode::kResourceExhausted,
                       HasSubstr("bound: needs at most 4 bytes")));
}

TEST(ReadToEndTest, ReadsAPipe) {
  int ends[2];
  ASSERT_EQ(pipe(ends), 0);
  ASSERT_EQ(write(ends[1], "abc", 3), 3);
  close(ends[1]);
  EXPECT_THAT(ReadToEnd(ends[0], "standard input", 3), IsOkAndHolds("abc"));
  close(ends[0]);
}

TEST(ReadToEndTest, RefusesAPipeWithMoreThanTheBound) {
  int ends[2];
  ASSERT_EQ(pipe(ends), 0);
  ASSERT_EQ(write(ends[1], "abc", 3), 3);
  close(ends[1]);
  EXPECT_THAT(ReadToEnd(ends[0], "standard input", 2),
              StatusIs(absl::StatusCode::kResourceExhausted,
                       HasSubstr("standard input: needs at most 2 bytes")));
  close(ends[0]);
}

TEST(ReadToEndTest, AFailingReadIsAnError) {
  const int directory = open("/", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  ASSERT_GE(directory, 0);
  EXPECT_THAT(ReadToEnd(directory, "standard input", 1).status().message(),
              HasSubstr("standard input: Is a directory"));
  close(directory);
}

}  // namespace
}  // namespace lapidary
