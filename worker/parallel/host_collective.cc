#include "worker/parallel/host_collective.h"

#include <climits>
#include <cstring>
#include <utility>

#include "common/deadline.h"
#include "common/status_macros.h"
#include "common/steady_time.h"
#include "glog/logging.h"
#include "worker/parallel/rank_sum.h"

namespace lapidary {
namespace {

int64_t NumElements(const Tensor& x) { return int64_t{x.rows} * x.cols; }

// Elements [begin, end) of a dense tensor, as one row.
Tensor Elements(const Tensor& x, int64_t begin, int64_t end) {
  const int64_t count = end - begin;
  CHECK_LE(count, INT_MAX);
  return {static_cast<char*>(x.data) + begin * SizeOf(x.dtype), x.dtype, 1,
          static_cast<int>(count), count};
}

// Share `index` of the elements of x, cut into `num_shares`.
Tensor Share(const Tensor& x, int index, int num_shares) {
  const int64_t each = NumElements(x) / num_shares;
  const int64_t rest = NumElements(x) % num_shares;
  const auto begin = [&](int i) { return each * i + rest * i / num_shares; };
  return Elements(x, begin(index), begin(index + 1));
}

}  // namespace

HostCollective::HostCollective(std::unique_ptr<Transport> transport)
    : transport_(std::move(transport)) {}

absl::Status HostCollective::AllReduceSum(Traffic traffic, Tensor x) {
  CHECK(x.IsDense());
  if (size() == 1) return absl::OkStatus();
  RETURN_IF_ERROR(status_);
  const absl::Time begin = SteadyNow();
  TransferCount count = {.calls = 1};
  sends_.clear();
  if (size() == 2) {
    const Tensor whole = Elements(x, 0, NumElements(x));
    sends_.push_back({1 - rank(), whole});
    RETURN_IF_ERROR(AddUp(whole, whole, count));
  } else {
    for (int to = 0; to < size(); ++to) {
      if (to != rank()) sends_.push_back({to, Share(x, to, size())});
    }
    const Tensor own = Share(x, rank(), size());
    RETURN_IF_ERROR(AddUp(own, own, count));
    RETURN_IF_ERROR(ShareSums(x, count));
  }
  count.time = SteadyNow() - begin;
  counters_.Add(CollectiveKind::kAllReduce, traffic, count);
  return absl::OkStatus();
}

absl::Status HostCollective::ReduceScatterSum(Traffic traffic, Tensor x,
                                              Tensor out) {
  CHECK(x.IsDense());
  CHECK(out.IsDense());
  CHECK_EQ(x.rows, out.rows * size());
  CHECK_EQ(x.cols, out.cols);
  CHECK(x.dtype == out.dtype);
  if (size() == 1) {
    std::memmove(out.data, x.data, NumElements(x) * SizeOf(x.dtype));
    return absl::OkStatus();
  }
  RETURN_IF_ERROR(status_);
  const absl::Time begin = SteadyNow();
  TransferCount count = {.calls = 1};
  sends_.clear();
  for (int to = 0; to < size(); ++to) {
    if (to != rank()) sends_.push_back({to, x.Rows(to * out.rows, out.rows)});
  }
  RETURN_IF_ERROR(AddUp(x.Rows(rank() * out.rows, out.rows), out, count));
  count.time = SteadyNow() - begin;
  counters_.Add(CollectiveKind::kReduceScatter, traffic, count);
  return absl::OkStatus();
}

// `out` becomes the sum of the ranks' tensors like `own`: the others' come in
// while sends_ go out.
absl::Status HostCollective::AddUp(Tensor own, Tensor out,
                                   TransferCount& count) {
  const int64_t bytes = NumElements(own) * SizeOf(own.dtype);
  char* others = others_.Reserve(bytes * (size() - 1));
  receives_.clear();
  addends_.clear();
  for (int from = 0; from < size(); ++from) {
    Tensor part = own;
    if (from != rank()) {
      part.data = others;
      others += bytes;
      receives_.push_back({from, part});
    }
    addends_.push_back(part.data);
  }
  RETURN_IF_ERROR(Exchange(sends_, receives_, count));
  SumInOrder(addends_, own.dtype, NumElements(own), out.data);
  return absl::OkStatus();
}

// Every rank gets the shares of x that the others have added up.
absl::Status HostCollective::ShareSums(Tensor x, TransferCount& count) {
  sends_.clear();
  receives_.clear();
  for (int other = 0; other < size(); ++other) {
    if (other == rank()) continue;
    sends_.push_back({other, Share(x, rank(), size())});
    receives_.push_back({other, Share(x, other, size())});
  }
  return Exchange(sends_, receives_, count);
}

absl::StatusOr<Collective::ExchangeId> HostCollective::Start(
    CollectiveKind kind, Traffic traffic, std::span<const RankPart> sends,
    std::span<const RankPart> receives) {
  if (size() == 1) {
    CHECK(sends.empty() && receives.empty());
    return next_id_++;
  }
  RETURN_IF_ERROR(status_);
  const absl::Time begin = SteadyNow();
  ASSIGN_OR_RETURN(Pending* const pending, Begin(sends, receives));
  pending->kind = kind;
  pending->traffic = traffic;
  pending->count.time = SteadyNow() - begin;
  return pending->id;
}

absl::Status HostCollective::Wait(ExchangeId id) {
  if (size() == 1) return absl::OkStatus();
  RETURN_IF_ERROR(status_);
  const absl::Time begin = SteadyNow();
  Pending& pending = PendingOf(id);
  RETURN_IF_ERROR(Finish(pending));
  pending.count.time += SteadyNow() - begin;
  counters_.Add(pending.kind, pending.traffic, pending.count);
  return absl::OkStatus();
}

// An exchange that is part of an operation, whose `count` grows by its bytes.
absl::Status HostCollective::Exchange(std::span<const RankPart> sends,
                                      std::span<const RankPart> receives,
                                      TransferCount& count) {
  ASSIGN_OR_RETURN(Pending* const pending, Begin(sends, receives));
  RETURN_IF_ERROR(Finish(*pending));
  count.bytes_sent += pending->count.bytes_sent;
  count.bytes_received += pending->count.bytes_received;
  return absl::OkStatus();
}

int64_t HostCollective::memory_bytes() const {
  int64_t bytes = others_.bytes();
  for (const Pending& pending : pending_) bytes += pending.staging.bytes();
  return bytes;
}

absl::StatusOr<HostCollective::Pending*> HostCollective::Begin(
    std::span<const RankPart> sends, std::span<const RankPart> receives) {
  Pending& pending = PendingOf(Pending::kNone);
  pending.id = next_id_++;
  const int64_t send_bytes = pending.sends.Lay(sends, size());
  const int64_t receive_bytes = pending.receives.Lay(receives, size());
  char* const staging = pending.staging.Reserve(send_bytes + receive_bytes);
  pending.sends.Place(staging);
  pending.receives.Place(staging + send_bytes);
  pending.count = {.calls = 1,
                   .bytes_sent = pending.sends.total_bytes(),
                   .bytes_received = pending.receives.total_bytes()};
  if (absl::Status status = StartMessages(pending); !status.ok()) {
    return Fail(std::move(status));
  }
  return &pending;
}

// Receives first: what comes early then finds its place.
absl::Status HostCollective::StartMessages(Pending& pending) {
  const auto receives = pending.receives.messages();
  const auto sends = pending.sends.messages();
  CHECK_EQ(receives[rank()].bytes + sends[rank()].bytes, 0);
  for (int from = 0; from < size(); ++from) {
    const auto& [bytes, data] = receives[from];
    if (bytes == 0) continue;
    RETURN_IF_ERROR(transport_->StartReceive(
        from, pending.id, {data, static_cast<size_t>(bytes)}));
  }
  pending.sends.Pack();
  // Not all to the lowest rank at first.
  for (int i = 1; i < size(); ++i) {
    const int to = (rank() + i) % size();
    const auto& [bytes, data] = sends[to];
    if (bytes == 0) continue;
    RETURN_IF_ERROR(transport_->StartSend(to, pending.id,
                                          {data, static_cast<size_t>(bytes)}));
  }
  return absl::OkStatus();
}

absl::Status HostCollective::Finish(Pending& pending) {
  if (absl::Status status = transport_->Finish(pending.id, deadline_);
      !status.ok()) {
    return Fail(std::move(status));
  }
  pending.receives.Unpack();
  pending.id = Pending::kNone;
  return absl::OkStatus();
}

absl::Status HostCollective::Fail(absl::Status status) {
  status_ = std::move(status);
  for (Pending& pending : pending_) {
    if (pending.id == Pending::kNone) continue;
    transport_->Finish(pending.id, Deadline::In(absl::ZeroDuration()))
        .IgnoreError();
    pending.id = Pending::kNone;
  }
  return status_;
}

HostCollective::Pending& HostCollective::PendingOf(ExchangeId id) {
  for (Pending& pending : pending_) {
    if (pending.id == id) return pending;
  }
  if (id == Pending::kNone) {
    LOG(FATAL) << "more than " << kMaxExchanges << " exchanges under way";
  }
  LOG(FATAL) << "exchange " << id << " is not under way";
}

}  // namespace lapidary
