// Serves one model to routers: a group of one rank on this machine's CPUs.

#include <cstdlib>
#include <iostream>
#include <memory>
#include <string>

#include "absl/flags/flag.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "common/byte_size.h"
#include "common/command_line.h"
#include "common/logging.h"
#include "common/process.h"
#include "common/status_macros.h"
#include "kernels/cpu/isa.h"
#include "kernels/tensor.h"
#include "worker/worker.h"
#include "worker/worker_options.h"

ABSL_FLAG(std::string, model, "",
          "directory of the model as downloaded: config.json, tokenizer.json, "
          "safetensors");
ABSL_FLAG(std::string, image_dir, "",
          "where the packed weights are kept; default: ~/.cache/lapidary");
ABSL_FLAG(std::string, listen, lapidary::WorkerOptions().listen,
          "HOST:PORT for gRPC; port 0 takes a free one");
ABSL_FLAG(std::string, metrics_listen, lapidary::WorkerOptions().metrics_listen,
          "HOST:PORT for the metrics page; port 0 takes a free one");
ABSL_FLAG(std::string, port_file, "",
          "written once it serves: lines 'rpc HOST:PORT' and 'metrics "
          "HOST:PORT'");
ABSL_FLAG(std::string, compute, "bf16",
          "activations and key/value memory: bf16 or fp32");
ABSL_FLAG(int, threads, lapidary::WorkerOptions().threads,
          "threads that compute; 0: one a core");
ABSL_FLAG(std::string, isa, "auto",
          "instruction set: auto, portable, avx2, avx512 or avx512_bf16");
ABSL_FLAG(std::string, kv_memory, "0",
          "memory for keys and values, such as 4GiB; 0: half of what the "
          "weights leave");
ABSL_FLAG(int, max_sequences, lapidary::WorkerOptions().max_sequences,
          "requests that run at once");
ABSL_FLAG(int, step_tokens, lapidary::WorkerOptions().step_tokens,
          "tokens that a step computes; more: faster prefill, longer gaps in "
          "the streams beside it");
ABSL_FLAG(int, max_waiting, lapidary::WorkerOptions().max_waiting,
          "requests that wait; more are refused");
ABSL_FLAG(int64_t, max_waiting_tokens,
          lapidary::WorkerOptions().max_waiting_tokens,
          "prompt tokens that wait; more are refused");
ABSL_FLAG(std::string, max_message_bytes, "64MiB",
          "largest message either way");
ABSL_FLAG(absl::Duration, drain_timeout,
          lapidary::WorkerOptions().drain_timeout,
          "what running requests get to finish after SIGTERM");

namespace lapidary {
namespace {

constexpr char kUsage[] =
    "Serves a Gemma 4 model to lapidary routers over gRPC.\n\n"
    "  worker_main --model DIR [flags]\n\n"
    "SIGTERM or SIGINT: finishes what runs, then exits; once more: exits.";

// Empty if there is no home directory.
std::string DefaultImageDir() {
  const char* home = std::getenv("HOME");
  return home == nullptr ? "" : absl::StrCat(home, "/.cache/lapidary");
}

absl::StatusOr<int64_t> ByteSizeFlag(const char* name,
                                     const std::string& value) {
  absl::StatusOr<int64_t> bytes = ParseByteSize(value);
  if (bytes.ok()) return bytes;
  return absl::InvalidArgumentError(
      absl::StrCat(name, ": ", bytes.status().message()));
}

absl::StatusOr<DType> ComputeFlag() {
  const std::string compute = absl::GetFlag(FLAGS_compute);
  if (compute == "bf16") return DType::kBf16;
  if (compute == "fp32") return DType::kF32;
  return absl::InvalidArgumentError(
      absl::StrCat("--compute: expected bf16 or fp32, got \"", compute, "\""));
}

absl::StatusOr<WorkerOptions> OptionsFromFlags() {
  WorkerOptions options;
  options.model = absl::GetFlag(FLAGS_model);
  options.image_dir = absl::GetFlag(FLAGS_image_dir);
  if (options.image_dir.empty()) options.image_dir = DefaultImageDir();
  options.listen = absl::GetFlag(FLAGS_listen);
  options.metrics_listen = absl::GetFlag(FLAGS_metrics_listen);
  options.port_file = absl::GetFlag(FLAGS_port_file);
  ASSIGN_OR_RETURN(options.compute, ComputeFlag());
  options.threads = absl::GetFlag(FLAGS_threads);
  ASSIGN_OR_RETURN(options.isa, ParseIsa(absl::GetFlag(FLAGS_isa)));
  ASSIGN_OR_RETURN(options.kv_memory,
                   ByteSizeFlag("--kv-memory", absl::GetFlag(FLAGS_kv_memory)));
  options.max_sequences = absl::GetFlag(FLAGS_max_sequences);
  options.step_tokens = absl::GetFlag(FLAGS_step_tokens);
  options.max_waiting = absl::GetFlag(FLAGS_max_waiting);
  options.max_waiting_tokens = absl::GetFlag(FLAGS_max_waiting_tokens);
  ASSIGN_OR_RETURN(options.max_message_bytes,
                   ByteSizeFlag("--max-message-bytes",
                                absl::GetFlag(FLAGS_max_message_bytes)));
  options.drain_timeout = absl::GetFlag(FLAGS_drain_timeout);
  return options;
}

absl::Status Run(ShutdownWaiter& waiter) {
  ASSIGN_OR_RETURN(const WorkerOptions options, OptionsFromFlags());
  ASSIGN_OR_RETURN(std::unique_ptr<Worker> worker,
                   Worker::Start(options, waiter));
  // Left to the end of the process: its destructor would wait for a step that
  // does not end, and seconds for the metrics page.
  return worker.release()->Serve();
}

}  // namespace
}  // namespace lapidary

int main(int argc, char** argv) {
  lapidary::ShutdownWaiter waiter;
  lapidary::ParseFlags(lapidary::kUsage, argc, argv);
  lapidary::StartLogging(argv[0]);
  const absl::Status status = lapidary::Run(waiter);
  if (!status.ok()) {
    std::cerr << "worker_main: " << status.message() << std::endl;
  }
  // Crash-only: nothing is left that an orderly exit would save.
  std::_Exit(status.ok() ? EXIT_SUCCESS : EXIT_FAILURE);
}
