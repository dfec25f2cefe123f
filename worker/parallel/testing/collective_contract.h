// What every Collective must do, as tests: an implementation instantiates them.
//
//   INSTANTIATE_TEST_SUITE_P(Threads, CollectiveContract,
//                            ::testing::ValuesIn(Groups({1, 2}, RunThreads)));

#ifndef WORKER_PARALLEL_TESTING_COLLECTIVE_CONTRACT_H_
#define WORKER_PARALLEL_TESTING_COLLECTIVE_CONTRACT_H_

#include <functional>
#include <vector>

#include "gtest/gtest.h"
#include "worker/parallel/collective.h"

namespace lapidary {

// What a rank does.
using RankBody = std::function<void(Collective&)>;

// Runs `body` as each rank of a group, in a thread each, and returns when all
// have.  No collective goes before.
using RunRanks = void (*)(int num_ranks, const RankBody& body);

struct GroupParam {
  int num_ranks = 0;
  RunRanks run = nullptr;
};

std::vector<GroupParam> Groups(const std::vector<int>& num_ranks, RunRanks run);

class CollectiveContract : public ::testing::TestWithParam<GroupParam> {
 protected:
  int num_ranks() const { return GetParam().num_ranks; }
  void Run(const RankBody& body) const {
    GetParam().run(GetParam().num_ranks, body);
  }
};

}  // namespace lapidary

#endif  // WORKER_PARALLEL_TESTING_COLLECTIVE_CONTRACT_H_
