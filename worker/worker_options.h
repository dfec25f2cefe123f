// What a worker can be told.

#ifndef WORKER_WORKER_OPTIONS_H_
#define WORKER_WORKER_OPTIONS_H_

#include <cstdint>
#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "kernels/cpu/isa.h"
#include "kernels/tensor.h"

namespace lapidary {

// The largest group.
inline constexpr int kMaxGroupRanks = 64;
// The largest size that a flag may ask for, 1 PiB: what all ranks of a host ask
// for together does not overflow.
inline constexpr int64_t kMaxMemoryBytes = int64_t{1} << 50;

// One flag of worker_main each, of the same name.
struct WorkerOptions {
  // A Hugging Face directory as downloaded.  Must be set.
  std::string model;
  // Where the packed weights are kept.  Must be set; it is made if missing.
  std::string image_dir;
  // HOST:PORT; port 0 takes a free one.
  std::string listen = "127.0.0.1:0";
  std::string metrics_listen = "127.0.0.1:0";
  // Written once both are listened on, whole or not at all:
  //   rpc HOST:PORT
  //   metrics HOST:PORT
  // Empty: no file.
  std::string port_file;

  // The group: this process is rank `rank` of `ranks`; rank 0 leads and alone
  // has the rpc port.
  int rank = 0;
  int ranks = 1;
  // HOST:PORT where the ranks meet: rank 0 listens there.  Must be set if there
  // is more than one.
  std::string rendezvous;
  // What the ranks get to meet, in any order, and to connect.
  absl::Duration group_timeout = absl::Seconds(60);
  // A rank that is not heard of for this long ends the group.
  absl::Duration liveness_timeout = absl::Seconds(5);

  // Activations and key/value memory.
  DType compute = DType::kBf16;
  // Threads that compute; 0: one a core that the process may use.
  int threads = 0;
  Isa isa = Isa::kAuto;
  // For keys and values.  More: longer contexts, more of them.  0: half of what
  // the machine has left beside the weights.
  int64_t kv_memory = 0;
  // Of a group of several ranks, on each: for the global pages of one prompt
  // while it is prefilled in rounds.  Empty: what the longest prompt needs, or
  // what the machine has left if that is less.  0: none; earlier keys are
  // gathered again in each round.
  std::optional<int64_t> replica_memory;
  // The buffer through which global pages of other ranks come.
  int64_t gather_memory = int64_t{64} << 20;

  // Requests that run at once.  More: more throughput, slower streams.
  int max_sequences = 64;
  // Tokens that a step computes.  More: faster prefill, longer gaps between the
  // tokens of the streams that run meanwhile.
  int step_tokens = 512;
  // Tokens that a rank computes of a round at most, a multiple of 64; 0: long
  // prompts are not split by tokens.
  int round_tokens = 2048;
  // How long a round may be planned to take while streams run.  Shorter:
  // smoother streams, slower prefill.
  absl::Duration inter_token_deadline = absl::Seconds(2);
  // Requests that wait, and their prompt tokens; more are refused.
  int max_waiting = 1024;
  int64_t max_waiting_tokens = 4 << 20;
  // Of a message, either way.
  int64_t max_message_bytes = int64_t{64} << 20;
  // What running requests get to finish after SIGTERM.
  absl::Duration drain_timeout = absl::Seconds(30);

  // Errors: INVALID_ARGUMENT, naming the flag, what was expected and what was
  // there.
  absl::Status Validate() const;

 private:
  absl::Status ValidateGroup() const;
};

}  // namespace lapidary

#endif  // WORKER_WORKER_OPTIONS_H_
