// Serves one model to routers: one rank of a group, on this machine's CPUs.

#include <pthread.h>

#include <cstdlib>
#include <iostream>
#include <memory>
#include <optional>
#include <string>
#include <thread>

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
ABSL_FLAG(
    int, rank, lapidary::WorkerOptions().rank,
    "this process's rank in its group; rank 0 leads and has the rpc port");
ABSL_FLAG(int, ranks, lapidary::WorkerOptions().ranks,
          "ranks of the group, which share the work of each request");
ABSL_FLAG(std::string, rendezvous, "",
          "HOST:PORT where the ranks meet: rank 0 listens there, the others "
          "come, in any order");
ABSL_FLAG(absl::Duration, group_timeout,
          lapidary::WorkerOptions().group_timeout,
          "what the ranks get to meet");
ABSL_FLAG(absl::Duration, liveness_timeout,
          lapidary::WorkerOptions().liveness_timeout,
          "a rank that is silent for so long ends the group");
ABSL_FLAG(std::string, compute, "bf16",
          "activations and key/value memory: bf16 or fp32");
ABSL_FLAG(int, threads, lapidary::WorkerOptions().threads,
          "threads that compute; 0: one a core");
ABSL_FLAG(std::string, isa, "auto",
          "instruction set: auto, portable, avx2, avx512 or avx512_bf16");
ABSL_FLAG(
    std::string, kv_memory, "0",
    "memory of this rank for keys and values, such as 4GiB; 0: half of what "
    "the weights leave");
ABSL_FLAG(
    std::string, replica_memory, "auto",
    "of each of several ranks, for the global pages of one prompt while "
    "it is prefilled in rounds; 0: none, pages are gathered again in each "
    "round; auto: what the longest prompt needs, or half of what the "
    "machine has left");
ABSL_FLAG(std::string, gather_memory, "64MiB",
          "buffer for global pages that come from other ranks");
ABSL_FLAG(int, round_tokens, lapidary::WorkerOptions().round_tokens,
          "most tokens of one rank in a round of a long prompt, a multiple of "
          "64; 0: prompts are not split by tokens");
ABSL_FLAG(absl::Duration, inter_token_deadline,
          lapidary::WorkerOptions().inter_token_deadline,
          "how long a round may be planned to take while streams run");
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
    "serves a Gemma 4 model to lapidary routers over gRPC.\n\n"
    "  worker_main --model DIR [flags]\n\n"
    "Several processes make a group that shares the work of each request:\n\n"
    "  worker_main --model DIR --rank R --ranks N --rendezvous HOST:PORT\n\n"
    "SIGTERM or SIGINT: finishes what runs, then exits; once more, or before\n"
    "it serves: exits.\n"
    "Exit codes: 0 stopped, 1 could not start, 3 the group failed: a rank was\n"
    "lost, stuck or wrong, and all ranks end; start them again.";

// Of a group that has served and failed.
constexpr int kExitGroupFailed = 3;

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

absl::StatusOr<std::optional<int64_t>> ReplicaMemoryFlag() {
  const std::string value = absl::GetFlag(FLAGS_replica_memory);
  if (value == "auto") return std::nullopt;
  ASSIGN_OR_RETURN(const int64_t bytes,
                   ByteSizeFlag("--replica-memory", value));
  return bytes;
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
  options.rank = absl::GetFlag(FLAGS_rank);
  options.ranks = absl::GetFlag(FLAGS_ranks);
  options.rendezvous = absl::GetFlag(FLAGS_rendezvous);
  options.group_timeout = absl::GetFlag(FLAGS_group_timeout);
  options.liveness_timeout = absl::GetFlag(FLAGS_liveness_timeout);
  ASSIGN_OR_RETURN(options.compute, ComputeFlag());
  options.threads = absl::GetFlag(FLAGS_threads);
  ASSIGN_OR_RETURN(options.isa, ParseIsa(absl::GetFlag(FLAGS_isa)));
  ASSIGN_OR_RETURN(options.kv_memory,
                   ByteSizeFlag("--kv-memory", absl::GetFlag(FLAGS_kv_memory)));
  ASSIGN_OR_RETURN(options.replica_memory, ReplicaMemoryFlag());
  ASSIGN_OR_RETURN(
      options.gather_memory,
      ByteSizeFlag("--gather-memory", absl::GetFlag(FLAGS_gather_memory)));
  options.round_tokens = absl::GetFlag(FLAGS_round_tokens);
  options.inter_token_deadline = absl::GetFlag(FLAGS_inter_token_deadline);
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

// While it lives, a signal ends the process: to meet and to load can take an
// hour, and there is nothing yet to finish.
//
// Owns a thread, "start".
class StartGuard {
 public:
  StartGuard() : thread_([this] { Watch(); }) {
    pthread_setname_np(thread_.native_handle(), "start");
  }
  ~StartGuard() {
    waiter_.Wake();
    thread_.join();
  }

  StartGuard(const StartGuard&) = delete;
  StartGuard& operator=(const StartGuard&) = delete;

 private:
  void Watch() {
    const auto reason = waiter_.Wait(absl::InfiniteDuration());
    if (reason != ShutdownWaiter::Reason::kSignal) return;
    std::cerr << "worker_main: stopped before it served" << std::endl;
    std::_Exit(EXIT_SUCCESS);
  }

  ShutdownWaiter waiter_;
  std::thread thread_;  // Last: it starts when all else is there.
};

absl::StatusOr<std::unique_ptr<Worker>> Start(ShutdownWaiter& waiter) {
  const StartGuard guard;
  ASSIGN_OR_RETURN(const WorkerOptions options, OptionsFromFlags());
  return Worker::Start(options, waiter);
}

// Returns the exit code.
int Run(ShutdownWaiter& waiter) {
  absl::StatusOr<std::unique_ptr<Worker>> worker = Start(waiter);
  if (!worker.ok()) {
    std::cerr << "worker_main: " << worker.status().message() << std::endl;
    return EXIT_FAILURE;
  }
  // Left to the end of the process: its destructor would wait for a step that
  // does not end, and seconds for the metrics page.
  const absl::Status status = worker->release()->Serve();
  if (status.ok()) return EXIT_SUCCESS;
  std::cerr << "worker_main: the group failed: " << status.message()
            << std::endl;
  return kExitGroupFailed;
}

}  // namespace
}  // namespace lapidary

int main(int argc, char** argv) {
  lapidary::ShutdownWaiter waiter;
  lapidary::ParseFlags(lapidary::kUsage, argc, argv);
  lapidary::StartLogging(argv[0]);
  // Crash-only: nothing is left that an orderly exit would save.
  std::_Exit(lapidary::Run(waiter));
}
