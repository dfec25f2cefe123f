#include "worker/parallel/gloo_collective.h"

#include <barrier>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/time/time.h"
#include "common/deadline.h"
#include "common/mutex.h"
#include "common/testing/status_matchers.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "kernels/tensor.h"
#include "worker/parallel/testing/collective_contract.h"

namespace lapidary {
namespace {

using ::testing::HasSubstr;

// Where threads of this process leave their strings for each other.
class Blackboard {
 public:
  explicit Blackboard(int num_ranks)
      : strings_(num_ranks), missing_(num_ranks) {}

  std::vector<std::string> Gather(int rank, std::string own) {
    MutexLock lock(mutex_);
    strings_[rank] = std::move(own);
    --missing_;
    complete_.SignalAll();
    while (missing_ > 0) complete_.Wait(mutex_);
    return strings_;
  }

 private:
  Mutex mutex_;
  CondVar complete_;
  std::vector<std::string> strings_ ABSL_GUARDED_BY(mutex_);
  int missing_ ABSL_GUARDED_BY(mutex_);
};

GlooOptions OptionsOf(int rank, int num_ranks, Blackboard& blackboard) {
  return {.rank = rank,
          .num_ranks = num_ranks,
          .host = "127.0.0.1",
          .all_gather =
              [&blackboard, rank](std::string own) {
                return blackboard.Gather(rank, std::move(own));
              },
          .deadline = Deadline::In(absl::Minutes(5))};
}

// Each rank is a thread with connections of its own, as processes would have.
void RunGloo(int num_ranks, const RankBody& body) {
  Blackboard blackboard(num_ranks);
  std::barrier all_done(num_ranks);
  std::vector<std::thread> threads;
  for (int rank = 0; rank < num_ranks; ++rank) {
    threads.emplace_back([&, rank] {
      auto collective = ConnectGloo(OptionsOf(rank, num_ranks, blackboard));
      ASSERT_OK(collective);
      body(**collective);
      all_done.arrive_and_wait();
    });
  }
  for (std::thread& thread : threads) thread.join();
}

INSTANTIATE_TEST_SUITE_P(Gloo, CollectiveContract,
                         ::testing::ValuesIn(Groups({2, 3, 4, 8}, RunGloo)));

TEST(GlooCollectiveTest, NamesARankThatHasGone) {
  Blackboard blackboard(3);
  std::barrier all_connected(3);
  std::vector<std::thread> threads;
  for (int rank = 0; rank < 3; ++rank) {
    threads.emplace_back([&, rank] {
      auto collective = ConnectGloo(OptionsOf(rank, 3, blackboard));
      all_connected.arrive_and_wait();
      ASSERT_OK(collective);
      if (rank == 2) return;
      std::vector<float> x(1000);
      const Tensor whole = {x.data(), DType::kF32, 1, 1000, 1000};
      const RankPart part = {2, whole};
      const auto id = (*collective)
                          ->Start(CollectiveKind::kSendReceive, Traffic::kHead,
                                  {}, {&part, 1});
      // The connection may be closed already.
      const absl::Status status =
          id.ok() ? (*collective)->Wait(*id) : id.status();
      EXPECT_THAT(status, StatusIs(absl::StatusCode::kUnavailable,
                                   HasSubstr("rank 2: ")));
    });
  }
  for (std::thread& thread : threads) thread.join();
}

TEST(GlooCollectiveTest, RefusesAnAddressOfAnotherMachine) {
  Blackboard blackboard(1);
  GlooOptions options = OptionsOf(0, 2, blackboard);
  options.host = "192.0.2.1";  // Of documentation, on no machine.
  EXPECT_THAT(ConnectGloo(options), StatusIs(absl::StatusCode::kInvalidArgument,
                                             HasSubstr("192.0.2.1")));
}

TEST(GlooCollectiveTest, GivesUpOnARankThatWentMeanwhile) {
  Blackboard blackboard(2);
  std::thread goes([&] {
    GlooOptions options = OptionsOf(1, 2, blackboard);
    options.all_gather = [&](std::string own) {
      blackboard.Gather(1, std::move(own));
      return absl::CancelledError("goes");
    };
    EXPECT_FALSE(ConnectGloo(options).ok());
  });
  GlooOptions options = OptionsOf(0, 2, blackboard);
  options.all_gather = [&](std::string own) {
    std::vector<std::string> addresses = blackboard.Gather(0, std::move(own));
    goes.join();
    return addresses;
  };
  options.deadline = Deadline::In(absl::Seconds(1));
  EXPECT_THAT(ConnectGloo(options).status().message(), HasSubstr("rank 1"));
}
TEST(GlooCollectiveTest, RefusesAddressesOfAnotherSize) {
  Blackboard blackboard(2);
  GlooOptions options = OptionsOf(0, 2, blackboard);
  options.all_gather = [](std::string own) {
    return std::vector<std::string>{own, "short"};
  };
  EXPECT_THAT(ConnectGloo(options), StatusIs(absl::StatusCode::kUnavailable,
                                             HasSubstr("rank 1: needs")));
}

TEST(GlooCollectiveTest, PassesOnThatRanksDoNotMeet) {
  Blackboard blackboard(2);
  GlooOptions options = OptionsOf(0, 2, blackboard);
  options.all_gather = [](std::string) {
    return absl::DeadlineExceededError("1 of 2 ranks came");
  };
  EXPECT_THAT(ConnectGloo(options),
              StatusIs(absl::StatusCode::kDeadlineExceeded));
}

}  // namespace
}  // namespace lapidary
