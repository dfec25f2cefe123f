#include "tools/checkpoint_writer.h"

#include <csignal>
#include <filesystem>
#include <fstream>

#include <sys/resource.h>

#include "absl/strings/escaping.h"
#include "absl/strings/string_view.h"
#include "common/read_file.h"
#include "common/testing/status_matchers.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "nlohmann/json.hpp"
#include "openssl/sha.h"
#include "worker/loader/checkpoint.h"
#include "worker/loader/image_builder.h"
#include "worker/loader/safetensors.h"
#include "worker/model/gemma_config.h"
#include "worker/model/gemma_weights.h"

namespace lapidary {
namespace {

namespace fs = std::filesystem;
using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::StartsWith;

constexpr char kData[] = "tests/testdata/";
constexpr char kTokenizer[] = "tests/testdata/tokenizer/mini/tokenizer.json";

std::string ConfigOf(const std::string& model) {
  return kData + model + "/config.json";
}

// As in tensors.json.
std::string Digest(std::span<const std::byte> data) {
  unsigned char hash[SHA256_DIGEST_LENGTH];
  SHA256(reinterpret_cast<const unsigned char*>(data.data()), data.size(),
         hash);
  return absl::BytesToHexString(
      absl::string_view(reinterpret_cast<const char*>(hash), 8));
}

class CheckpointWriterTest : public ::testing::Test {
 protected:
  CheckpointWriterTest() {
    fs::remove_all(root_);
    fs::create_directories(root_);
    options_.output = root_ + "/model";
    options_.num_threads = 2;
  }

  // Every tensor of tensors.json is there with its shape and digest, and
  // nothing else is.
  void ExpectTensorsOf(const std::string& model) {
    const auto text = ReadFile(kData + model + "/tensors.json");
    ASSERT_OK(text);
    const nlohmann::json expected = nlohmann::json::parse(*text)["tensors"];
    size_t found = 0;
    for (const auto& entry : fs::directory_iterator(options_.output)) {
      if (entry.path().extension() != ".safetensors") continue;
      const auto file = SafetensorsFile::Open(entry.path().string());
      ASSERT_OK(file);
      for (const auto& [name, tensor] : (*file)->tensors()) {
        ASSERT_TRUE(expected.contains(name)) << name;
        EXPECT_EQ(nlohmann::json(tensor.shape), expected[name]["shape"])
            << name;
        EXPECT_EQ(Digest(tensor.data), expected[name]["sha256"]) << name;
        ++found;
      }
    }
    EXPECT_EQ(found, expected.size());
  }

  // The loader takes it: config, tensors, image, weights.
  void ExpectLoads(int ignored_tensors) {
    const auto text = ReadFile(options_.output + "/config.json");
    ASSERT_OK(text);
    const auto config = ParseGemmaConfig(*text);
    ASSERT_OK(config);
    const std::vector<TensorSpec> specs = GemmaTensors(*config);
    const auto checkpoint = Checkpoint::Open(options_.output, specs);
    ASSERT_OK(checkpoint);
    EXPECT_EQ((*checkpoint)->num_ignored_tensors(), ignored_tensors);
    ImageStats stats;
    const auto image = LoadOrBuildImage(
        **checkpoint, specs, {.directory = root_ + "/images"}, stats);
    ASSERT_OK(image);
    const auto weights = GemmaWeightsFrom(*config, **image);
    ASSERT_OK(weights);
    EXPECT_EQ(weights->head.data, weights->embedding.data);
    EXPECT_EQ(weights->layers.size(), config->layers.size());
    EXPECT_EQ(weights->layers[0].v.data == nullptr, config->layers[0].k_eq_v);
    EXPECT_EQ(weights->layers.back().v.data, nullptr);

    GemmaConfig other = *config;
    other.hidden_size += 16;
    EXPECT_THAT(GemmaWeightsFrom(other, **image),
                StatusIs(absl::StatusCode::kFailedPrecondition));
    other = *config;
    other.layers.push_back(other.layers.back());
    EXPECT_THAT(GemmaWeightsFrom(other, **image),
                StatusIs(absl::StatusCode::kFailedPrecondition));
  }

