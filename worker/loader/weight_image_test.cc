#include "worker/loader/weight_image.h"

#include <cstring>
#include <fstream>

#include "common/testing/status_matchers.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "worker/loader/image_format.h"

namespace lapidary {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

constexpr auto kDataLoss = absl::StatusCode::kDataLoss;
constexpr auto kFailed = absl::StatusCode::kFailedPrecondition;

// The bytes of an image, made by hand.
class ImageBytes {
 public:
  void Add(const std::string& name, uint8_t form, uint32_t rows, uint32_t cols,
           uint64_t offset) {
    Append(static_cast<uint32_t>(name.size()));
    directory_ += name;
    Append(form);
    Append(rows);
    Append(cols);
    Append(offset);
    ++header_.num_entries;
  }

  ImageHeader& header() { return header_; }

  // Followed by zeros up to `file_bytes` in all.
  std::string Finish(size_t file_bytes) {
    memcpy(header_.magic, kImageMagic, sizeof(kImageMagic));
    if (header_.directory_bytes == 0) {
      header_.directory_bytes = directory_.size();
    }
    std::string bytes(reinterpret_cast<const char*>(&header_), sizeof(header_));
    bytes += directory_;
    bytes.resize(file_bytes);
    return bytes;
  }

 private:
  template <typename T>
  void Append(T value) {
    directory_.append(reinterpret_cast<const char*>(&value), sizeof(value));
  }

  ImageHeader header_ = {.magic = {},
                         .format_version = kImageFormatVersion,
                         .num_entries = 0,
                         .directory_bytes = 0,
                         .digest = {}};
  std::string directory_;
};

class WeightImageTest : public ::testing::Test {
 protected:
  absl::StatusOr<std::unique_ptr<WeightImage>> Map(const std::string& bytes) {
    std::ofstream(path_, std::ios::binary) << bytes;
    return WeightImage::Map(path_);
  }

  // An image of one matrix [32, 4] at byte 128 and one vector [3] at byte 384.
  static ImageBytes Good() {
    ImageBytes bytes;
    bytes.Add("matrix", 1, 32, 4, 128);
    bytes.Add("vector", 0, 1, 3, 384);
    return bytes;
  }
  static constexpr size_t kGoodBytes = 390;

  // An image whose only entry is this one.
  absl::StatusOr<std::unique_ptr<WeightImage>> MapOne(uint8_t form,
                                                      uint32_t rows,
                                                      uint32_t cols,
                                                      uint64_t offset) {
    ImageBytes bytes;
    bytes.Add("x", form, rows, cols, offset);
    return Map(bytes.Finish(1024));
  }

  const std::string path_ = ::testing::TempDir() + "/test.image";
};

TEST_F(WeightImageTest, GivesViewsOfWhatItHolds) {
  const auto image = Map(Good().Finish(kGoodBytes));
  ASSERT_OK(image);
  EXPECT_TRUE((*image)->Has("matrix"));
  EXPECT_FALSE((*image)->Has("other"));
  const auto matrix = (*image)->Packed("matrix", 32, 4);
  ASSERT_OK(matrix);
  EXPECT_EQ(matrix->block_stride, 64);
  EXPECT_EQ(reinterpret_cast<uintptr_t>(matrix->data) % 64, 0u);
  EXPECT_OK((*image)->Vector("vector", 3));
  EXPECT_EQ((*image)->bytes(), int64_t{kGoodBytes});
}

TEST_F(WeightImageTest, RefusesOtherNamesFormsAndShapes) {
  const auto image = Map(Good().Finish(kGoodBytes));
  ASSERT_OK(image);
  EXPECT_THAT((*image)->Packed("other", 32, 4),
              StatusIs(absl::StatusCode::kNotFound, HasSubstr("other")));
  EXPECT_THAT((*image)->Packed("matrix", 16, 8),
              StatusIs(kFailed, AllOf(HasSubstr("packed [16, 8]"),
                                      HasSubstr("packed [32, 4]"))));
  EXPECT_THAT((*image)->Vector("matrix", 128), StatusIs(kFailed));
  EXPECT_THAT((*image)->Vector("vector", 4), StatusIs(kFailed));
}

TEST_F(WeightImageTest, RefusesAnImageCutShortAnywhere) {
  const std::string bytes = Good().Finish(kGoodBytes);
  for (size_t size = 0; size < bytes.size(); ++size) {
    EXPECT_THAT(Map(bytes.substr(0, size)), StatusIs(kDataLoss)) << size;
  }
}

TEST_F(WeightImageTest, RefusesOtherFilesAndVersions) {
  EXPECT_THAT(Map(std::string(1000, 'x')),
              StatusIs(kDataLoss, HasSubstr("needs a weight image")));
  ImageBytes bytes = Good();
  bytes.header().format_version = 7;
  EXPECT_THAT(Map(bytes.Finish(kGoodBytes)),
              StatusIs(kDataLoss, HasSubstr("version 1, found 7")));
}

TEST_F(WeightImageTest, RefusesDirectoriesThatLie) {
  ImageBytes more = Good();
  more.header().num_entries = 3;
  EXPECT_THAT(Map(more.Finish(kGoodBytes)),
              StatusIs(kDataLoss, HasSubstr("needs 3 entries")));
  ImageBytes fewer = Good();
  fewer.header().num_entries = 1;
  EXPECT_THAT(Map(fewer.Finish(kGoodBytes)), StatusIs(kDataLoss));
  ImageBytes large = Good();
  large.header().directory_bytes = UINT64_MAX;
  EXPECT_THAT(Map(large.Finish(kGoodBytes)),
              StatusIs(kDataLoss, HasSubstr("needs a directory of")));
  ImageBytes twice = Good();
  twice.Add("vector", 0, 1, 3, 384);
  EXPECT_THAT(Map(twice.Finish(kGoodBytes)), StatusIs(kDataLoss));
}

TEST_F(WeightImageTest, RefusesEntriesThatLie) {
  EXPECT_OK(MapOne(1, 16, 4, 128));
  EXPECT_THAT(MapOne(2, 16, 4, 128), StatusIs(kDataLoss));  // Form.
  EXPECT_THAT(MapOne(1, 8, 4, 128), StatusIs(kDataLoss));   // Rows.
  EXPECT_THAT(MapOne(1, 16, 3, 128), StatusIs(kDataLoss));  // Columns.
  EXPECT_THAT(MapOne(1, 16, 0, 128), StatusIs(kDataLoss));
  EXPECT_THAT(MapOne(1, 16, 4, 100), StatusIs(kDataLoss));  // Alignment.
  EXPECT_THAT(MapOne(1, 16, 4, 0), StatusIs(kDataLoss));    // In the header.
  EXPECT_THAT(MapOne(1, 16, 4, 960), StatusIs(kDataLoss));  // Past the end.
  EXPECT_THAT(MapOne(1, 16, 4, UINT64_MAX - 63), StatusIs(kDataLoss));
  EXPECT_THAT(MapOne(1, 0xfffffff0u, 0xfffffff0u, 128), StatusIs(kDataLoss));
}

TEST_F(WeightImageTest, NamesTheFileThatIsMissing) {
  EXPECT_THAT(WeightImage::Map("/no/such/image"),
              StatusIs(absl::StatusCode::kNotFound, HasSubstr("/no/such")));
}

}  // namespace
}  // namespace lapidary
