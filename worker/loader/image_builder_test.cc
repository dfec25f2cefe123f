#include "worker/loader/image_builder.h"

#include <cstring>
#include <filesystem>
#include <fstream>
#include <random>
#include <thread>

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "common/testing/status_matchers.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace lapidary {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

class ImageBuilderTest : public ::testing::Test {
 protected:
  ImageBuilderTest() {
    std::filesystem::remove_all(root_);
    options_.directory = root_ + "/images";
    options_.num_threads = 3;
    WriteFile(1);
  }

  // A checkpoint of random bits; the matrix begins at an odd byte.
  void WriteFile(int seed) {
    std::filesystem::create_directories(checkpoint_);
    std::mt19937 random(seed);
    values_.resize(1600 * 1024);
    for (Bf16& value : values_) value.bits = static_cast<uint16_t>(random());
    vector_ = {{1}, {2}, {3}};
    const int64_t matrix_bytes = static_cast<int64_t>(values_.size()) * 2;
    std::string header =
        R"({"model.x":{"dtype":"BF16","shape":[3],"data_offsets":[0,6]},)"
        R"("model.m":{"dtype":"BF16","shape":[1600,1024],"data_offsets":[6,)" +
        std::to_string(6 + matrix_bytes) + "]}}";
    if (header.size() % 2 == 0) header += ' ';
    const int64_t length = static_cast<int64_t>(header.size());
    std::ofstream file(checkpoint_ + "/model.safetensors", std::ios::binary);
    file.write(reinterpret_cast<const char*>(&length), 8);
    file << header;
    file.write(reinterpret_cast<const char*>(vector_.data()), 6);
    file.write(reinterpret_cast<const char*>(values_.data()), matrix_bytes);
  }

  absl::StatusOr<std::unique_ptr<WeightImage>> Load(ImageStats& stats) {
    const auto checkpoint = Checkpoint::Open(checkpoint_, specs_);
    if (!checkpoint.ok()) return checkpoint.status();
    return LoadOrBuildImage(**checkpoint, specs_, options_, stats);
  }

  void ExpectValues(const WeightImage& image) {
    const auto matrix = image.Packed("m", 1600, 1024);
    ASSERT_OK(matrix);
    int differences = 0;
    for (int r = 0; r < 1600; ++r) {
      for (int c = 0; c < 1024; ++c) {
        differences += matrix->at(r, c).bits != values_[r * 1024 + c].bits;
      }
    }
    EXPECT_EQ(differences, 0);
    const auto vector = image.Vector("x", 3);
    ASSERT_OK(vector);
    EXPECT_EQ(memcmp(*vector, vector_.data(), 6), 0);
  }

  // The images that are there, without locks.
  std::vector<std::string> Images() {
    std::vector<std::string> images;
    for (const auto& entry :
         std::filesystem::directory_iterator(options_.directory)) {
      if (entry.path().extension() != ".lock") {
        images.push_back(entry.path().string());
      }
    }
    return images;
  }

  const std::string root_ = ::testing::TempDir() + "/builder";
  std::string checkpoint_ = root_ + "/checkpoint";
  const std::vector<TensorSpec> specs_ = {
      {"x", 1, 3, TensorForm::kPlain},
      {"m", 1600, 1024, TensorForm::kPacked},
      {"head", 32, 16, TensorForm::kPacked, /*optional=*/true}};
  ImageOptions options_;
  std::vector<Bf16> values_;
  std::vector<Bf16> vector_;
};

TEST_F(ImageBuilderTest, PacksOnceAndMapsFromThenOn) {
  ImageStats stats;
  const auto first = Load(stats);
  ASSERT_OK(first);
  EXPECT_TRUE(stats.built);
  EXPECT_EQ(stats.image_bytes, (*first)->bytes());
  EXPECT_EQ(stats.source_bytes, 1600 * 1024 * 2 + 6);
  EXPECT_FALSE((*first)->Has("head"));
  ExpectValues(**first);
  const auto second = Load(stats);
  ASSERT_OK(second);
  EXPECT_FALSE(stats.built);
  EXPECT_EQ((*second)->path(), (*first)->path());
  EXPECT_EQ(Images().size(), 1u);
}