  const std::string root_ = ::testing::TempDir() + "/writer";
  CheckpointOptions options_;
};

TEST_F(CheckpointWriterTest, WritesUnifiedMiniBitForBit) {
  ASSERT_OK(
      WriteRuleCheckpoint(ConfigOf("models/unified_mini"), 101, options_));
  ExpectTensorsOf("models/unified_mini");
  ExpectLoads(/*ignored_tensors=*/11);
}

TEST_F(CheckpointWriterTest, WritesUnifiedWideBitForBit) {
  ASSERT_OK(
      WriteRuleCheckpoint(ConfigOf("models/unified_wide"), 102, options_));
  ExpectTensorsOf("models/unified_wide");
  ExpectLoads(/*ignored_tensors=*/11);
}

TEST_F(CheckpointWriterTest, WritesRecallBitForBit) {
  options_.tokenizer = kTokenizer;
  ASSERT_OK(WriteRecallCheckpoint(options_));
  ExpectTensorsOf("recall");
  ExpectLoads(/*ignored_tensors=*/0);
  EXPECT_TRUE(fs::exists(options_.output + "/tokenizer.json"));
  EXPECT_TRUE(fs::exists(options_.output + "/generation_config.json"));
}

TEST_F(CheckpointWriterTest, ShardsHoldTheSameTensors) {
  options_.shard_bytes = 3 << 20;
  ASSERT_OK(
      WriteRuleCheckpoint(ConfigOf("models/unified_mini"), 101, options_));
  EXPECT_TRUE(fs::exists(options_.output + "/model.safetensors.index.json"));
  EXPECT_FALSE(fs::exists(options_.output + "/model.safetensors"));
  ExpectTensorsOf("models/unified_mini");
  ExpectLoads(/*ignored_tensors=*/11);
}

TEST_F(CheckpointWriterTest, LeavesWhatExistsAlone) {
  fs::create_directories(options_.output);
  EXPECT_THAT(WriteRuleCheckpoint(ConfigOf("models/unified_mini"), 1, options_),
              StatusIs(absl::StatusCode::kAlreadyExists, HasSubstr("/model")));
  EXPECT_TRUE(fs::is_empty(options_.output));
}

TEST_F(CheckpointWriterTest, NamesAPathThatCannotBeWritten) {
  std::ofstream(root_ + "/file") << "x";
  options_.output = root_ + "/file/model";
  EXPECT_THAT(WriteRuleCheckpoint(ConfigOf("models/unified_mini"), 1, options_),
              StatusIs(absl::StatusCode::kFailedPrecondition,
                       HasSubstr("writer/file")));
}

TEST_F(CheckpointWriterTest, AFullDiskLeavesNothingBehind) {
  // A limit on the size of files stands for a disk that fills up.
  rlimit old_limit;
  ASSERT_EQ(getrlimit(RLIMIT_FSIZE, &old_limit), 0);
  const auto old_handler = std::signal(SIGXFSZ, SIG_IGN);
  const rlimit small = {1 << 20, old_limit.rlim_max};
  ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &small), 0);
  const absl::Status status =
      WriteRuleCheckpoint(ConfigOf("models/unified_mini"), 1, options_);
  ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &old_limit), 0);
  std::signal(SIGXFSZ, old_handler);
  EXPECT_FALSE(status.ok());
  EXPECT_THAT(std::string(status.message()), HasSubstr("model.safetensors"));
  EXPECT_TRUE(fs::is_empty(root_));
}

TEST_F(CheckpointWriterTest, NamesTheFileThatIsNoConfig) {
  std::ofstream(root_ + "/config.json") << "{\"model_type\": \"gemma4\"}";
  EXPECT_THAT(WriteRuleCheckpoint(root_ + "/config.json", 1, options_),
              StatusIs(absl::StatusCode::kUnimplemented,
                       AllOf(StartsWith(root_), HasSubstr("model_type"))));
  EXPECT_THAT(WriteRuleCheckpoint(root_ + "/none.json", 1, options_),
              StatusIs(absl::StatusCode::kNotFound, HasSubstr("none.json")));
}

TEST_F(CheckpointWriterTest, RecallNeedsItsTokenizer) {
  options_.tokenizer = root_ + "/tokenizer.json";
  std::ofstream(options_.tokenizer) << R"({"model": {"vocab": {"a": 0}}})";
  EXPECT_THAT(WriteRecallCheckpoint(options_),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       HasSubstr("needs 8192 tokens, found 1")));
}

TEST_F(CheckpointWriterTest, AnUntiedModelHasAHeadOfItsOwn) {
  const auto text = ReadFile(ConfigOf("models/unified_mini"));
  ASSERT_OK(text);
  nlohmann::json json = nlohmann::json::parse(*text);
  json["tie_word_embeddings"] = false;
  std::ofstream(root_ + "/config.json") << json;
  ASSERT_OK(WriteRuleCheckpoint(root_ + "/config.json", 1, options_));
  const auto config = ParseGemmaConfig(json.dump());
  ASSERT_OK(config);
  const auto checkpoint =
      Checkpoint::Open(options_.output, GemmaTensors(*config));
  ASSERT_OK(checkpoint);
  EXPECT_NE((*checkpoint)->Find("lm_head.weight"), nullptr);
}

}  // namespace
}  // namespace lapidary
