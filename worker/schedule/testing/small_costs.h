// Costs of a small model in round numbers.

#ifndef WORKER_SCHEDULE_TESTING_SMALL_COSTS_H_
#define WORKER_SCHEDULE_TESTING_SMALL_COSTS_H_

#include "worker/schedule/cost_model.h"

namespace lapidary {

// On one rank a token takes 1 ms, and 1 us for each position before it; reading
// the weights takes 4 ms.  The link is slow enough, 3 MB/s, for a prompt of
// several pages to go in rounds, and fast enough for one of a page not to.
CostModel SmallCosts(int num_ranks, int window);

}  // namespace lapidary

#endif  // WORKER_SCHEDULE_TESTING_SMALL_COSTS_H_
