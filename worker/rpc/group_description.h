// What a group is.

#ifndef WORKER_RPC_GROUP_DESCRIPTION_H_
#define WORKER_RPC_GROUP_DESCRIPTION_H_

#include <cstdint>
#include <string>
#include <vector>

namespace lapidary {

struct RankDescription {
  std::string host;
  std::string device;
};

// Constant while the process lives.  proto/lapidary/v1/worker.proto says what
// the fields mean.
struct GroupDescription {
  uint64_t epoch = 0;  // Random, new at every start.
  std::string model_name;
  std::string model_type;
  std::string config_digest;
  std::string tokenizer_digest;
  int vocab_size = 0;
  int max_context_tokens = 0;
  std::string compute;
  std::string device;
  int64_t global_page_bytes = 0;
  int64_t window_page_bytes = 0;
  // Each rank's; one of a group of one.
  std::vector<RankDescription> ranks;
  int64_t replica_bytes = 0;
  int64_t gather_bytes = 0;
};

}  // namespace lapidary

#endif  // WORKER_RPC_GROUP_DESCRIPTION_H_
