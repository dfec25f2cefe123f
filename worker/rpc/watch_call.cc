#include "worker/rpc/watch_call.h"

#include <utility>

#include "grpcpp/support/status.h"

namespace lapidary {
namespace {

void FillPages(const KvCache::PoolUse& use, int64_t page_bytes,
               v1::PageFamilyStatus& pages) {
  pages.set_total(static_cast<uint64_t>(use.total));
  pages.set_used(static_cast<uint64_t>(use.used));
  pages.set_bytes_per_page(static_cast<uint64_t>(page_bytes));
}

void AddRanks(const GroupDescription& group, const EngineState& state,
              v1::GroupState& message) {
  for (size_t rank = 0; rank < state.rank_global_pages.size(); ++rank) {
    v1::RankStatus& status = *message.add_ranks();
    status.set_rank(static_cast<uint32_t>(rank));
    status.set_host(group.ranks[rank].host);
    status.set_device(group.ranks[rank].device);
    FillPages(state.rank_global_pages[rank], group.global_page_bytes,
              *status.mutable_global_pages());
    // All ranks have the same window pages, each its heads of them.
    FillPages(state.window_pages, group.window_page_bytes,
              *status.mutable_window_pages());
    status.set_replica_bytes(static_cast<uint64_t>(group.replica_bytes));
    status.set_used_replica_bytes(
        static_cast<uint64_t>(state.replica_pages * group.global_page_bytes));
    status.set_gather_bytes(static_cast<uint64_t>(group.gather_bytes));
  }
}

void FillSplit(const PromptSplit& split, v1::PromptSplit& message) {
  message.set_prompt_tokens(static_cast<uint32_t>(split.prompt_tokens));
  message.set_computed_tokens(static_cast<uint32_t>(split.computed_tokens));
  message.set_token_split_rounds(
      static_cast<uint32_t>(split.token_split_rounds));
  message.set_head_split_steps(static_cast<uint32_t>(split.head_split_steps));
  message.set_token_split_tokens(
      static_cast<uint32_t>(split.token_split_tokens));
  message.mutable_range_tokens()->Add(split.range_tokens.begin(),
                                      split.range_tokens.end());
  message.mutable_received_bytes()->Add(split.received_bytes.begin(),
                                        split.received_bytes.end());
  message.set_seconds(split.seconds);
  message.set_transfer_seconds(split.transfer_seconds);
  message.set_measured_balance(split.measured_balance);
  message.set_rounds_over_limit(static_cast<uint32_t>(split.rounds_over_limit));
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
      sending_ = ToMessage(state);
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

v1::GroupState WatchCall::ToMessage(const EngineState& state) {
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
  AddRanks(group_, state, message);
  if (state.last_split.prompt_tokens > 0) {
    FillSplit(state.last_split, *message.mutable_last_split());
  }
  message.set_failure(state.failure);
  message.set_failure_cause(state.failure_cause);
  return message;
}

}  // namespace lapidary
