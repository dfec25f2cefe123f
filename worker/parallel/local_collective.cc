#include "worker/parallel/local_collective.h"

#include <cstdint>
#include <cstring>

#include "absl/status/status.h"
#include "common/status_macros.h"
#include "glog/logging.h"
#include "kernels/bf16.h"

namespace lapidary {
namespace {

float Load(const void* row, DType dtype, int c) {
  return dtype == DType::kF32 ? static_cast<const float*>(row)[c]
                              : ToFloat(static_cast<const Bf16*>(row)[c]);
}

void Store(float value, void* row, DType dtype, int c) {
  if (dtype == DType::kF32) {
    static_cast<float*>(row)[c] = value;
  } else {
    static_cast<Bf16*>(row)[c] = ToBf16(value);
  }
}

void CopyRows(Tensor from, Tensor to) {
  for (int r = 0; r < from.rows; ++r) {
    std::memcpy(to.row(r), from.row(r), from.cols * SizeOf(from.dtype));
  }
}

}  // namespace

class LocalGroup::Rank : public Collective {
 public:
  Rank(LocalGroup& group, int rank, int size)
      : group_(group), rank_(rank), size_(size) {}

  int rank() const override { return rank_; }
  int size() const override { return size_; }

  absl::Status AllReduceSum(Tensor x) override {
    if (size_ == 1) return absl::OkStatus();
    RETURN_IF_ERROR(Show(x));
    const int first = x.rows * rank_ / size_;
    const int end = x.rows * (rank_ + 1) / size_;
    for (int r = first; r < end; ++r) SumRow(r);
    return group_.Meet();
  }

  absl::Status AllGather(Tensor x, Tensor out) override {
    CHECK_EQ(out.rows, x.rows * size_);
    CHECK_EQ(out.cols, x.cols);
    CHECK(out.dtype == x.dtype);
    if (size_ == 1 && x.data == out.data) return absl::OkStatus();
    RETURN_IF_ERROR(Show(x));
    for (int r = 0; r < size_; ++r) {
      CopyRows(group_.ranks_[r]->shown_, out.Rows(r * x.rows, x.rows));
    }
    return group_.Meet();
  }

 private:
  // Returns once all ranks show a tensor like `x`.
  absl::Status Show(Tensor x) {
    shown_ = x;
    RETURN_IF_ERROR(group_.Meet());
    for (const auto& other : group_.ranks_) {
      CHECK_EQ(other->shown_.rows, x.rows);
      CHECK_EQ(other->shown_.cols, x.cols);
      CHECK(other->shown_.dtype == x.dtype);
    }
    return absl::OkStatus();
  }

  // Adds up row `r` of all ranks and stores the sum with each of them.
  void SumRow(int r) {
    const DType dtype = shown_.dtype;
    for (int c = 0; c < shown_.cols; ++c) {
      float sum = 0.0f;
      for (const auto& other : group_.ranks_) {
        sum += Load(other->shown_.row(r), dtype, c);
      }
      for (const auto& other : group_.ranks_) {
        Store(sum, other->shown_.row(r), dtype, c);
      }
    }
  }

  LocalGroup& group_;
  const int rank_;
  const int size_;
  Tensor shown_;  // Others read it between two meetings only.
};

LocalGroup::LocalGroup(int num_ranks) {
  CHECK_GT(num_ranks, 0);
  for (int rank = 0; rank < num_ranks; ++rank) {
    ranks_.push_back(std::make_unique<Rank>(*this, rank, num_ranks));
  }
}

LocalGroup::~LocalGroup() = default;

Collective& LocalGroup::rank(int rank) const { return *ranks_[rank]; }

void LocalGroup::Abandon() {
  MutexLock lock(mutex_);
  abandoned_ = true;
  all_arrived_.SignalAll();
}

absl::Status LocalGroup::Meet() {
  MutexLock lock(mutex_);
  const int64_t meeting = meetings_;
  if (++arrived_ == static_cast<int>(ranks_.size())) {
    arrived_ = 0;
    ++meetings_;
    all_arrived_.SignalAll();
  }
  while (meetings_ == meeting && !abandoned_) all_arrived_.Wait(mutex_);
  if (meetings_ != meeting) return absl::OkStatus();
  return absl::UnavailableError("a rank of the group is gone");
}

}  // namespace lapidary
