// The bytes of key/value memory: per layer, planes of pages of its family.

#ifndef WORKER_MODEL_KV_STORE_H_
#define WORKER_MODEL_KV_STORE_H_

#include <cstdint>
#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "kernels/attention.h"
#include "kernels/backend.h"
#include "worker/model/gemma_config.h"

namespace lapidary {

// Bytes that one page takes over all layers of its family, on one rank.
struct PageBytes {
  int64_t global = 0;
  int64_t window = 0;
};

// Pages that a rank has.
struct KvPages {
  int global = 0;
  int window = 0;
  // The replica: pages of the global layers for one prompt that is prefilled
  // under token split, its logical pages 0, 1, … in order.
  int replica = 0;
};

// REQUIRES: one of num_ranks and the window layers' KV heads divides the other.
PageBytes KvPageBytes(const GemmaConfig& config, DType dtype, int num_ranks);

// Owned by the model's thread.
class KvStore {
 public:
  // Errors: RESOURCE_EXHAUSTED.
  static absl::StatusOr<std::unique_ptr<KvStore>> Create(
      const GemmaConfig& config, DType dtype, int num_ranks,
      const KvPages& pages, Backend& backend);
  ~KvStore();

  KvStore(const KvStore&) = delete;
  KvStore& operator=(const KvStore&) = delete;

  const KvPlanes& planes(int layer) const { return planes_[layer]; }
  // Of a global layer.
  const KvPlanes& replica(int layer) const { return replica_[layer]; }

 private:
  explicit KvStore(Backend& backend) : backend_(backend) {}

  absl::Status Allocate(int num_pages, KvPlanes& planes);

  Backend& backend_;
  std::vector<KvPlanes> planes_;   // By layer.
  std::vector<KvPlanes> replica_;  // By layer; no memory for window layers.
};

}  // namespace lapidary

#endif  // WORKER_MODEL_KV_STORE_H_
