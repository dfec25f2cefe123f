#include "worker/model/kv_store.h"

#include "common/status_macros.h"
#include "common/tokens.h"
#include "worker/parallel/context_split.h"

namespace lapidary {
namespace {

// A layer's planes without their memory.  Window layers are split over the
// ranks by KV heads, global layers by pages, with all heads.
KvPlanes PlanesOf(const LayerConfig& layer, DType dtype, int num_ranks) {
  KvPlanes planes;
  planes.dtype = dtype;
  planes.kv_heads = layer.type == LayerType::kWindow
                        ? ShareOfKvHeads(layer.num_kv_heads, 0, num_ranks).count
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
    const GemmaConfig& config, DType dtype, int num_ranks, const KvPages& pages,
    Backend& backend) {
  std::unique_ptr<KvStore> store(new KvStore(backend));
  for (const LayerConfig& layer : config.layers) {
    const bool global = layer.type == LayerType::kGlobal;
    // In the store before its memory is: the destructor frees what there is.
    const KvPlanes planes = PlanesOf(layer, dtype, num_ranks);
    store->planes_.push_back(planes);
    RETURN_IF_ERROR(store->Allocate(global ? pages.global : pages.window,
                                    store->planes_.back()));
    store->replica_.push_back(planes);
    RETURN_IF_ERROR(
        store->Allocate(global ? pages.replica : 0, store->replica_.back()));
  }
  return store;
}

absl::Status KvStore::Allocate(int num_pages, KvPlanes& planes) {
  if (num_pages == 0) return absl::OkStatus();
  ASSIGN_OR_RETURN(planes.keys,
                   backend_.Allocate(num_pages * KeyPageBytes(planes)));
  ASSIGN_OR_RETURN(planes.values,
                   backend_.Allocate(num_pages * ValuePageBytes(planes)));
  return absl::OkStatus();
}

KvStore::~KvStore() {
  for (const auto* family : {&planes_, &replica_}) {
    for (const KvPlanes& planes : *family) {
      backend_.Free(planes.keys);
      backend_.Free(planes.values);
    }
  }
}

}  // namespace lapidary
