#include "worker/loader/memory_check.h"

#include <filesystem>
#include <fstream>

#include "common/testing/status_matchers.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace lapidary {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

constexpr int64_t kMiB = 1 << 20;

// A machine whose /proc and /sys are files of ours.
class MemoryCheckTest : public ::testing::Test {
 protected:
  MemoryCheckTest() {
    std::filesystem::remove_all(root_);
    Write("/proc/meminfo", "MemTotal: 9999 kB\nMemAvailable:   1048576 kB\n");
  }

  void Write(const std::string& path, const std::string& text) {
    const std::filesystem::path full = root_ + path;
    std::filesystem::create_directories(full.parent_path());
    std::ofstream(full) << text;
  }

  const std::string root_ = ::testing::TempDir() + "/machine";
};

TEST_F(MemoryCheckTest, ReadsWhatTheMachineHas) {
  EXPECT_THAT(AvailableMemory(root_), IsOkAndHolds(1024 * kMiB));
}

TEST_F(MemoryCheckTest, ReadsThisMachine) {
  const auto available = AvailableMemory();
  ASSERT_OK(available);
  EXPECT_GT(*available, 0);
}

TEST_F(MemoryCheckTest, TakesTheLeastOfNestedGroups) {
  Write("/proc/self/cgroup", "0::/pod/container\n");
  Write("/sys/fs/cgroup/pod/memory.max", "524288000\n");
  Write("/sys/fs/cgroup/pod/memory.current", "104857600\n");
  Write("/sys/fs/cgroup/pod/container/memory.max", "max\n");
  Write("/sys/fs/cgroup/pod/container/memory.current", "104857600\n");
  EXPECT_THAT(AvailableMemory(root_), IsOkAndHolds(400 * kMiB));
}

TEST_F(MemoryCheckTest, CountsCachedFilesAsFree) {
  Write("/proc/self/cgroup", "0::/\n");
  Write("/sys/fs/cgroup/memory.max", "524288000\n");
  Write("/sys/fs/cgroup/memory.current", "104857600\n");
  Write("/sys/fs/cgroup/memory.stat",
        "anon 1\nactive_file 31457280\ninactive_file 20971520\n");
  EXPECT_THAT(AvailableMemory(root_), IsOkAndHolds(450 * kMiB));
}

TEST_F(MemoryCheckTest, ReadsGroupsOfVersion1) {
  Write("/proc/self/cgroup", "5:cpu:/a\n4:memory:/docker/x\n");
  Write("/sys/fs/cgroup/memory/docker/x/memory.limit_in_bytes", "209715200\n");
  Write("/sys/fs/cgroup/memory/docker/x/memory.usage_in_bytes", "104857600\n");
  EXPECT_THAT(AvailableMemory(root_), IsOkAndHolds(100 * kMiB));
}

TEST_F(MemoryCheckTest, NamesBothFigures) {
  EXPECT_OK(CheckMemory(1024 * kMiB, "weights", root_));
  EXPECT_THAT(
      CheckMemory(3072 * kMiB, "the weights", root_),
      StatusIs(absl::StatusCode::kResourceExhausted,
               AllOf(HasSubstr("needs 3.00 GiB"), HasSubstr("for the weights"),
                     HasSubstr("1.00 GiB available"))));
}

TEST_F(MemoryCheckTest, NeedsMeminfo) {
  Write("/proc/meminfo", "nothing\n");
  EXPECT_THAT(AvailableMemory(root_),
              StatusIs(absl::StatusCode::kInternal, HasSubstr("meminfo")));
}

}  // namespace
}  // namespace lapidary
