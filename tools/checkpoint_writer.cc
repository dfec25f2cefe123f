#include "tools/checkpoint_writer.h"

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <span>
#include <system_error>
#include <thread>
#include <utility>
#include <vector>

#include <fcntl.h>
#include <pthread.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "absl/base/thread_annotations.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "common/byte_size.h"
#include "common/model_files.h"
#include "common/mutex.h"
#include "common/status_macros.h"
#include "glog/logging.h"
#include "kernels/bf16.h"
#include "nlohmann/json.hpp"
#include "tools/recall_weights.h"
#include "tools/tensor_list.h"
#include "tools/weight_rule.h"
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

// Fills the tensors of one file on several threads.
class ShardFiller {
 public:
  ShardFiller(const std::vector<TensorHeader>& tensors,
              const std::vector<int>& shard, const FillFunction& fill,
              SafetensorsWriter& writer)
      : shard_(shard), fill_(fill), writer_(writer) {
    for (size_t i = 0; i < shard.size(); ++i) {
      const int64_t values =
          tensors[shard[i]].bytes() / static_cast<int64_t>(sizeof(Bf16));
      for (int64_t first = 0; first < values; first += kPieceValues) {
        pieces_.push_back({static_cast<int>(i), first,
                           std::min(kPieceValues, values - first)});
      }
    }
  }

  absl::Status Run(int num_threads) {
    std::vector<std::thread> threads;
    for (int i = 0; i < num_threads; ++i) {
      threads.emplace_back([this, i] {
        pthread_setname_np(pthread_self(), absl::StrCat("fill-", i).c_str());
        Work();
      });
    }
    for (std::thread& thread : threads) thread.join();
    MutexLock lock(mutex_);
    return status_;
  }

 private:
  struct Piece {
    int tensor;  // Number in the shard.
    int64_t first;
    int64_t count;
  };

  void Work() {
    std::vector<Bf16> values;
    for (size_t i = next_++; i < pieces_.size() && !failed_; i = next_++) {
      const Piece& piece = pieces_[i];
      values.resize(piece.count);
      fill_(shard_[piece.tensor], piece.first, values);
      const absl::Status status = writer_.Write(
          piece.tensor, piece.first * static_cast<int64_t>(sizeof(Bf16)),
          std::as_bytes(std::span(values)));
      if (status.ok()) continue;
      MutexLock lock(mutex_);
      status_.Update(status);
      failed_ = true;
    }
  }

  const std::vector<int>& shard_;
  const FillFunction& fill_;
  SafetensorsWriter& writer_;
  std::vector<Piece> pieces_;
  std::atomic<size_t> next_ = 0;
  std::atomic<bool> failed_ = false;
  Mutex mutex_;
  absl::Status status_ ABSL_GUARDED_BY(mutex_);
};

absl::Status WriteShards(const std::string& directory,
                         const std::vector<TensorHeader>& tensors,
                         const FillFunction& fill,
                         const CheckpointOptions& options) {
  const auto shards = CutShards(tensors, options.shard_bytes);
  const int cores = static_cast<int>(std::thread::hardware_concurrency());
  const int num_threads =
      options.num_threads > 0 ? options.num_threads : std::max(cores, 1);
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
        ShardFiller(tensors, shards[s], fill, *writer).Run(num_threads));
    RETURN_IF_ERROR(writer->Close());
  }
  if (shards.size() == 1) return absl::OkStatus();
  index["metadata"]["total_size"] = total_bytes;
  return WriteText(directory + "/model.safetensors.index.json",
                   index.dump(2) + "\n");
}

absl::Status CheckDisk(const std::string& directory, int64_t needed_bytes) {
  struct statvfs status;
  if (statvfs(directory.c_str(), &status) != 0) {
    return absl::ErrnoToStatus(errno, directory);
  }
  const int64_t available = static_cast<int64_t>(status.f_bavail) *
                            static_cast<int64_t>(status.f_frsize);
  if (needed_bytes <= available) return absl::OkStatus();
  return absl::ResourceExhaustedError(
      absl::StrCat(directory, ": needs ", FormatByteSize(needed_bytes),
                   " of disk, ", FormatByteSize(available), " available"));
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
  RETURN_IF_ERROR(CheckDisk(output.parent_path().string(), bytes));

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
