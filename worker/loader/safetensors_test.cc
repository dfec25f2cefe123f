#include "worker/loader/safetensors.h"

#include <cstring>
#include <fstream>
#include <string>

#include "absl/strings/str_cat.h"
#include "common/testing/status_matchers.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "worker/loader/safetensors_writer.h"

namespace lapidary {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

constexpr auto kDataLoss = absl::StatusCode::kDataLoss;

class SafetensorsTest : public ::testing::Test {
 protected:
  // Opens a file of `header`, its length as `length` says, and `data_bytes`
  // zeros.
  absl::StatusOr<std::unique_ptr<SafetensorsFile>> Open(
      const std::string& header, int data_bytes, int64_t length = -1) {
    if (length < 0) length = static_cast<int64_t>(header.size());
    std::ofstream file(path_, std::ios::binary);
    file.write(reinterpret_cast<const char*>(&length), sizeof(length));
    file << header << std::string(data_bytes, '\0');
    file.close();
    return SafetensorsFile::Open(path_);
  }

  // An entry of a header.
  static std::string Entry(const std::string& name, const std::string& dtype,
                           const std::string& shape,
                           const std::string& offsets) {
    return absl::StrCat("\"", name, "\":{\"dtype\":\"", dtype,
                        "\",\"shape\":", shape, ",\"data_offsets\":", offsets,
                        "}");
  }

  void ExpectRefused(const std::string& header, int data_bytes,
                     const std::string& message) {
    EXPECT_THAT(
        Open(header, data_bytes),
        StatusIs(kDataLoss, AllOf(HasSubstr(path_), HasSubstr(message))))
        << header;
  }

