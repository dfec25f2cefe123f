// Writes checkpoints whose weights follow a rule, for tests, demos and
// measurements: the same bytes on every machine.

#ifndef TOOLS_CHECKPOINT_WRITER_H_
#define TOOLS_CHECKPOINT_WRITER_H_

#include <cstdint>
#include <string>

#include "absl/status/status.h"

namespace lapidary {

struct CheckpointOptions {
  std::string output;             // The directory to make; must not exist.
  std::string tokenizer;          // A tokenizer.json to copy, or empty.
  std::string generation_config;  // A generation_config.json, or empty.
  // A new file is begun where one would grow larger.  0: one file.
  int64_t shard_bytes = int64_t{5} << 30;
  int num_threads = 0;  // 0: one a core.
};

// Every tensor of the model that the file `config` describes, with the values
// of tools/weight_rule.h.
//
// The directory appears under its name when it is whole, or not at all.
//
// Errors: ALREADY_EXISTS, RESOURCE_EXHAUSTED on a full disk and others of the
// file system, with the path; those of ParseGemmaConfig.
absl::Status WriteRuleCheckpoint(const std::string& config, uint64_t seed,
                                 const CheckpointOptions& options);

// The recall checkpoint (tools/recall_weights.h): it finds where in its context
// the last 7 tokens stood before, and goes on from there to the end of the
// line.
//
// REQUIRES: options.generation_config is empty: it brings its own.
// Errors: as WriteRuleCheckpoint().
absl::Status WriteRecallCheckpoint(const CheckpointOptions& options);

}  // namespace lapidary

#endif  // TOOLS_CHECKPOINT_WRITER_H_
