#include "tools/model_flags.h"

#include <string>

#include "absl/flags/flag.h"
#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "common/status_macros.h"
#include "kernels/cpu/cpu_backend.h"
#include "kernels/cpu/isa.h"

ABSL_FLAG(std::string, model, "",
          "directory of the model: config.json and safetensors");
ABSL_FLAG(std::string, image_dir, "",
          "where the packed weights are kept; default: the model's directory");
ABSL_FLAG(std::string, compute, "bf16", "activations: fp32 or bf16");
ABSL_FLAG(std::string, isa, "auto",
          "instruction set: auto, portable, avx2, avx512 or avx512_bf16");
ABSL_FLAG(int, threads, 0, "threads that compute; 0: one a core");

namespace lapidary {

absl::StatusOr<ModelOptions> ModelOptionsFromFlags() {
  ModelOptions options;
  options.model_dir = absl::GetFlag(FLAGS_model);
  if (options.model_dir.empty()) {
    return absl::InvalidArgumentError("needs --model DIR");
  }
  options.image_dir = absl::GetFlag(FLAGS_image_dir);
  if (options.image_dir.empty()) options.image_dir = options.model_dir;

  const std::string compute = absl::GetFlag(FLAGS_compute);
  if (compute != "fp32" && compute != "bf16") {
    return absl::InvalidArgumentError(
        absl::StrCat("--compute must be fp32 or bf16, it is '", compute, "'"));
  }
  options.compute = compute == "fp32" ? DType::kF32 : DType::kBf16;
  ASSIGN_OR_RETURN(options.cpu.isa, ParseIsa(absl::GetFlag(FLAGS_isa)));
  options.cpu.threads = absl::GetFlag(FLAGS_threads);
  return options;
}

}  // namespace lapidary