  const std::string path_ = ::testing::TempDir() + "/file.safetensors";
};

TEST_F(SafetensorsTest, ReadsWhatItIsGiven) {
  const auto file = Open("{\"__metadata__\":{\"format\":\"pt\"}," +
                             Entry("b", "BF16", "[2,3]", "[4,16]") + "," +
                             Entry("a", "F32", "[]", "[0,4]") + "}",
                         16);
  ASSERT_OK(file);
  EXPECT_EQ((*file)->tensors().size(), 2u);
  const StoredTensor* b = (*file)->Find("b");
  ASSERT_NE(b, nullptr);
  EXPECT_EQ(b->dtype, "BF16");
  EXPECT_THAT(b->shape, ElementsAre(2, 3));
  EXPECT_EQ(b->data.size(), 12u);
  EXPECT_EQ((*file)->Find("a")->data.size(), 4u);
  EXPECT_EQ((*file)->Find("c"), nullptr);
}

TEST_F(SafetensorsTest, ReadsWhatTheWriterWrites) {
  remove(path_.c_str());
  const std::vector<uint16_t> values = {1, 2, 3, 4, 5, 6};
  auto writer = SafetensorsWriter::Create(
      path_, {{"x", "BF16", {1}}, {"m", "BF16", {2, 3}}});
  ASSERT_OK(writer);
  ASSERT_OK((*writer)->Write(1, 0, std::as_bytes(std::span(values).first(2))));
  ASSERT_OK((*writer)->Write(1, 4, std::as_bytes(std::span(values).last(4))));
  ASSERT_OK((*writer)->Close());
  const auto file = SafetensorsFile::Open(path_);
  ASSERT_OK(file);
  const StoredTensor* m = (*file)->Find("m");
  ASSERT_NE(m, nullptr);
  ASSERT_EQ(m->data.size(), 12u);
  EXPECT_EQ(memcmp(m->data.data(), values.data(), 12), 0);
  // A second writer does not write over it.
  EXPECT_THAT(SafetensorsWriter::Create(path_, {}),
              StatusIs(absl::StatusCode::kAlreadyExists, HasSubstr(path_)));
}

TEST_F(SafetensorsTest, NamesTheFileThatIsMissing) {
  EXPECT_THAT(SafetensorsFile::Open("/no/such/file"),
              StatusIs(absl::StatusCode::kNotFound, HasSubstr("/no/such")));
}

TEST_F(SafetensorsTest, RefusesAFileThatIsTooShortForALength) {
  for (const char* bytes : {"", "1234567"}) {
    std::ofstream(path_, std::ios::binary) << bytes;
    EXPECT_THAT(SafetensorsFile::Open(path_),
                StatusIs(kDataLoss, HasSubstr("needs 8 bytes or more")));
  }
}

TEST_F(SafetensorsTest, RefusesALengthBeyondTheFile) {
  EXPECT_THAT(Open("{}", 0, 3),
              StatusIs(kDataLoss, HasSubstr("found a length of 3")));
  EXPECT_THAT(Open("{}", 0, INT64_MAX), StatusIs(kDataLoss));
  EXPECT_THAT(Open("{}", 0, int64_t{1} << 40), StatusIs(kDataLoss));
}

TEST_F(SafetensorsTest, RefusesAHeaderThatIsCutOff) {
  const std::string header = "{" + Entry("a", "BF16", "[2]", "[0,4]") + "}";
  for (size_t size = 0; size < header.size(); ++size) {
    EXPECT_THAT(Open(header.substr(0, size), 4), StatusIs(kDataLoss)) << size;
  }
}

TEST_F(SafetensorsTest, RefusesAHeaderThatIsNoObject) {
  ExpectRefused("[]", 0, "needs a JSON object");
  ExpectRefused("{\"a\":1}", 0, "tensor a: needs an object, found 1");
  ExpectRefused("not json", 0, "needs a JSON object");
}

TEST_F(SafetensorsTest, RefusesDataBeyondTheFile) {
  ExpectRefused("{" + Entry("a", "BF16", "[4]", "[0,8]") + "}", 6,
                "tensor a: needs data to byte 8, found 6 bytes");
}

TEST_F(SafetensorsTest, RefusesBytesThatNobodyOwns) {
  ExpectRefused("{" + Entry("a", "BF16", "[2]", "[0,4]") + "}", 6,
                "needs 4 bytes of data, found 6");
}

TEST_F(SafetensorsTest, RefusesOverlapsAndGaps) {
  ExpectRefused("{" + Entry("a", "BF16", "[4]", "[0,8]") + "," +
                    Entry("b", "BF16", "[4]", "[4,12]") + "}",
                12, "tensor b: needs data from byte 8");
  ExpectRefused("{" + Entry("a", "BF16", "[2]", "[0,4]") + "," +
                    Entry("b", "BF16", "[2]", "[8,12]") + "}",
                12, "a gap");
}

TEST_F(SafetensorsTest, RefusesAShapeThatDoesNotFitItsBytes) {
  ExpectRefused("{" + Entry("a", "BF16", "[3]", "[0,4]") + "}", 4,
                "tensor a: needs 6 bytes for BF16 [3]");
  ExpectRefused("{" + Entry("a", "F32", "[2]", "[0,4]") + "}", 4,
                "needs 8 bytes for F32 [2]");
  ExpectRefused(
      "{" + Entry("a", "BF16", "[4294967296,4294967296]", "[0,4]") + "}", 4,
      "needs over 2^63 bytes");
}

TEST_F(SafetensorsTest, RefusesWrongFields) {
  ExpectRefused("{" + Entry("a", "Q4", "[2]", "[0,4]") + "}", 4, "\"Q4\"");
  ExpectRefused("{" + Entry("a", "BF16", "[-2]", "[0,4]") + "}", 4, "shape");
  ExpectRefused("{" + Entry("a", "BF16", "[2.0]", "[0,4]") + "}", 4, "shape");
  ExpectRefused("{" + Entry("a", "BF16", "2", "[0,4]") + "}", 4, "shape");
  ExpectRefused("{" + Entry("a", "BF16", "[2]", "[4,0]") + "}", 4,
                "data_offsets");
  ExpectRefused("{" + Entry("a", "BF16", "[2]", "[4]") + "}", 4,
                "data_offsets");
  ExpectRefused("{\"a\":{\"shape\":[2],\"data_offsets\":[0,4]}}", 4,
                "dtype: needs");
}

TEST_F(SafetensorsTest, RefusesANameThatStandsThereTwice) {
  const std::string entry = Entry("a", "BF16", "[2]", "[0,4]");
  ExpectRefused("{" + entry + "," + entry + "}", 4,
                "tensor a: needs one entry, found two");
}

}  // namespace
}  // namespace lapidary