TEST_F(ImageBuilderTest, GivesUpOnAnotherProcessThatDoesNotEnd) {
  ImageStats stats;
  ASSERT_OK(Load(stats));
  std::string lock_path;
  for (const auto& entry :
       std::filesystem::directory_iterator(options_.directory)) {
    if (entry.path().extension() == ".lock") lock_path = entry.path();
  }
  const int lock = open(lock_path.c_str(), O_RDWR);
  ASSERT_GE(lock, 0) << lock_path;
  ASSERT_EQ(flock(lock, LOCK_EX), 0);
  std::filesystem::remove(Images().front());
  options_.lock_timeout = absl::Milliseconds(50);
  EXPECT_THAT(Load(stats),
              StatusIs(absl::StatusCode::kDeadlineExceeded,
                       AllOf(HasSubstr(lock_path),
                             HasSubstr("packing these weights for 50ms"))));
  close(lock);
  EXPECT_OK(Load(stats));
}

TEST_F(ImageBuilderTest, PacksAnotherCheckpointBesideIt) {
  ImageStats stats;
  ASSERT_OK(Load(stats));
  checkpoint_ = root_ + "/another";
  WriteFile(2);
  const auto image = Load(stats);
  ASSERT_OK(image);
  EXPECT_TRUE(stats.built);
  ExpectValues(**image);
  EXPECT_EQ(Images().size(), 2u);
}

TEST_F(ImageBuilderTest, RemovesTheImageThatANewOneSupersedes) {
  ImageStats stats;
  const auto first = Load(stats);
  ASSERT_OK(first);
  ExpectValues(**first);
  const uint16_t bits = (*first)->Packed("m", 1600, 1024)->at(1599, 0).bits;
  WriteFile(2);
  const auto second = Load(stats);
  ASSERT_OK(second);
  EXPECT_TRUE(stats.built);
  EXPECT_EQ(Images(), std::vector<std::string>{(*second)->path()});
  ExpectValues(**second);
  // A rank that has mapped the first works on.
  EXPECT_EQ((*first)->Packed("m", 1600, 1024)->at(1599, 0).bits, bits);
}

TEST_F(ImageBuilderTest, KnowsACheckpointByAnyOfItsPaths) {
  ImageStats stats;
  ASSERT_OK(Load(stats));
  std::filesystem::create_directory_symlink(checkpoint_, root_ + "/link");
  checkpoint_ = root_ + "/./link";
  ASSERT_OK(Load(stats));
  EXPECT_FALSE(stats.built);
}

TEST_F(ImageBuilderTest, RanksThatStartTogetherPackOnce) {
  constexpr int kRanks = 4;
  std::vector<ImageStats> stats(kRanks);
  std::vector<std::thread> ranks;
  for (ImageStats& own : stats) {
    ranks.emplace_back([this, &own] { EXPECT_OK(Load(own)); });
  }
  for (std::thread& rank : ranks) rank.join();
  int built = 0;
  for (const ImageStats& own : stats) built += own.built;
  EXPECT_EQ(built, 1);
}

TEST_F(ImageBuilderTest, PacksADamagedImageAgain) {
  ImageStats stats;
  ASSERT_OK(Load(stats));
  std::filesystem::resize_file(Images()[0], 1000);
  const auto image = Load(stats);
  ASSERT_OK(image);
  EXPECT_TRUE(stats.built);
  EXPECT_THAT(stats.damage, HasSubstr("found a file of 1000 bytes"));
  ExpectValues(**image);
}

TEST_F(ImageBuilderTest, ReplacesWhatAnInterruptedRankLeft) {
  ImageStats stats;
  ASSERT_OK(Load(stats));
  const std::string path = Images()[0];
  // The name of the temporary file has no digest.
  std::filesystem::rename(path, path.substr(0, path.rfind('-')) + ".tmp");
  ASSERT_OK(Load(stats));
  EXPECT_TRUE(stats.built);
  EXPECT_EQ(Images(), std::vector<std::string>{path});
}

TEST_F(ImageBuilderTest, RefusesBeforeItStartsWithoutTheMemory) {
  options_.extra_memory_bytes = int64_t{1} << 50;
  ImageStats stats;
  EXPECT_THAT(Load(stats), StatusIs(absl::StatusCode::kResourceExhausted,
                                    AllOf(HasSubstr("needs 1024.00 TiB"),
                                          HasSubstr("available"))));
  EXPECT_FALSE(std::filesystem::exists(options_.directory));
}

TEST_F(ImageBuilderTest, NamesADirectoryThatCannotBeMade) {
  options_.directory = checkpoint_ + "/model.safetensors/images";
  ImageStats stats;
  EXPECT_THAT(Load(stats), testing::Not(IsOk()));
}

}  // namespace
}  // namespace lapidary
