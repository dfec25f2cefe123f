#include "worker/loader/checkpoint.h"

#include <filesystem>
#include <fstream>

#include "common/testing/status_matchers.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "worker/loader/safetensors_writer.h"

namespace lapidary {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

constexpr auto kFailed = absl::StatusCode::kFailedPrecondition;

class CheckpointTest : public ::testing::Test {
 protected:
  CheckpointTest() {
    std::filesystem::remove_all(directory_);
    std::filesystem::create_directories(directory_);
  }

  // Writes a file of zeros.
  void Write(const std::string& name, std::vector<TensorHeader> tensors) {
    const std::string path = directory_ + "/" + name;
    std::filesystem::remove(path);
    auto writer = SafetensorsWriter::Create(path, std::move(tensors));
    ASSERT_OK(writer);
    ASSERT_OK((*writer)->Close());
  }

  void WriteIndex(const std::string& weight_map) {
    std::ofstream(directory_ + "/model.safetensors.index.json")
        << "{\"weight_map\": " << weight_map << "}";
  }

  absl::StatusOr<std::unique_ptr<Checkpoint>> Open() {
    return Checkpoint::Open(directory_, specs_);
  }

  const std::string directory_ = ::testing::TempDir() + "/checkpoint";
  const std::vector<TensorSpec> specs_ = {
      {"embed.weight", 32, 16, TensorForm::kPacked},
      {"norm.weight", 1, 16, TensorForm::kPlain},
      {"head.weight", 32, 16, TensorForm::kPacked, /*optional=*/true}};
  const TensorHeader embed_ = {"model.embed.weight", "BF16", {32, 16}};
  const TensorHeader norm_ = {"model.norm.weight", "BF16", {16}};
  const TensorHeader image_ = {"model.vision.weight", "F32", {3, 3}};
};

TEST_F(CheckpointTest, FindsTensorsOfOneFile) {
  Write("model.safetensors", {embed_, image_, norm_});
  const auto checkpoint = Open();
  ASSERT_OK(checkpoint);
  ASSERT_NE((*checkpoint)->Find("embed.weight"), nullptr);
  EXPECT_EQ((*checkpoint)->Find("embed.weight")->data.size(), 32u * 16 * 2);
  EXPECT_EQ((*checkpoint)->Find("head.weight"), nullptr);
  EXPECT_EQ((*checkpoint)->num_ignored_tensors(), 1);
  EXPECT_EQ((*checkpoint)->bytes(), 32 * 16 * 2 + 16 * 2);
}

TEST_F(CheckpointTest, FindsTensorsOfShards) {
  Write("a.safetensors", {embed_});
  Write("b.safetensors", {norm_, image_});
  WriteIndex(R"({"model.embed.weight": "a.safetensors",
                 "model.norm.weight": "b.safetensors",
                 "model.vision.weight": "b.safetensors"})");
  const auto checkpoint = Open();
  ASSERT_OK(checkpoint);
  EXPECT_EQ((*checkpoint)->num_files(), 2);
  EXPECT_NE((*checkpoint)->Find("norm.weight"), nullptr);
}

TEST_F(CheckpointTest, TakesEachPrefixAndAHeadBesideTheModel) {
  for (const std::string prefix :
       {"model.language_model.", "model.", "language_model.model.",
        "language_model."}) {
    Write("model.safetensors", {{prefix + "embed.weight", "BF16", {32, 16}},
                                {prefix + "norm.weight", "BF16", {16}},
                                {"head.weight", "BF16", {32, 16}}});
    const auto checkpoint = Open();
    ASSERT_OK(checkpoint);
    EXPECT_NE((*checkpoint)->Find("head.weight"), nullptr);
    EXPECT_EQ((*checkpoint)->num_ignored_tensors(), 0);
  }
}

TEST_F(CheckpointTest, NamesTheFilesThatItLooksFor) {
  EXPECT_THAT(Open(), StatusIs(absl::StatusCode::kNotFound,
                               AllOf(HasSubstr(directory_),
                                     HasSubstr("model.safetensors.index"))));
}

TEST_F(CheckpointTest, NamesTheShardThatIsMissing) {
  Write("a.safetensors", {embed_});
  WriteIndex(R"({"model.embed.weight": "a.safetensors",
                 "model.norm.weight": "b.safetensors"})");
  EXPECT_THAT(Open(), StatusIs(absl::StatusCode::kNotFound,
                               AllOf(HasSubstr("b.safetensors"),
                                     HasSubstr("model.norm.weight"))));
}

TEST_F(CheckpointTest, NamesTheTensorThatAShardLacks) {
  Write("a.safetensors", {embed_});
  WriteIndex(R"({"model.embed.weight": "a.safetensors",
                 "model.norm.weight": "a.safetensors"})");
  EXPECT_THAT(Open(), StatusIs(kFailed, AllOf(HasSubstr("a.safetensors"),
                                              HasSubstr("model.norm"))));
}

TEST_F(CheckpointTest, RefusesAnIndexThatLeavesTheDirectory) {
  for (const char* map :
       {R"({"x": "../a.safetensors"})", R"({"x": "/etc/passwd"})",
        R"({"x": 1})", R"(["x"])", "1"}) {
    WriteIndex(map);
    EXPECT_THAT(Open(),
                StatusIs(absl::StatusCode::kDataLoss, HasSubstr("index.json")))
        << map;
  }
}

TEST_F(CheckpointTest, NamesTheTensorThatIsMissing) {
  Write("model.safetensors", {embed_, image_});
  EXPECT_THAT(Open(), StatusIs(kFailed, HasSubstr("needs tensor "
                                                  "model.norm.weight [16], "
                                                  "found none")));
  Write("model.safetensors", {image_});
  EXPECT_THAT(Open(), StatusIs(kFailed, HasSubstr("needs tensor "
                                                  "embed.weight")));
}

TEST_F(CheckpointTest, NamesFileAndTensorThatDiffer) {
  Write("model.safetensors", {embed_, {"model.norm.weight", "F32", {16}}});
  EXPECT_THAT(
      Open(),
      StatusIs(kFailed, HasSubstr("model.safetensors: tensor "
                                  "model.norm.weight: needs BF16 [16], found "
                                  "F32 [16]")));
  Write("model.safetensors", {{"model.embed.weight", "BF16", {16, 32}}, norm_});
  EXPECT_THAT(Open(), StatusIs(kFailed, HasSubstr("needs BF16 [32, 16], found "
                                                  "BF16 [16, 32]")));
}

TEST_F(CheckpointTest, DigestTellsContentsApart) {
  Write("model.safetensors", {embed_, norm_});
  const auto first = Open();
  const auto again = Open();
  ASSERT_OK(first);
  ASSERT_OK(again);
  EXPECT_EQ((*first)->digest(), (*again)->digest());
  const std::string path = directory_ + "/model.safetensors";
  const auto time = std::filesystem::last_write_time(path);
  std::fstream file(path, std::ios::in | std::ios::out | std::ios::binary);
  file.seekp(-1, std::ios::end);
  file.put('\1');
  file.close();
  std::filesystem::last_write_time(path, time);
  const auto changed = Open();
  ASSERT_OK(changed);
  EXPECT_NE((*first)->digest(), (*changed)->digest());
}

}  // namespace
}  // namespace lapidary
