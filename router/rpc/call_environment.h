// What every call of a client works with.

#ifndef ROUTER_RPC_CALL_ENVIRONMENT_H_
#define ROUTER_RPC_CALL_ENVIRONMENT_H_

#include "common/clock.h"
#include "router/metrics.h"
#include "router/rpc/call_counter.h"
#include "router/rpc/dispatcher.h"
#include "router/rpc/served_model.h"
#include "router/rpc/tokenize_pool.h"

namespace lapidary {

// All of it outlives the calls.
struct CallEnvironment {
  const ServedModel& model;
  Dispatcher& dispatcher;
  TokenizePool& pool;
  RouterMetrics& metrics;
  Clock& clock;
  CallCounter& calls;
};

}  // namespace lapidary

#endif  // ROUTER_RPC_CALL_ENVIRONMENT_H_
