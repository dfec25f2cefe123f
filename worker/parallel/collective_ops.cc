#include "worker/parallel/collective_ops.h"

#include <cstring>
#include <vector>

#include "absl/container/inlined_vector.h"
#include "common/status_macros.h"
#include "glog/logging.h"

namespace lapidary {
namespace {

// A part a rank, without allocation in groups of a machine's size.
using Parts = absl::InlinedVector<RankPart, 8>;

std::span<const RankPart> SpanOf(const Parts& parts) {
  return {parts.data(), parts.size()};
}

Tensor PlaceOf(int rank, Tensor x, Tensor out) {
  return out.Rows(rank * x.rows, x.rows);
}

void CheckPlaces(const Collective& collective, Tensor x, Tensor out) {
  CHECK_EQ(out.rows, x.rows * collective.size());
  CHECK_EQ(out.cols, x.cols);
  CHECK(out.dtype == x.dtype);
}

void CopyRows(Tensor from, Tensor to) {
  if (from.data == to.data) return;
  for (int r = 0; r < from.rows; ++r) {
    std::memcpy(to.row(r), from.row(r),
                int64_t{from.cols} * SizeOf(from.dtype));
  }
}

}  // namespace

absl::Status Exchange(Collective& collective, CollectiveKind kind,
                      Traffic traffic, std::span<const RankPart> sends,
                      std::span<const RankPart> receives) {
  ASSIGN_OR_RETURN(const Collective::ExchangeId id,
                   collective.Start(kind, traffic, sends, receives));
  return collective.Wait(id);
}

absl::Status AllGather(Collective& collective, Traffic traffic, Tensor x,
                       Tensor out) {
  CheckPlaces(collective, x, out);
  Parts sends;
  Parts receives;
  for (int rank = 0; rank < collective.size(); ++rank) {
    if (rank == collective.rank()) continue;
    sends.push_back({rank, x});
    receives.push_back({rank, PlaceOf(rank, x, out)});
  }
  ASSIGN_OR_RETURN(const Collective::ExchangeId id,
                   collective.Start(CollectiveKind::kAllGather, traffic,
                                    SpanOf(sends), SpanOf(receives)));
  CopyRows(x, PlaceOf(collective.rank(), x, out));
  return collective.Wait(id);
}

absl::Status Gather(Collective& collective, Traffic traffic, int root, Tensor x,
                    Tensor out) {
  Parts sends;
  Parts receives;
  if (collective.rank() == root) {
    CheckPlaces(collective, x, out);
    for (int rank = 0; rank < collective.size(); ++rank) {
      if (rank != root) receives.push_back({rank, PlaceOf(rank, x, out)});
    }
    CopyRows(x, PlaceOf(root, x, out));
  } else {
    sends.push_back({root, x});
  }
  return Exchange(collective, CollectiveKind::kGather, traffic, SpanOf(sends),
                  SpanOf(receives));
}

absl::Status Broadcast(Collective& collective, Traffic traffic, int root,
                       Tensor tensor) {
  Parts sends;
  Parts receives;
  if (collective.rank() != root) {
    receives.push_back({root, tensor});
  } else {
    for (int rank = 0; rank < collective.size(); ++rank) {
      if (rank != root) sends.push_back({rank, tensor});
    }
  }
  return Exchange(collective, CollectiveKind::kBroadcast, traffic,
                  SpanOf(sends), SpanOf(receives));
}

}  // namespace lapidary
