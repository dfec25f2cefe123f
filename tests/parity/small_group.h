// Groups of ranks over generated configs, in one process.

#ifndef TESTS_PARITY_SMALL_GROUP_H_
#define TESTS_PARITY_SMALL_GROUP_H_

#include <memory>
#include <string>

#include "kernels/tensor.h"
#include "tests/parity/reference_model.h"
#include "tools/in_process_group.h"
#include "tools/sequence_driver.h"

namespace lapidary {

// A group that is ready to run sequences.
struct SmallGroup {
  std::unique_ptr<InProcessGroup> group;
  std::unique_ptr<SequenceDriver> driver;
};

// A checkpoint of a config, with weights by rule.  A failure ends the test
// program.
class SmallModel {
 public:
  // It lies in a folder `name` of the test's temporary folder.
  SmallModel(const std::string& name, const SmallConfig& config, int seed);

  const SmallConfig& config() const { return config_; }

  struct Options {
    DType compute = DType::kF32;
    int num_ranks = 1;
    int max_tokens = 0;  // Of a sequence, a step of it and a rank's range.
    int max_sequences = 1;
    int max_logit_rows = 0;  // Of a step; 0: all of its tokens.
    int gather_pages = 256;
    SequenceDriver::Replica replica = SequenceDriver::Replica::kUse;
  };
  SmallGroup Start(const Options& options) const;

 private:
  const SmallConfig config_;
  std::string checkpoint_dir_;
};

}  // namespace lapidary

#endif  // TESTS_PARITY_SMALL_GROUP_H_
