#include "worker/model/kv_store.h"

#include "common/status_macros.h"
#include "common/tokens.h"

namespace lapidary {
namespace {

// A layer's planes without their memory.  Window layers are split over the
// ranks by KV heads, global layers by pages, whole.
KvPlanes PlanesOf(const LayerConfig& layer, DType dtype, int num_ranks) {
  KvPlanes planes;
  planes.dtype = dtype;
  planes.kv_heads = layer.type == LayerType::kWindow
                        ? layer.num_kv_heads / num_ranks
                        : layer.num_kv_heads;
  planes.head_dim = layer.head_dim;
  planes.key_half = layer.key_half;
  return planes;
}

int64_t KeyPageBytes(const KvPlanes& planes) {
  return int64_t{planes.kv_heads} * kPageTokens * 2 * planes.key_half *
         SizeOf(planes.dtype);
}

int64_t ValuePageBytes(const KvPlanes& planes) {
  return int64_t{planes.kv_heads} * kPageTokens * planes.head_dim *
         SizeOf(planes.dtype);
}

}  // namespace

PageBytes KvPageBytes(const GemmaConfig& config, DType dtype, int num_ranks) {
  PageBytes bytes;
  for (const LayerConfig& layer : config.layers) {
    const KvPlanes planes = PlanesOf(layer, dtype, num_ranks);
    int64_t& family =
        layer.type == LayerType::kWindow ? bytes.window : bytes.global;
    family += KeyPageBytes(planes) + ValuePageBytes(planes);
  }
  return bytes;
}

absl::StatusOr<std::unique_ptr<KvStore>> KvStore::Create(
    const GemmaConfig& config, DType dtype, int num_ranks, int num_global_pages,
    int num_window_pages, Backend& backend) {
  std::unique_ptr<KvStore> store(new KvStore(backend));
  for (const LayerConfig& layer : config.layers) {
    const int64_t num_pages =
        layer.type == LayerType::kWindow ? num_window_pages : num_global_pages;
    // In the store before its memory is: the destructor frees what there is.
    KvPlanes& planes =
        store->planes_.emplace_back(PlanesOf(layer, dtype, num_ranks));
    ASSIGN_OR_RETURN(planes.keys,
                     backend.Allocate(num_pages * KeyPageBytes(planes)));
    ASSIGN_OR_RETURN(planes.values,
                     backend.Allocate(num_pages * ValuePageBytes(planes)));
  }
  return store;
}

KvStore::~KvStore() {
  for (const KvPlanes& planes : planes_) {
    backend_.Free(planes.keys);
    backend_.Free(planes.values);
  }
}

}  // namespace lapidary
