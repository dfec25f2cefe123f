#include "common/model_files.h"

#include <fstream>

#include "common/testing/status_matchers.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace lapidary {
namespace {

using ::testing::HasSubstr;

class ModelFilesTest : public ::testing::Test {
 protected:
  void Write(const std::string& name, const std::string& bytes) {
    std::ofstream(directory_ + "/" + name, std::ios::binary) << bytes;
  }

  std::string Digest(const std::string& config) {
    Write("config.json", config);
    const absl::StatusOr<ModelDigests> digests = DigestModelFiles(directory_);
    EXPECT_OK(digests);
    return digests.ok() ? digests->config : "";
  }

  const std::string directory_ = ::testing::TempDir();
};

TEST_F(ModelFilesTest, ConfigDigestIgnoresLayoutButNotValues) {
  Write("tokenizer.json", "{}");
  const std::string digest = Digest(R"({"a": 1, "b": [2]})");
  EXPECT_EQ(digest.size(), 32u);
  EXPECT_EQ(Digest(R"({"b":[2],"a":1})"), digest);
  EXPECT_NE(Digest(R"({"b":[3],"a":1})"), digest);
}

TEST_F(ModelFilesTest, TokenizerDigestIsOfTheBytes) {
  Write("config.json", "{}");
  Write("tokenizer.json", "{}");
  const absl::StatusOr<ModelDigests> first = DigestModelFiles(directory_);
  Write("tokenizer.json", "{ }");
  const absl::StatusOr<ModelDigests> second = DigestModelFiles(directory_);
  ASSERT_OK(first);
  ASSERT_OK(second);
  EXPECT_EQ(first->config, second->config);
  EXPECT_NE(first->tokenizer, second->tokenizer);
}

TEST_F(ModelFilesTest, RefusesAConfigThatIsNotJson) {
  Write("config.json", "{");
  Write("tokenizer.json", "{}");
  EXPECT_THAT(DigestModelFiles(directory_),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       HasSubstr("config.json: needs a JSON object")));
}

}  // namespace
}  // namespace lapidary
