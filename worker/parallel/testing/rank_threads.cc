#include "worker/parallel/testing/rank_threads.h"

#include <thread>
#include <vector>

#include "worker/parallel/local_collective.h"

namespace lapidary {

void RunThreads(int num_ranks, const std::function<void(Collective&)>& body) {
  LocalGroup group(num_ranks);
  std::vector<std::thread> threads;
  for (int rank = 0; rank < num_ranks; ++rank) {
    threads.emplace_back([&, rank] { body(group.rank(rank)); });
  }
  for (std::thread& thread : threads) thread.join();
}

}  // namespace lapidary
