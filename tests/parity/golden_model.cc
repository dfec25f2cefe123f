#include "tests/parity/golden_model.h"

#include <algorithm>
#include <cstdlib>
#include <span>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/read_file.h"
#include "glog/logging.h"
#include "nlohmann/json.hpp"
#include "tests/parity/test_checkpoint.h"

namespace lapidary {
namespace {

constexpr char kModels[] = "tests/testdata/models/";

template <typename T>
T ValueOrDie(absl::StatusOr<T> value) {
  CHECK(value.ok()) << value.status();
  return *std::move(value);
}

uint64_t SeedOf(const std::string& tensors_json) {
  const nlohmann::json json =
      nlohmann::json::parse(ValueOrDie(ReadFile(tensors_json)), nullptr,
                            /*allow_exceptions=*/false);
  CHECK(json.is_object() && json.contains("seed")) << tensors_json;
  return json["seed"].get<uint64_t>();
}

}  // namespace

std::string NameOf(DType compute) {
  return compute == DType::kF32 ? "Fp32" : "Bf16";
}

const GoldenModel& GoldenModel::Get(const std::string& name) {
  static auto& models = *new std::map<std::string, const GoldenModel*>;
  const GoldenModel*& model = models[name];
  if (model == nullptr) model = new GoldenModel(name);
  return *model;
}

GoldenModel::GoldenModel(const std::string& name)
    : name_(name),
      cases_(ValueOrDie(ReadParityCases(Path("cases.json")))),
      reference_(
          ValueOrDie(SafetensorsFile::Open(Path("reference.safetensors")))),
      generation_(ValueOrDie(ReadGenerationConfig(kModels + name))) {
  checkpoint_dir_ = WriteTestCheckpoint(name, Path("config.json"),
                                        SeedOf(Path("tensors.json")));
}

std::string GoldenModel::Path(const std::string& file) const {
  return kModels + name_ + "/" + file;
}

const ParityCase& GoldenModel::Case(const std::string& id) const {
  const auto it = std::find_if(
      cases_.begin(), cases_.end(),
      [&](const ParityCase& parity_case) { return parity_case.id == id; });
  CHECK(it != cases_.end()) << name_ << " has no case " << id;
  return *it;
}

GoldenRun GoldenModel::Start(const RunOptions& options) const {
  GoldenRun run;
  run.model = ValueOrDie(LoadedModel::Load(
      {.model_dir = checkpoint_dir_,
       .image_dir = checkpoint_dir_,
       .compute = options.compute,
       .cpu = options.cpu,
       .max_step_tokens = options.max_step_tokens * options.max_sequences}));
  run.driver = ValueOrDie(SequenceDriver::Create(
      *run.model, {.max_sequences = options.max_sequences,
                   .max_tokens = options.max_tokens,
                   .max_step_tokens = options.max_step_tokens}));
  return run;
}

GoldenGroup GoldenModel::StartGroup(const GroupOptions& options) const {
  GoldenGroup run;
  run.group = ValueOrDie(
      InProcessGroup::Load({.model_dir = checkpoint_dir_,
                            .image_dir = checkpoint_dir_,
                            .compute = options.compute,
                            .cpu = {.threads = 1},
                            .max_step_tokens = options.max_step_tokens,
                            .max_logit_rows = options.max_logit_rows,
                            .max_range_tokens = options.max_range_tokens,
                            .gather_pages = options.gather_pages},
                           options.num_ranks));
  run.driver = ValueOrDie(
      SequenceDriver::Create(*run.group,
                             {.max_sequences = options.max_sequences,
                              .max_tokens = options.max_tokens,
                              .max_step_tokens = options.max_step_tokens,
                              .num_ranks = options.num_ranks},
                             options.replica_pages));
  return run;
}

LogitsByPosition RunPrompt(const GoldenRun& run, const ParityCase& parity_case,
                           int chunk) {
  SequenceDriver::Sequence sequence =
      run.driver->NewSequence(parity_case.tokens);
  return RunRest(*run.driver, sequence, {.chunk = chunk},
                 parity_case.positions);
}

LogitsByPosition RunRest(SequenceDriver& driver,
                         SequenceDriver::Sequence& sequence,
                         const SequenceDriver::Schedule& schedule,
                         std::span<const int> positions) {
  LogitsByPosition result;
  const absl::Status status =
      driver.Prefill(sequence, schedule, positions,
                     [&](int position, std::span<const float> logits) {
                       result[position].assign(logits.begin(), logits.end());
                     });
  CHECK(status.ok()) << status;
  return result;
}

}  // namespace lapidary
