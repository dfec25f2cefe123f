#include "tests/integration/process.h"

#include <signal.h>

#include "absl/time/time.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace lapidary {
namespace {

using ::testing::Eq;
using ::testing::Optional;

std::string LogPath() { return ::testing::TempDir() + "/log"; }

TEST(ProcessTest, TellsTheExitCodeAndTheOutput) {
  const auto process = Process::Start(
      {"/bin/sh", "-c", "echo out; echo err >&2; exit 3"}, LogPath());
  EXPECT_THAT(process->Wait(absl::Minutes(1)), Optional(3));
  EXPECT_EQ(process->Output(), "out\nerr\n");
}

TEST(ProcessTest, TellsTheSignalThatEndedIt) {
  const auto process = Process::Start({"/bin/sleep", "1000"}, LogPath());
  EXPECT_THAT(process->Wait(absl::ZeroDuration()), Eq(std::nullopt));
  process->Signal(SIGTERM);
  EXPECT_THAT(process->Wait(absl::Minutes(1)), Optional(128 + SIGTERM));
}

TEST(ProcessTest, ReadsItsInput) {
  const auto process = Process::Start({"/bin/cat"}, LogPath(), "/dev/null");
  EXPECT_THAT(process->Wait(absl::Minutes(1)), Optional(0));
}

}  // namespace
}  // namespace lapidary
