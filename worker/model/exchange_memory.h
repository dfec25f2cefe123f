// The memory that a rank's exchanges with other ranks take beside the
// workspace: HostCollective packs messages of several tensors, or of tensors
// that are not dense, in memory of its own, which grows to the largest use.

#ifndef WORKER_MODEL_EXCHANGE_MEMORY_H_
#define WORKER_MODEL_EXCHANGE_MEMORY_H_

#include <cstdint>

#include "kernels/tensor.h"
#include "worker/model/gemma_config.h"
#include "worker/model/workspace.h"

namespace lapidary {

// Bytes of messages that a rank packs and unpacks at once, at most, and of the
// others' parts of a sum: a bound of HostCollective::memory_bytes().  0 in a
// group of one.
//
// `gather_pages` are those of the buffer that global keys travel through.
int64_t ExchangeMemoryBytes(const GemmaConfig& config,
                            const Workspace::Shape& shape, int gather_pages,
                            DType dtype);

}  // namespace lapidary

#endif  // WORKER_MODEL_EXCHANGE_MEMORY_H_
