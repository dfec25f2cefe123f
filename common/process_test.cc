#include "common/process.h"

#include <signal.h>
#include <unistd.h>

#include <fstream>
#include <sstream>
#include <string>
#include <thread>

#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "common/testing/status_matchers.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace lapidary {
namespace {

using ::testing::HasSubstr;

TEST(ShutdownWaiterTest, WaitsForASignal) {
  ShutdownWaiter waiter;
  ASSERT_EQ(kill(getpid(), SIGTERM), 0);
  EXPECT_EQ(waiter.Wait(absl::InfiniteDuration()),
            ShutdownWaiter::Reason::kSignal);
}

TEST(ShutdownWaiterTest, WaitsForAnotherThread) {
  ShutdownWaiter waiter;
  std::thread other([&] { waiter.Wake(); });
  EXPECT_EQ(waiter.Wait(absl::InfiniteDuration()),
            ShutdownWaiter::Reason::kWoken);
  other.join();
}

TEST(ShutdownWaiterTest, StopsWaitingAtTheTimeout) {
  ShutdownWaiter waiter;
  EXPECT_EQ(waiter.Wait(absl::Milliseconds(1)),
            ShutdownWaiter::Reason::kTimeout);
}

TEST(ProcessTest, KnowsItsPeakMemory) {
  EXPECT_GT(PeakResidentBytes(), 1 << 20);
}

TEST(WriteFileAtomicallyTest, ReplacesAFile) {
  const std::string path = absl::StrCat(testing::TempDir(), "/ports");
  ASSERT_OK(WriteFileAtomically(path, "first, and longer"));
  ASSERT_OK(WriteFileAtomically(path, "second"));
  std::stringstream contents;
  contents << std::ifstream(path).rdbuf();
  EXPECT_EQ(contents.str(), "second");
}

TEST(WriteFileAtomicallyTest, SaysWhichPathAndWhy) {
  EXPECT_THAT(WriteFileAtomically("/nowhere/ports", "x"),
              StatusIs(absl::StatusCode::kUnavailable,
                       HasSubstr("No such file or directory")));
}

}  // namespace
}  // namespace lapidary
