#include "tests/parity/test_checkpoint.h"

#include <filesystem>

#include "absl/status/status.h"
#include "glog/logging.h"
#include "gtest/gtest.h"
#include "tools/checkpoint_writer.h"

namespace lapidary {

std::string WriteTestCheckpoint(const std::string& name,
                                const std::string& config_path, uint64_t seed) {
  CheckpointOptions options;
  options.output = ::testing::TempDir() + "/" + name;
  // What an earlier run of the same test left.
  std::filesystem::remove_all(options.output);
  const absl::Status status = WriteRuleCheckpoint(config_path, seed, options);
  CHECK(status.ok()) << status;
  return options.output;
}

}  // namespace lapidary
