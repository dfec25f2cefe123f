// How fast the ranks of a group exchange: measured once at the start.

#ifndef WORKER_ENGINE_LINK_PROBE_H_
#define WORKER_ENGINE_LINK_PROBE_H_

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "common/clock.h"
#include "worker/parallel/collective.h"

namespace lapidary {

struct LinkRates {
  double bytes = 0;        // That a rank receives a second, from all others.
  absl::Duration latency;  // Of an exchange, however small it is.
};

// Called on all ranks at the same time.
//
//   latency   64 bytes from every rank to every other
//   bytes     4 MiB to every rank, an equal part from each of the others
//
// Each is the median of several exchanges.  A group of one has no link: zeros.
//
// Errors: the collective's.
absl::StatusOr<LinkRates> MeasureLink(Collective& collective, Clock& clock);

}  // namespace lapidary

#endif  // WORKER_ENGINE_LINK_PROBE_H_
