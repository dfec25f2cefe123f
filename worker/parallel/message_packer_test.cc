#include "worker/parallel/message_packer.h"

#include <cstring>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "kernels/tensor.h"
#include "worker/parallel/collective.h"

namespace lapidary {
namespace {

using ::testing::ElementsAre;
using ::testing::ElementsAreArray;

std::vector<float> FloatsOf(const MessagePacker::Message& message) {
  std::vector<float> floats(message.bytes / sizeof(float));
  std::memcpy(floats.data(), message.data, message.bytes);
  return floats;
}

class MessagePackerTest : public ::testing::Test {
 protected:
  // Columns [first, first + count) of both rows.
  Tensor Cols(int first, int count) {
    return Tensor{values_.data(), DType::kF32, 2, 4, 4}.Cols(first, count);
  }
  void Lay(const std::vector<RankPart>& parts, int num_ranks) {
    packer_.Place(staging_.Reserve(packer_.Lay(parts, num_ranks)));
  }
  Tensor Row(int r) { return {&values_[4 * r], DType::kF32, 1, 4, 4}; }

  std::vector<float> values_ = {0, 1, 2, 3, 10, 11, 12, 13};
  StagingMemory staging_;
  MessagePacker packer_;
};

TEST_F(MessagePackerTest, LeavesADensePartWhereItIs) {
  const std::vector<RankPart> parts = {{2, Row(1)}};
  Lay(parts, 3);
  EXPECT_EQ(packer_.messages()[2].data, static_cast<void*>(&values_[4]));
  EXPECT_EQ(packer_.messages()[2].bytes, 16);
  EXPECT_EQ(packer_.messages()[0].bytes, 0);
  EXPECT_EQ(packer_.total_bytes(), 16);
}

TEST_F(MessagePackerTest, PacksTheRowsOfAStridedPart) {
  const std::vector<RankPart> parts = {{1, Cols(1, 2)}};
  Lay(parts, 2);
  packer_.Pack();
  EXPECT_THAT(FloatsOf(packer_.messages()[1]), ElementsAre(1, 2, 11, 12));
}

TEST_F(MessagePackerTest, PacksSeveralPartsOfARankInTheirOrder) {
  const std::vector<RankPart> parts = {
      {1, Cols(3, 1)}, {0, Row(0)}, {1, Row(1)}, {1, Cols(0, 1)}};
  Lay(parts, 2);
  packer_.Pack();
  EXPECT_THAT(FloatsOf(packer_.messages()[1]),
              ElementsAre(3, 13, 10, 11, 12, 13, 0, 10));
  EXPECT_EQ(packer_.messages()[0].data, static_cast<void*>(&values_[0]));
  EXPECT_EQ(packer_.total_bytes(), 16 + 32);
}

TEST_F(MessagePackerTest, PassesEmptyPartsBy) {
  const std::vector<RankPart> parts = {
      {0, Cols(0, 0)}, {0, Row(1)}, {1, Cols(1, 0)}};
  Lay(parts, 2);
  EXPECT_EQ(packer_.messages()[0].data, static_cast<void*>(&values_[4]));
  EXPECT_EQ(packer_.messages()[1].bytes, 0);
}

TEST_F(MessagePackerTest, UnpacksToWhereThePartsAre) {
  const std::vector<RankPart> parts = {{0, Cols(2, 2)}, {0, Cols(0, 1)}};
  Lay(parts, 1);
  const std::vector<float> message = {1, 2, 3, 4, 5, 6};
  std::memcpy(packer_.messages()[0].data, message.data(), 24);
  packer_.Unpack();
  EXPECT_THAT(values_, ElementsAreArray({5, 1, 1, 2, 6, 11, 3, 4}));
}

TEST(StagingMemoryTest, StaysWhereItIsLargeEnough) {
  StagingMemory memory;
  char* const large = memory.Reserve(1000);
  EXPECT_EQ(memory.Reserve(10), large);
  EXPECT_EQ(memory.Reserve(1000), large);
}

}  // namespace
}  // namespace lapidary
