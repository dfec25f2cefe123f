#include "tests/parity/small_group.h"

#include <fstream>
#include <utility>

#include "absl/status/statusor.h"
#include "common/tokens.h"
#include "glog/logging.h"
#include "gtest/gtest.h"
#include "tests/parity/test_checkpoint.h"

namespace lapidary {
namespace {

template <typename T>
T ValueOrDie(absl::StatusOr<T> value) {
  CHECK(value.ok()) << value.status();
  return *std::move(value);
}

}  // namespace

SmallModel::SmallModel(const std::string& name, const SmallConfig& config,
                       int seed)
    : config_(config) {
  const std::string path = ::testing::TempDir() + "/" + name + ".json";
  std::ofstream(path) << ConfigJson(config);
  checkpoint_dir_ = WriteTestCheckpoint(name, path, seed);
}

SmallGroup SmallModel::Start(const Options& options) const {
  const int pages = NumPages(options.max_tokens);
  const int max_step_tokens = options.max_sequences * pages * kPageTokens;
  SmallGroup small;
  small.group = ValueOrDie(InProcessGroup::Load(
      {.model_dir = checkpoint_dir_,
       .image_dir = checkpoint_dir_,
       .compute = options.compute,
       .cpu = {.threads = 1},
       .max_step_tokens = max_step_tokens,
       .max_logit_rows = options.max_logit_rows > 0 ? options.max_logit_rows
                                                    : max_step_tokens,
       .max_range_tokens = pages * kPageTokens,
       .gather_pages = options.gather_pages},
      options.num_ranks));
  const bool replica = options.replica == SequenceDriver::Replica::kUse;
  small.driver =
      ValueOrDie(SequenceDriver::Create(*small.group,
                                        {.max_sequences = options.max_sequences,
                                         .max_tokens = options.max_tokens,
                                         .max_step_tokens = options.max_tokens,
                                         .num_ranks = options.num_ranks},
                                        replica ? pages : 0));
  return small;
}

}  // namespace lapidary
