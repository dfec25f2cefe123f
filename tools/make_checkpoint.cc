// Writes a checkpoint whose weights follow a rule.

#include <cstdint>
#include <cstdio>
#include <string>

#include "absl/flags/flag.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "common/byte_size.h"
#include "common/command_line.h"
#include "common/status_macros.h"
#include "tools/checkpoint_writer.h"

ABSL_FLAG(std::string, config, "",
          "config.json of the model whose tensors to write");
ABSL_FLAG(uint64_t, seed, 0, "seed of the values; with --config");
ABSL_FLAG(bool, recall, false,
          "write the recall checkpoint instead; needs --tokenizer");
ABSL_FLAG(std::string, output, "", "directory to make; must not exist");
ABSL_FLAG(std::string, shard_bytes, "5GiB",
          "largest size of a file; 0 for one file");
ABSL_FLAG(std::string, tokenizer, "", "tokenizer.json to copy");
ABSL_FLAG(std::string, generation_config, "",
          "generation_config.json to copy; with --config");
ABSL_FLAG(int, threads, 0, "threads; 0 for one a core");

namespace lapidary {
namespace {

constexpr char kUsage[] =
    "writes a checkpoint whose weights follow a rule: the same bytes "
    "everywhere.\n\n"
    "  make_checkpoint --config FILE --seed S --output DIR\n"
    "                  [--shard-bytes SIZE] [--tokenizer FILE]\n"
    "                  [--generation-config FILE] [--threads N]\n"
    "  make_checkpoint --recall --tokenizer FILE --output DIR\n\n"
    "The first form writes every tensor of the model with values drawn from\n"
    "(name, seed, index).  The second writes a small model that answers with\n"
    "what its context says.  DIR appears when it is whole, or not at all.";

absl::Status Run() {
  const bool recall = absl::GetFlag(FLAGS_recall);
  const std::string config = absl::GetFlag(FLAGS_config);
  CheckpointOptions options;
  options.output = absl::GetFlag(FLAGS_output);
  options.tokenizer = absl::GetFlag(FLAGS_tokenizer);
  options.generation_config = absl::GetFlag(FLAGS_generation_config);
  options.num_threads = absl::GetFlag(FLAGS_threads);
  if (options.num_threads < 0 || options.num_threads > 1024) {
    return absl::InvalidArgumentError(
        absl::StrCat("--threads: needs 0 to 1024, got ", options.num_threads));
  }
  const absl::StatusOr<int64_t> shard_bytes =
      ParseByteSize(absl::GetFlag(FLAGS_shard_bytes));
  if (!shard_bytes.ok()) {
    return absl::InvalidArgumentError(
        absl::StrCat("--shard-bytes: ", shard_bytes.status().message()));
  }
  options.shard_bytes = *shard_bytes;
  if (options.output.empty()) {
    return absl::InvalidArgumentError("needs --output DIR");
  }
  if (recall == !config.empty()) {
    return absl::InvalidArgumentError(
        "needs either --config FILE or --recall, see --help");
  }
  if (!recall) {
    return WriteRuleCheckpoint(config, absl::GetFlag(FLAGS_seed), options);
  }
  if (options.tokenizer.empty() || !options.generation_config.empty()) {
    return absl::InvalidArgumentError(
        "--recall: needs --tokenizer FILE, and no --generation-config: it "
        "brings its own");
  }
  return WriteRecallCheckpoint(options);
}

}  // namespace
}  // namespace lapidary

int main(int argc, char** argv) {
  lapidary::ParseFlags(lapidary::kUsage, argc, argv);
  const absl::Status status = lapidary::Run();
  if (!status.ok()) {
    fprintf(stderr, "make_checkpoint: %s\n",
            std::string(status.message()).c_str());
    return 1;
  }
  printf("wrote %s\n", absl::GetFlag(FLAGS_output).c_str());
  return 0;
}
