#include "worker/parallel/window_exchange.h"

#include <algorithm>

#include "common/status_macros.h"
#include "glog/logging.h"

namespace lapidary {

absl::StatusOr<std::unique_ptr<WindowExchange>> WindowExchange::Create(
    const Limits& limits, Backend& backend, Collective& collective) {
  std::unique_ptr<WindowExchange> exchange(
      new WindowExchange(limits, backend, collective));
  RETURN_IF_ERROR(exchange->Allocate());
  return exchange;
}

WindowExchange::~WindowExchange() {
  for (void* memory :
       {earlier_keys_, earlier_values_, tail_keys_, tail_values_}) {
    backend_.Free(memory);
  }
}

int64_t WindowExchange::MemoryBytes(const Limits& limits) {
  return 2 * int64_t{limits.window - 1} *
         (limits.key_cols + limits.value_cols) * SizeOf(limits.dtype);
}

absl::Status WindowExchange::Allocate() {
  const int64_t row_bytes = int64_t{limits_.window - 1} * SizeOf(limits_.dtype);
  for (void** keys : {&earlier_keys_, &tail_keys_}) {
    ASSIGN_OR_RETURN(*keys, backend_.Allocate(row_bytes * limits_.key_cols));
  }
  for (void** values : {&earlier_values_, &tail_values_}) {
    ASSIGN_OR_RETURN(*values,
                     backend_.Allocate(row_bytes * limits_.value_cols));
  }
  return absl::OkStatus();
}

absl::Status WindowExchange::Start(const RoundSplit& split,
                                   const Layer& layer) {
  CHECK_EQ(split.num_ranks(), collective_.size());
  split_ = &split;
  layer_ = layer;
  const int start = split.round().begin;
  earlier_ = {std::max(0, start - (limits_.window - 1)), start};
  ReadEarlierWindow();
  ListHalo();
  ASSIGN_OR_RETURN(halo_, StartListed(CollectiveKind::kSendReceive));
  ListTail();
  ASSIGN_OR_RETURN(tail_, StartListed(CollectiveKind::kAllToAll));
  return absl::OkStatus();
}

absl::Status WindowExchange::FinishHalo() { return collective_.Wait(halo_); }

absl::Status WindowExchange::FinishTail() {
  RETURN_IF_ERROR(collective_.Wait(tail_));
  const PositionRange tail = split_->tail();
  if (tail.empty()) return absl::OkStatus();
  const KeyRows rows = Staged(tail_keys_, tail_values_, 0, tail.size());
  AttentionSequence sequence = layer_.pages;
  sequence.first_row = 0;
  sequence.num_tokens = tail.size();
  sequence.start = tail.begin;
  backend_.WriteKv({.keys = rows.keys,
                    .values = rows.values,
                    .planes = layer_.planes,
                    .sequences = {&sequence, 1},
                    .first_positions = {&tail.begin, 1}});
  return absl::OkStatus();
}

KvHeadShare WindowExchange::Share(int rank) const {
  return ShareOfKvHeads(layer_.kv_heads, rank, collective_.size());
}

WindowExchange::KeyRows WindowExchange::StepRows(PositionRange range) const {
  const int first = range.begin - split_->halo(collective_.rank()).begin;
  return {.keys = layer_.keys.Rows(first, range.size()),
          .values = layer_.values.Rows(first, range.size())};
}

WindowExchange::KeyRows WindowExchange::HeadsOf(const KeyRows& rows,
                                                int rank) const {
  const KvHeadShare share = Share(rank);
  const int keys = 2 * layer_.planes.key_half;
  const int values = layer_.planes.head_dim;
  return {
      .keys = rows.keys.Cols(share.first * keys, share.count * keys),
      .values = rows.values.Cols(share.first * values, share.count * values)};
}

WindowExchange::KeyRows WindowExchange::Staged(void* keys, void* values,
                                               int first, int count) const {
  const auto rows = [&](void* memory, int width) {
    const int cols = layer_.planes.kv_heads * width;
    const Tensor all = {memory, limits_.dtype, first + count, cols, cols};
    return all.Rows(first, count);
  };
  return {.keys = rows(keys, 2 * layer_.planes.key_half),
          .values = rows(values, layer_.planes.head_dim)};
}

// This rank's heads of the positions before the round, from pages to rows.
void WindowExchange::ReadEarlierWindow() {
  if (earlier_.empty()) return;
  const KeyRows rows =
      Staged(earlier_keys_, earlier_values_, 0, earlier_.size());
  backend_.ReadKv({.planes = layer_.planes,
                   .pages = layer_.pages.pages,
                   .first_page = layer_.pages.first_page,
                   .num_pages = layer_.pages.num_pages,
                   .first_position = earlier_.begin,
                   .keys = rows.keys,
                   .values = rows.values});
}

void WindowExchange::ListHalo() {
  const int own = collective_.rank();
  const KvHeadShare own_share = Share(own);
  const auto staged = [&](PositionRange range) {
    return Staged(earlier_keys_, earlier_values_, range.begin - earlier_.begin,
                  range.size());
  };
  const PositionRange own_earlier = Intersect(earlier_, split_->halo(own));
  if (!own_earlier.empty()) {
    Copy(staged(own_earlier), HeadsOf(StepRows(own_earlier), own));
  }
  for (int rank = 0; rank < collective_.size(); ++rank) {
    if (rank == own) continue;
    const KvHeadShare share = Share(rank);
    const bool holds_others = share.first != own_share.first;

    const PositionRange out = Intersect(split_->range(own), split_->halo(rank));
    if (!out.empty()) Send(rank, StepRows(out));
    const PositionRange earlier_out = Intersect(earlier_, split_->halo(rank));
    if (!earlier_out.empty() && holds_others && own_share.primary) {
      Send(rank, staged(earlier_out));
    }

    const PositionRange in = Intersect(split_->range(rank), split_->halo(own));
    if (!in.empty()) Receive(rank, StepRows(in));
    if (!own_earlier.empty() && holds_others && share.primary) {
      Receive(rank, HeadsOf(StepRows(own_earlier), rank));
    }
  }
}

void WindowExchange::ListTail() {
  const int own = collective_.rank();
  const PositionRange tail = split_->tail();
  const auto staged = [&](PositionRange range) {
    return Staged(tail_keys_, tail_values_, range.begin - tail.begin,
                  range.size());
  };
  const PositionRange computed = Intersect(split_->range(own), tail);
  if (!computed.empty()) {
    Copy(HeadsOf(StepRows(computed), own), staged(computed));
  }
  for (int rank = 0; rank < collective_.size(); ++rank) {
    if (rank == own) continue;
    if (!computed.empty()) Send(rank, HeadsOf(StepRows(computed), rank));
    const PositionRange theirs = Intersect(split_->range(rank), tail);
    if (!theirs.empty()) Receive(rank, staged(theirs));
  }
}

void WindowExchange::Send(int rank, const KeyRows& rows) {
  sends_.push_back({rank, rows.keys});
  sends_.push_back({rank, rows.values});
}

void WindowExchange::Receive(int rank, const KeyRows& rows) {
  receives_.push_back({rank, rows.keys});
  receives_.push_back({rank, rows.values});
}

void WindowExchange::Copy(const KeyRows& from, const KeyRows& to) {
  backend_.Copy(from.keys, to.keys);
  backend_.Copy(from.values, to.values);
}

absl::StatusOr<Collective::ExchangeId> WindowExchange::StartListed(
    CollectiveKind kind) {
  absl::StatusOr<Collective::ExchangeId> id =
      collective_.Start(kind, Traffic::kWindowLayer, sends_, receives_);
  sends_.clear();
  receives_.clear();
  return id;
}

}  // namespace lapidary
