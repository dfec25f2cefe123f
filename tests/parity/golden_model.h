// The models with stored reference logits, their checkpoints written by rule
// into the test's temporary folder.

#ifndef TESTS_PARITY_GOLDEN_MODEL_H_
#define TESTS_PARITY_GOLDEN_MODEL_H_

#include <functional>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "common/generation_config.h"
#include "common/tokens.h"
#include "kernels/cpu/cpu_backend.h"
#include "kernels/tensor.h"
#include "tools/in_process_group.h"
#include "tools/parity_cases.h"
#include "tools/sequence_driver.h"
#include "worker/loader/safetensors.h"
#include "worker/model/loaded_model.h"

namespace lapidary {

// "Fp32" or "Bf16": for names of tests.
std::string NameOf(DType compute);

// A model that is ready to run sequences.
struct GoldenRun {
  std::unique_ptr<LoadedModel> model;
  std::unique_ptr<SequenceDriver> driver;
};

// The same of several ranks, a thread each.
struct GoldenGroup {
  std::unique_ptr<InProcessGroup> group;
  std::unique_ptr<SequenceDriver> driver;
};

// Logits by position.
using LogitsByPosition = std::map<int, std::vector<float>>;

// Immutable.  A failure to set it up ends the test program.
class GoldenModel {
 public:
  // The one of this name in tests/testdata/models; made at the first call.
  static const GoldenModel& Get(const std::string& name);

  const std::vector<ParityCase>& cases() const { return cases_; }
  const ParityCase& Case(const std::string& id) const;
  const SafetensorsFile& reference() const { return *reference_; }
  const std::vector<TokenId>& suppressed() const {
    return generation_.suppress_tokens;
  }
  // Of its testdata.
  std::string Path(const std::string& file) const;

  struct RunOptions {
    DType compute = DType::kF32;
    CpuOptions cpu = {};
    int max_step_tokens = 0;
    int max_tokens = 0;  // Of a sequence.
    int max_sequences = 1;
  };
  GoldenRun Start(const RunOptions& options) const;

  struct GroupOptions {
    DType compute = DType::kF32;
    int num_ranks = 1;
    int max_step_tokens = 512;
    int max_logit_rows = 64;
    int max_range_tokens = 0;  // As Gemma::Options.
    int gather_pages = 256;
    int replica_pages = 0;
    int max_tokens = 0;  // Of a sequence.
    int max_sequences = 1;
  };
  GoldenGroup StartGroup(const GroupOptions& options) const;

 private:
  explicit GoldenModel(const std::string& name);

  const std::string name_;
  std::string checkpoint_dir_;
  std::vector<ParityCase> cases_;
  std::unique_ptr<SafetensorsFile> reference_;
  GenerationConfig generation_;
};

// Runs a case's prompt in steps of at most `chunk` tokens.
LogitsByPosition RunPrompt(const GoldenRun& run, const ParityCase& parity_case,
                           int chunk);

// Runs the rest of `sequence` as `schedule` says.
LogitsByPosition RunRest(SequenceDriver& driver,
                         SequenceDriver::Sequence& sequence,
                         const SequenceDriver::Schedule& schedule,
                         std::span<const int> positions);

}  // namespace lapidary

#endif  // TESTS_PARITY_GOLDEN_MODEL_H_
