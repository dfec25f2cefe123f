#include "worker/loader/piece_threads.h"

#include <atomic>
#include <vector>

#include "common/testing/status_matchers.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace lapidary {
namespace {

using ::testing::Each;

TEST(PieceThreadsTest, DoesEachPieceOnce) {
  std::vector<std::atomic<int>> done(1000);
  EXPECT_OK(RunPieces("test", 3, 1000, [&done] {
    return [&done](int piece) {
      ++done[piece];
      return absl::OkStatus();
    };
  }));
  EXPECT_THAT(std::vector<int>(done.begin(), done.end()), Each(1));
}

TEST(PieceThreadsTest, BeginsNoPieceAfterAnError) {
  std::vector<int> begun;
  EXPECT_THAT(RunPieces("test", 1, 1000,
                        [&begun] {
                          return [&begun](int piece) {
                            begun.push_back(piece);
                            return piece == 2 ? absl::DataLossError("bad")
                                              : absl::OkStatus();
                          };
                        }),
              StatusIs(absl::StatusCode::kDataLoss, "bad"));
  EXPECT_EQ(begun, std::vector<int>({0, 1, 2}));
}

TEST(PieceThreadsTest, GivesEachThreadItsOwnWork) {
  std::atomic<int> num_made = 0;
  EXPECT_OK(RunPieces("test", 4, 0, [&num_made] {
    ++num_made;
    return [](int) { return absl::OkStatus(); };
  }));
  EXPECT_EQ(num_made, 4);
}

}  // namespace
}  // namespace lapidary
