#include "worker/rpc/watch_call.h"

#include <utility>

#include "common/group_messages.h"
#include "common/group_status.h"
#include "grpcpp/support/status.h"

namespace lapidary {
namespace {

PageUse UseOf(const KvCache::PoolUse& use, int64_t page_bytes) {
  return {.total = use.total, .used = use.used, .bytes_per_page = page_bytes};
}

RankStatus StatusOfRank(int rank, const GroupDescription& group,
                        const EngineState& state) {
  return {.rank = rank,
          .host = group.ranks[rank].host,
          .device = group.ranks[rank].device,
          .global_pages =
              UseOf(state.rank_global_pages[rank], group.global_page_bytes),
          // All ranks have the same window pages, each its heads of them.
          .window_pages = UseOf(state.window_pages, group.window_page_bytes),
          .replica_bytes = group.replica_bytes,
          .used_replica_bytes = state.replica_pages * group.global_page_bytes,
          .gather_bytes = group.gather_bytes};
}

}  // namespace

WatchCall* WatchCall::Start(const GroupDescription& group, StateBoard& board,
                            Ticker& ticker) {
  const std::shared_ptr<WatchCall> call(new WatchCall(group, board));
  call->self_ = call;
  call->Listen(ticker);
  call->Advance();
  return call.get();
}

void WatchCall::Listen(Ticker& ticker) {
  const auto send_state = [weak = weak_from_this()] {
    if (const std::shared_ptr<WatchCall> call = weak.lock()) call->SendState();
  };
  listener_ = board_.AddListener(send_state);
  MutexLock lock(mutex_);
  subscription_ = ticker.Subscribe(send_state);
}

void WatchCall::OnWriteDone(bool ok) {
  {
    MutexLock lock(mutex_);
    writing_ = false;
    if (!ok) cancelled_ = true;
  }
  Advance();
}

void WatchCall::OnCancel() {
  {
    MutexLock lock(mutex_);
    cancelled_ = true;
  }
  Advance();
}

void WatchCall::OnDone() {
  const std::shared_ptr<WatchCall> self = std::move(self_);
  board_.RemoveListener(listener_);
  MutexLock lock(mutex_);
  subscription_.reset();
}

void WatchCall::SendState() {
  {
    MutexLock lock(mutex_);
    changed_ = true;
  }
  Advance();
}

void WatchCall::Advance() {
  bool ends;
  {
    MutexLock lock(mutex_);
    if (writing_ || finished_) return;
    ends = cancelled_ || last_;
    if (ends) {
      finished_ = true;
    } else if (changed_) {
      const EngineState state = board_.state();
      writing_ = true;
      changed_ = false;
      last_ = state.stopped;
      sending_ = MessageOf(state);
    } else {
      return;
    }
  }
  // Without the lock: gRPC may call back before it returns.
  if (ends) {
    Finish(grpc::Status(grpc::StatusCode::UNAVAILABLE,
                        "the worker is shutting down"));
  } else {
    StartWrite(&sending_);
  }
}

v1::GroupState WatchCall::MessageOf(const EngineState& state) {
  v1::GroupState message;
  message.set_epoch(group_.epoch);
  message.set_sequence(++num_sent_);
  message.set_draining(state.draining);
  message.set_running_requests(state.load.running);
  message.set_waiting_requests(state.load.waiting);
  message.set_queued_tokens(state.load.unprefilled_tokens);
  message.set_total_global_pages(state.global_pages.total);
  message.set_used_global_pages(state.global_pages.used);
  message.set_total_window_pages(state.window_pages.total);
  message.set_used_window_pages(state.window_pages.used);
  message.set_global_page_bytes(group_.global_page_bytes);
  message.set_window_page_bytes(group_.window_page_bytes);
  message.set_prefill_tokens_per_second(state.prefill_tokens_per_second);
  message.set_decode_tokens_per_second(state.decode_tokens_per_second);
  for (size_t rank = 0; rank < state.rank_global_pages.size(); ++rank) {
    *message.add_ranks() =
        ToMessage(StatusOfRank(static_cast<int>(rank), group_, state));
  }
  if (state.last_split.prompt_tokens > 0) {
    *message.mutable_last_split() = ToMessage(state.last_split);
  }
  message.set_failure(state.failure);
  message.set_failure_cause(state.failure_cause);
  return message;
}

}  // namespace lapidary
