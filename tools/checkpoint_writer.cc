#include "tools/checkpoint_writer.h"

#include <algorithm>
#include <cerrno>
#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <span>
#include <system_error>
#include <utility>
#include <vector>

#include <fcntl.h>
#include <unistd.h>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "common/read_file.h"
#include "common/status_macros.h"
#include "glog/logging.h"
#include "kernels/bf16.h"
#include "nlohmann/json.hpp"
#include "tools/recall_weights.h"
#include "tools/tensor_list.h"
#include "tools/weight_rule.h"
#include "worker/loader/disk_check.h"
#include "worker/loader/piece_threads.h"
#include "worker/loader/safetensors_writer.h"

namespace lapidary {
namespace {

namespace fs = std::filesystem;

// A thread makes and writes this many values at a time.
constexpr int64_t kPieceValues = 1 << 20;

// Gives the values of tensor number `tensor` from index `first` on.
using FillFunction =
    std::function<void(int tensor, int64_t first, std::span<Bf16> values)>;

// A small file of the checkpoint.
struct TextFile {
  std::string name;
  std::string text;
};

absl::Status WriteText(const std::string& path, const std::string& text) {
  const int file =
      open(path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
  if (file < 0) return absl::ErrnoToStatus(errno, path);
  absl::string_view left = text;
  while (!left.empty()) {
    const ssize_t written = write(file, left.data(), left.size());
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) break;
    left.remove_prefix(written);
  }
  absl::Status status;
  if (!left.empty() || fsync(file) != 0) {
    status = absl::ErrnoToStatus(errno, path);
  }
  close(file);
  return status;
}

// Which tensors each file takes: in order, a new file where one gets too large.
std::vector<std::vector<int>> CutShards(
    const std::vector<TensorHeader>& tensors, int64_t shard_bytes) {
  std::vector<std::vector<int>> shards(1);
  int64_t bytes = 0;
  for (size_t i = 0; i < tensors.size(); ++i) {
    const int64_t next = tensors[i].bytes();
    if (shard_bytes > 0 && !shards.back().empty() &&
        bytes + next > shard_bytes) {
      shards.emplace_back();
      bytes = 0;
    }
    shards.back().push_back(static_cast<int>(i));
    bytes += next;
  }
  return shards;
}

// Some values of one tensor: a thread's unit of work.
struct Piece {
  int tensor;  // Number in the shard.
  int64_t first;
  int64_t count;
};

std::vector<Piece> CutPieces(const std::vector<TensorHeader>& shard) {
  std::vector<Piece> pieces;
  for (size_t i = 0; i < shard.size(); ++i) {
    const int64_t values =
        shard[i].bytes() / static_cast<int64_t>(sizeof(Bf16));
    for (int64_t first = 0; first < values; first += kPieceValues) {
      pieces.push_back(
          {static_cast<int>(i), first, std::min(kPieceValues, values - first)});
    }
  }
  return pieces;
}

// Fills one file, whose tensors are the numbers `shard` of all.
absl::Status FillShard(const std::vector<int>& shard,
                       const std::vector<TensorHeader>& headers,
                       const FillFunction& fill, int num_threads,
                       SafetensorsWriter& writer) {
  const std::vector<Piece> pieces = CutPieces(headers);
  return RunPieces("fill", num_threads, static_cast<int>(pieces.size()), [&] {
    return [&, values = std::vector<Bf16>()](int i) mutable {
      const Piece& piece = pieces[i];
      values.resize(piece.count);
      fill(shard[piece.tensor], piece.first, values);
      return writer.Write(piece.tensor,
                          piece.first * static_cast<int64_t>(sizeof(Bf16)),
                          std::as_bytes(std::span(values)));
    };
  });
}

absl::Status WriteShards(const std::string& directory,
                         const std::vector<TensorHeader>& tensors,
                         const FillFunction& fill,
                         const CheckpointOptions& options) {
  const auto shards = CutShards(tensors, options.shard_bytes);
  nlohmann::json index;
  int64_t total_bytes = 0;
  for (size_t s = 0; s < shards.size(); ++s) {
    const std::string name =
        shards.size() == 1 ? "model.safetensors"
                           : absl::StrFormat("model-%05d-of-%05d.safetensors",
                                             s + 1, shards.size());
    std::vector<TensorHeader> headers;
    for (const int tensor : shards[s]) {
      headers.push_back(tensors[tensor]);
      index["weight_map"][tensors[tensor].name] = name;
      total_bytes += tensors[tensor].bytes();
    }
    ASSIGN_OR_RETURN(
        const std::unique_ptr<SafetensorsWriter> writer,
        SafetensorsWriter::Create(absl::StrCat(directory, "/", name), headers));
    RETURN_IF_ERROR(
        FillShard(shards[s], headers, fill, options.num_threads, *writer));
    RETURN_IF_ERROR(writer->Close());
  }
  if (shards.size() == 1) return absl::OkStatus();
  index["metadata"]["total_size"] = total_bytes;
  return WriteText(directory + "/model.safetensors.index.json",
                   index.dump(2) + "\n");
}

// Writes everything beside the output and gives it its name at last.
absl::Status WriteCheckpoint(const std::vector<NamedShape>& shapes,
                             const FillFunction& fill,
                             std::vector<TextFile> files,
                             const CheckpointOptions& options) {
  std::vector<TensorHeader> tensors;
  int64_t bytes = 0;
  for (const NamedShape& shape : shapes) {
    tensors.push_back({shape.name, "BF16", shape.shape});
    bytes += tensors.back().bytes();
  }
  if (!options.tokenizer.empty()) {
    ASSIGN_OR_RETURN(std::string text, ReadFile(options.tokenizer));
    files.push_back({"tokenizer.json", std::move(text)});
  }
  if (!options.generation_config.empty()) {
    ASSIGN_OR_RETURN(std::string text, ReadFile(options.generation_config));
    files.push_back({"generation_config.json", std::move(text)});
  }

  std::error_code error;
  fs::path output = fs::absolute(options.output, error).lexically_normal();
  if (!output.has_filename()) output = output.parent_path();
  if (options.output.empty() || error) {
    return absl::InvalidArgumentError("needs the path of a directory to make");
  }
  if (fs::exists(fs::symlink_status(output, error))) {
    return absl::AlreadyExistsError(absl::StrCat(
        output.string(), ": needs a path where nothing is, it exists"));
  }
  fs::create_directories(output.parent_path(), error);
  if (error) {
    return absl::ErrnoToStatus(error.value(), output.parent_path().string());
  }
  RETURN_IF_ERROR(
      CheckDisk(output.parent_path().string(), bytes, "the checkpoint"));

  const std::string temporary =
      absl::StrCat(output.string(), ".tmp-", getpid());
  if (!fs::create_directory(temporary, error)) {
    return absl::ErrnoToStatus(error ? error.value() : EEXIST, temporary);
  }
  const auto write = [&]() -> absl::Status {
    RETURN_IF_ERROR(WriteShards(temporary, tensors, fill, options));
    for (const TextFile& file : files) {
      RETURN_IF_ERROR(
          WriteText(absl::StrCat(temporary, "/", file.name), file.text));
    }
    fs::rename(temporary, output, error);
    return error ? absl::ErrnoToStatus(error.value(), output.string())
                 : absl::OkStatus();
  };
  const absl::Status status = write();
  if (!status.ok()) fs::remove_all(temporary, error);
  return status;
}

}  // namespace

absl::Status WriteRuleCheckpoint(const std::string& config, uint64_t seed,
                                 const CheckpointOptions& options) {
  ASSIGN_OR_RETURN(std::string text, ReadFile(config));
  const absl::StatusOr<std::vector<NamedShape>> tensors =
      CheckpointTensors(text);
  if (!tensors.ok()) {
    return absl::Status(tensors.status().code(),
                        absl::StrCat(config, ": ", tensors.status().message()));
  }
  std::vector<WeightRule> rules;
  for (const NamedShape& tensor : *tensors) {
    rules.emplace_back(tensor.name, tensor.shape, seed);
  }
  return WriteCheckpoint(
      *tensors,
      [&rules](int tensor, int64_t first, std::span<Bf16> values) {
        rules[tensor].Fill(first, values);
      },
      {{"config.json", std::move(text)}}, options);
}

absl::Status WriteRecallCheckpoint(const CheckpointOptions& options) {
  CHECK(options.generation_config.empty());
  ASSIGN_OR_RETURN(const std::string tokenizer, ReadFile(options.tokenizer));
  const absl::StatusOr<std::map<std::string, std::vector<Bf16>>> weights =
      RecallWeights(tokenizer);
  if (!weights.ok()) {
    return absl::Status(
        weights.status().code(),
        absl::StrCat(options.tokenizer, ": ", weights.status().message()));
  }
  ASSIGN_OR_RETURN(const std::vector<NamedShape> tensors,
                   CheckpointTensors(RecallConfig()));
  return WriteCheckpoint(
      tensors,
      [&](int tensor, int64_t first, std::span<Bf16> values) {
        std::copy_n(weights->at(tensors[tensor].name).begin() + first,
                    values.size(), values.begin());
      },
      {{"config.json", std::string(RecallConfig())},
       {"generation_config.json", std::string(RecallGenerationConfig())}},
      options);
}

}  // namespace lapidary
