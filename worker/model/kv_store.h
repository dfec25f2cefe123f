// The bytes of key/value memory: per layer, planes of pages of its family.

#ifndef WORKER_MODEL_KV_STORE_H_
#define WORKER_MODEL_KV_STORE_H_

#include <cstdint>
#include <memory>
#include <vector>

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

// REQUIRES: num_ranks divides the window layers' KV heads.
PageBytes KvPageBytes(const GemmaConfig& config, DType dtype, int num_ranks);

// Owned by the model's thread.
class KvStore {
 public:
  // Errors: RESOURCE_EXHAUSTED.
  static absl::StatusOr<std::unique_ptr<KvStore>> Create(
      const GemmaConfig& config, DType dtype, int num_ranks,
      int num_global_pages, int num_window_pages, Backend& backend);
  ~KvStore();

  KvStore(const KvStore&) = delete;
  KvStore& operator=(const KvStore&) = delete;

  const KvPlanes& planes(int layer) const { return planes_[layer]; }

 private:
  explicit KvStore(Backend& backend) : backend_(backend) {}

  Backend& backend_;
  std::vector<KvPlanes> planes_;  // By layer.
};

}  // namespace lapidary

#endif  // WORKER_MODEL_KV_STORE_H_
