// What the parts of one rank's forward pass share.

#ifndef WORKER_MODEL_RANK_RESOURCES_H_
#define WORKER_MODEL_RANK_RESOURCES_H_

#include "kernels/backend.h"
#include "worker/model/gemma_config.h"
#include "worker/model/kv_store.h"
#include "worker/model/workspace.h"
#include "worker/parallel/collective.h"
#include "worker/parallel/context_attention.h"

namespace lapidary {

// References only; they outlive the model.
struct RankResources {
  const GemmaConfig& config;
  KvStore& store;
  Backend& backend;
  Collective& collective;
  Workspace& workspace;
  ContextAttention& context_attention;
};

}  // namespace lapidary

#endif  // WORKER_MODEL_RANK_RESOURCES_H_
