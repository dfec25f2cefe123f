// Measures prefill and decode of a model beside the machine's ceilings.

#include <algorithm>
#include <cstdio>
#include <string>
#include <vector>

#include "absl/flags/flag.h"
#include "absl/status/status.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_split.h"
#include "common/command_line.h"
#include "common/status_macros.h"
#include "nlohmann/json.hpp"
#include "tools/model_benchmark.h"
#include "tools/model_flags.h"
#include "worker/model/loaded_model.h"

ABSL_FLAG(std::string, prompt, "512,8192",
          "prompt lengths to prefill; empty: none");
ABSL_FLAG(int, decode, 64, "steps to decode; 0: none");
ABSL_FLAG(std::string, depth, "0,8192", "positions before what is measured");
ABSL_FLAG(std::string, batch, "1,8", "sequences that decode together");
ABSL_FLAG(int, chunk, 512, "prompt tokens a step");

namespace lapidary {
namespace {

constexpr char kUsage[] = R"(measures prefill and decode speed of a model.

  bench_model --model DIR --prompt 512,8192 --decode 64 --depth 0,8192
              --batch 1,8 --threads N

JSON lines.  Each prompt is prefilled at each depth, each batch decodes at each
depth.  Shares are of what the machine reached in the same run, between the
steps: matmul_share and step_share of the rate of dot products, read_share of
the bandwidth of reading.  What lies before the depth is filled with random
numbers, not computed.

tools/testdata/12b_layers.config.json makes, with make_checkpoint, a model of
six layers of the 12B's shapes.)";

// Errors: INVALID_ARGUMENT, naming the flag.
absl::StatusOr<std::vector<int>> ParseNumbers(absl::string_view flag,
                                              const std::string& text,
                                              int smallest) {
  std::vector<int> numbers;
  for (const absl::string_view part :
       absl::StrSplit(text, ',', absl::SkipEmpty())) {
    int number = 0;
    if (!absl::SimpleAtoi(part, &number) || number < smallest) {
      return absl::InvalidArgumentError(
          absl::StrCat("--", flag, " needs numbers from ", smallest,
                       " on, separated by commas, it has '", part, "'"));
    }
    numbers.push_back(number);
  }
  return numbers;
}

int Largest(const std::vector<int>& numbers, int at_least) {
  for (const int number : numbers) at_least = std::max(at_least, number);
  return at_least;
}

// Rounds to four digits, which is more than a measurement is good for.
double Short(double value) {
  double rounded = value;
  return absl::SimpleAtod(absl::StrFormat("%.4g", value), &rounded) ? rounded
                                                                    : value;
}

void Print(const nlohmann::ordered_json& line) {
  std::puts(line.dump().c_str());
  std::fflush(stdout);
}

void PrintModel(LoadedModel& model, const ModelOptions& options, int chunk) {
  const GemmaConfig& config = model.config();
  Print({{"kind", "model"},
         {"model", options.model_dir},
         {"backend", model.backend().Description()},
         {"compute", options.compute == DType::kF32 ? "fp32" : "bf16"},
         {"layers", config.num_layers()},
         {"hidden_size", config.hidden_size},
         {"vocabulary", config.vocab_size},
         {"image_bytes", model.statistics().image.image_bytes},
         {"chunk", chunk}});
}

void PrintPrefill(const PrefillSpeed& speed) {
  Print({{"kind", "prefill"},
         {"prompt", speed.prompt},
         {"depth", speed.depth},
         {"seconds", Short(speed.seconds)},
         {"tokens_per_second", Short(speed.tokens_per_second)},
         {"matmul_gflops", Short(speed.matmul_operations_per_second / 1e9)},
         {"probe_gflops", Short(speed.probe_operations_per_second / 1e9)},
         {"matmul_share", Short(speed.matmul_share)},
         {"step_share", Short(speed.step_share)},
         {"matmul_part", Short(speed.matmul_part)},
         {"attend_part", Short(speed.attend_part)}});
}

void PrintDecode(const DecodeSpeed& speed) {
  Print({{"kind", "decode"},
         {"depth", speed.depth},
         {"batch", speed.batch},
         {"steps", speed.steps},
         {"step_seconds", Short(speed.step_seconds)},
         {"tokens_per_second", Short(speed.tokens_per_second)},
         {"read_gb_per_second", Short(speed.read_bytes_per_second / 1e9)},
         {"probe_gb_per_second", Short(speed.probe_bytes_per_second / 1e9)},
         {"read_share", Short(speed.read_share)},
         {"matmul_part", Short(speed.matmul_part)},
         {"attend_part", Short(speed.attend_part)}});
}

absl::Status RunAll() {
  ASSIGN_OR_RETURN(const std::vector<int> prompts,
                   ParseNumbers("prompt", absl::GetFlag(FLAGS_prompt), 1));
  ASSIGN_OR_RETURN(const std::vector<int> depths,
                   ParseNumbers("depth", absl::GetFlag(FLAGS_depth), 0));
  ASSIGN_OR_RETURN(const std::vector<int> batches,
                   ParseNumbers("batch", absl::GetFlag(FLAGS_batch), 1));
  const int steps = absl::GetFlag(FLAGS_decode);
  const int chunk = absl::GetFlag(FLAGS_chunk);
  if (steps < 0)
    return absl::InvalidArgumentError("--decode must not be negative");
  if (chunk <= 0) return absl::InvalidArgumentError("--chunk must be positive");

  ASSIGN_OR_RETURN(const ModelOptions model_options, ModelOptionsFromFlags());
  ASSIGN_OR_RETURN(const auto model, LoadedModel::Load(model_options));
  PrintModel(*model, model_options, chunk);
  ModelBenchmark::Options options;
  options.compute = model_options.compute;
  options.cpu = model_options.cpu;
  options.max_depth = Largest(depths, 0);
  options.max_batch = Largest(batches, 1);
  options.max_prompt = Largest(prompts, std::max(1, steps));
  options.chunk = std::min(chunk, options.max_prompt);
  ASSIGN_OR_RETURN(const auto benchmark,
                   ModelBenchmark::Create(*model, options));
  for (const int depth : depths) {
    for (const int prompt : prompts) {
      ASSIGN_OR_RETURN(const PrefillSpeed speed,
                       benchmark->Prefill(prompt, depth));
      PrintPrefill(speed);
    }
    for (const int batch : batches) {
      if (steps == 0) continue;
      ASSIGN_OR_RETURN(const DecodeSpeed speed,
                       benchmark->Decode(steps, depth, batch));
      PrintDecode(speed);
    }
  }
  return absl::OkStatus();
}

}  // namespace
}  // namespace lapidary

int main(int argc, char** argv) {
  lapidary::ParseFlags(lapidary::kUsage, argc, argv);
  const absl::Status status = lapidary::RunAll();
  if (!status.ok()) {
    absl::FPrintF(stderr, "bench_model: %s\n", status.message());
    return 1;
  }
  return 0;
}
