// Ranks as threads of a test.

#ifndef WORKER_PARALLEL_TESTING_RANK_THREADS_H_
#define WORKER_PARALLEL_TESTING_RANK_THREADS_H_

#include <functional>

#include "worker/parallel/collective.h"

namespace lapidary {

// Runs `body` as each rank of a LocalGroup, in a thread each, and returns when
// all have.  No collective goes before.
void RunThreads(int num_ranks, const std::function<void(Collective&)>& body);

}  // namespace lapidary

#endif  // WORKER_PARALLEL_TESTING_RANK_THREADS_H_
