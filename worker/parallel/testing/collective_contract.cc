#include "worker/parallel/testing/collective_contract.h"

#include <algorithm>
#include <array>
#include <atomic>
#include <cstring>
#include <latch>
#include <random>
#include <string>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "common/deadline.h"
#include "common/testing/status_matchers.h"
#include "gmock/gmock.h"
#include "kernels/bf16.h"
#include "kernels/tensor.h"
#include "worker/parallel/collective_ops.h"

namespace lapidary {

using ::testing::HasSubstr;

std::vector<GroupParam> Groups(const std::vector<int>& num_ranks,
                               RunRanks run) {
  std::vector<GroupParam> groups;
  for (const int n : num_ranks) groups.push_back({n, run});
  return groups;
}
namespace {

constexpr auto kHead = Traffic::kHead;

// Room between the rows of a strided matrix; nothing may be written there.
constexpr int kGap = 3;
constexpr float kUntouched = -77.0f;

// A matrix with memory of its own.
class Matrix {
 public:
  Matrix(DType dtype, int rows, int cols, int gap = 0)
      : tensor_{nullptr, dtype, rows, cols, cols + gap} {
    memory_.resize(rows * tensor_.stride * SizeOf(dtype) + 1);
    tensor_.data = memory_.data();
    for (int r = 0; r < rows; ++r) {
      for (int c = 0; c < tensor_.stride; ++c) Set(r, c, kUntouched);
    }
  }
  Matrix(Matrix&& other) = default;

  Tensor tensor() const { return tensor_; }

  void Set(int r, int c, float value) {
    char* const at = At(r, c);
    if (tensor_.dtype == DType::kF32) {
      std::memcpy(at, &value, sizeof(value));
    } else {
      const Bf16 rounded = ToBf16(value);
      std::memcpy(at, &rounded, sizeof(rounded));
    }
  }
  float Get(int r, int c) const {
    if (tensor_.dtype == DType::kF32) {
      float value;
      std::memcpy(&value, At(r, c), sizeof(value));
      return value;
    }
    Bf16 value;
    std::memcpy(&value, At(r, c), sizeof(value));
    return ToFloat(value);
  }

  // Something that tells matrices and their elements apart.
  void Fill(int seed) {
    std::minstd_rand random(seed + 1);
    std::uniform_real_distribution<float> values(-100, 100);
    for (int r = 0; r < tensor_.rows; ++r) {
      for (int c = 0; c < tensor_.cols; ++c) Set(r, c, values(random));
    }
  }

  bool operator==(const Matrix& other) const {
    for (int r = 0; r < tensor_.rows; ++r) {
      for (int c = 0; c < tensor_.cols; ++c) {
        if (Get(r, c) != other.Get(r, c)) return false;
      }
    }
    return true;
  }
  bool GapsAreUntouched() const {
    for (int r = 0; r < tensor_.rows; ++r) {
      for (int c = tensor_.cols; c < tensor_.stride; ++c) {
        if (Get(r, c) != kUntouched) return false;
      }
    }
    return true;
  }

 private:
  char* At(int r, int c) const {
    return static_cast<char*>(tensor_.row(r)) + c * SizeOf(tensor_.dtype);
  }

  std::vector<char> memory_;
  Tensor tensor_;
};

Matrix Filled(DType dtype, int rows, int cols, int seed, int gap = 0) {
  Matrix matrix(dtype, rows, cols, gap);
  matrix.Fill(seed);
  return matrix;
}

// Of the matrices Filled(…, seed + rank) of all ranks.
Matrix PlainSum(DType dtype, int rows, int cols, int seed, int num_ranks) {
  std::vector<Matrix> parts;
  for (int rank = 0; rank < num_ranks; ++rank) {
    parts.push_back(Filled(dtype, rows, cols, seed + rank));
  }
  Matrix out(dtype, rows, cols);
  for (int r = 0; r < rows; ++r) {
    for (int c = 0; c < cols; ++c) {
      float sum = parts[0].Get(r, c);
      for (int rank = 1; rank < num_ranks; ++rank) {
        sum += parts[rank].Get(r, c);
      }
      out.Set(r, c, sum);
    }
  }
  return out;
}

DType RandomDType(std::minstd_rand& random) {
  return random() % 2 == 0 ? DType::kF32 : DType::kBf16;
}

// The tensors that go from a rank to another in a random exchange: both ends
// make them from the same seed.
std::vector<Matrix> RandomParts(int from, int to, int seed) {
  std::minstd_rand random(1 + from + 100 * to + 10000 * seed);
  random.discard(3);
  std::vector<Matrix> parts;
  const int count = static_cast<int>(random() % 4);
  for (int i = 0; i < count; ++i) {
    const DType dtype = RandomDType(random);
    const int rows = static_cast<int>(random() % 5);
    const int cols = static_cast<int>(random() % 300);
    const int gap = random() % 2 == 0 ? kGap : 0;
    parts.push_back(Filled(dtype, rows, cols, static_cast<int>(random()), gap));
  }
  return parts;
}

// The same, empty and of other strides.
std::vector<Matrix> PlacesFor(const std::vector<Matrix>& parts) {
  std::vector<Matrix> places;
  for (const Matrix& part : parts) {
    const Tensor t = part.tensor();
    places.emplace_back(t.dtype, t.rows, t.cols, t.stride == t.cols ? kGap : 0);
  }
  return places;
}

// One rank's side of a random exchange.
class RandomExchange {
 public:
  RandomExchange(Collective& collective, int seed) : collective_(collective) {
    for (int other = 0; other < collective.size(); ++other) {
      if (other == collective.rank()) continue;
      out_.push_back(RandomParts(collective.rank(), other, seed));
      expected_.push_back(RandomParts(other, collective.rank(), seed));
      in_.push_back(PlacesFor(expected_.back()));
      for (const Matrix& part : out_.back()) {
        sends_.push_back({other, part.tensor()});
      }
      for (const Matrix& place : in_.back()) {
        receives_.push_back({other, place.tensor()});
      }
    }
  }

  void Start() {
    auto id =
        collective_.Start(CollectiveKind::kAllToAll, kHead, sends_, receives_);
    ASSERT_OK(id);
    id_ = *id;
  }
  void WaitAndCheck() {
    ASSERT_OK(collective_.Wait(id_));
    for (size_t i = 0; i < in_.size(); ++i) {
      for (size_t k = 0; k < in_[i].size(); ++k) {
        EXPECT_TRUE(in_[i][k] == expected_[i][k]);
        EXPECT_TRUE(in_[i][k].GapsAreUntouched());
      }
    }
  }

 private:
  Collective& collective_;
  std::vector<std::vector<Matrix>> out_;
  std::vector<std::vector<Matrix>> in_;
  std::vector<std::vector<Matrix>> expected_;
  std::vector<RankPart> sends_;
  std::vector<RankPart> receives_;
  Collective::ExchangeId id_ = 0;
};

TEST_P(CollectiveContract, KnowsItsRankAndSize) {
  std::atomic<int> ranks = 0;
  Run([&](Collective& collective) {
    EXPECT_EQ(collective.size(), num_ranks());
    ranks += 1 << collective.rank();
  });
  EXPECT_EQ(ranks, (1 << num_ranks()) - 1);
}

TEST_P(CollectiveContract, SumsAnythingToTheSameBits) {
  Run([&](Collective& collective) {
    std::minstd_rand random(7);
    for (int run = 0; run < 60; ++run) {
      const DType dtype = RandomDType(random);
      const int rows = static_cast<int>(random() % 6);
      const int cols =
          1 + static_cast<int>(random() % (run % 10 == 0 ? 5000 : 40));
      const int seed = static_cast<int>(random() % 1000);
      const Matrix x = Filled(dtype, rows, cols, seed + collective.rank());
      ASSERT_OK(collective.AllReduceSum(kHead, x.tensor()));
      EXPECT_TRUE(x == PlainSum(dtype, rows, cols, seed, num_ranks()))
          << rows << " x " << cols;
    }
  });
}

TEST_P(CollectiveContract, ScattersASum) {
  Run([&](Collective& collective) {
    std::minstd_rand random(8);
    for (int run = 0; run < 15; ++run) {
      const DType dtype = RandomDType(random);
      const int rows = 1 + static_cast<int>(random() % 3);
      const int cols = 1 + static_cast<int>(random() % 500);
      const int all_rows = rows * num_ranks();
      const Matrix x = Filled(dtype, all_rows, cols, run + collective.rank());
      const Matrix out(dtype, rows, cols);
      ASSERT_OK(collective.ReduceScatterSum(kHead, x.tensor(), out.tensor()));
      const Matrix sum = PlainSum(dtype, all_rows, cols, run, num_ranks());
      for (int r = 0; r < rows; ++r) {
        for (int c = 0; c < cols; ++c) {
          ASSERT_EQ(out.Get(r, c), sum.Get(collective.rank() * rows + r, c));
        }
      }
    }
  });
}

TEST_P(CollectiveContract, ExchangesAnyListsOfTensors) {
  Run([](Collective& collective) {
    for (int seed = 0; seed < 60; ++seed) {
      RandomExchange exchange(collective, seed);
      exchange.Start();
      exchange.WaitAndCheck();
    }
  });
}

TEST_P(CollectiveContract, HasSeveralExchangesUnderWayInAnyOrder) {
  Run([](Collective& collective) {
    for (int seed = 0; seed < 20; ++seed) {
      RandomExchange first(collective, 3 * seed);
      RandomExchange second(collective, 3 * seed + 1);
      RandomExchange third(collective, 3 * seed + 2);
      first.Start();
      second.Start();
      Matrix x(DType::kF32, 2, 5);
      ASSERT_OK(collective.AllReduceSum(kHead, x.tensor()));
      third.Start();
      third.WaitAndCheck();
      first.WaitAndCheck();
      second.WaitAndCheck();
    }
  });
}

TEST_P(CollectiveContract, ExchangesMegabytesBothWays) {
  Run([&](Collective& collective) {
    // More than a socket holds.
    constexpr int kValues = 1 << 20;
    std::vector<float> x(kValues, 1.0f + collective.rank());
    std::vector<float> out(int64_t{kValues} * num_ranks());
    ASSERT_OK(AllGather(
        collective, kHead, {x.data(), DType::kF32, 1, kValues, kValues},
        {out.data(), DType::kF32, num_ranks(), kValues, kValues}));
    for (int rank = 0; rank < num_ranks(); ++rank) {
      const auto begin = out.begin() + int64_t{rank} * kValues;
      ASSERT_EQ(std::count(begin, begin + kValues, 1.0f + rank), kValues);
    }
  });
}

TEST_P(CollectiveContract, GathersInTheOrderOfRanks) {
  Run([&](Collective& collective) {
    const Matrix x = Filled(DType::kBf16, 3, 7, collective.rank(), kGap);
    const Matrix out(DType::kBf16, 3 * num_ranks(), 7, 1);
    ASSERT_OK(AllGather(collective, kHead, x.tensor(), out.tensor()));
    for (int rank = 0; rank < num_ranks(); ++rank) {
      const Matrix expected = Filled(DType::kBf16, 3, 7, rank);
      for (int r = 0; r < 3; ++r) {
        for (int c = 0; c < 7; ++c) {
          EXPECT_EQ(out.Get(3 * rank + r, c), expected.Get(r, c));
        }
      }
    }
    EXPECT_TRUE(out.GapsAreUntouched());
  });
}

TEST_P(CollectiveContract, GathersInPlace) {
  Run([&](Collective& collective) {
    Matrix out(DType::kF32, num_ranks(), 4);
    out.Set(collective.rank(), 2, 10.0f + collective.rank());
    ASSERT_OK(AllGather(collective, kHead,
                        out.tensor().Rows(collective.rank(), 1), out.tensor()));
    for (int rank = 0; rank < num_ranks(); ++rank) {
      EXPECT_EQ(out.Get(rank, 2), 10.0f + rank);
    }
  });
}

TEST_P(CollectiveContract, GathersAtOneRank) {
  const int root = num_ranks() - 1;
  Run([&](Collective& collective) {
    const Matrix x = Filled(DType::kF32, 2, 5, collective.rank());
    const Matrix out(DType::kF32, 2 * num_ranks(), 5);
    ASSERT_OK(Gather(collective, kHead, root, x.tensor(), out.tensor()));
    for (int rank = 0; rank < num_ranks(); ++rank) {
      const Matrix expected = Filled(DType::kF32, 2, 5, rank);
      EXPECT_EQ(out.Get(2 * rank + 1, 4),
                collective.rank() == root ? expected.Get(1, 4) : kUntouched);
    }
  });
}

TEST_P(CollectiveContract, TellsAllWhatOneRankHas) {
  const int root = num_ranks() / 2;
  Run([&](Collective& collective) {
    const Matrix x = Filled(DType::kF32, 2, 5, collective.rank(), kGap);
    ASSERT_OK(Broadcast(collective, kHead, root, x.tensor()));
    EXPECT_TRUE(x == Filled(DType::kF32, 2, 5, root));
    EXPECT_TRUE(x.GapsAreUntouched());
  });
}

TEST_P(CollectiveContract, CountsWhatItMoves) {
  const int64_t n = num_ranks();
  Run([&](Collective& collective) {
    // Of 24 * 35 elements, which every size here divides.
    const Matrix x(DType::kBf16, 24, 35);
    const int64_t bytes = 24 * 35 * 2;
    ASSERT_OK(collective.AllReduceSum(Traffic::kFeedForward, x.tensor()));
    ASSERT_OK(collective.AllReduceSum(Traffic::kFeedForward, x.tensor()));
    ASSERT_OK(collective.ReduceScatterSum(
        Traffic::kWindowLayer, x.tensor(),
        Matrix(DType::kBf16, 24 / num_ranks(), 35).tensor()));
    ASSERT_OK(AllGather(collective, Traffic::kGlobalLayer, x.tensor(),
                        Matrix(DType::kBf16, 24 * num_ranks(), 35).tensor()));
    ASSERT_OK(Broadcast(collective, Traffic::kControl, 0, x.tensor()));

    const auto expect = [&](CollectiveKind kind, Traffic traffic, int64_t calls,
                            int64_t sent, int64_t received) {
      const TransferCount& count = collective.counters().of(kind, traffic);
      EXPECT_EQ(count.calls, n == 1 ? 0 : calls) << NameOf(kind);
      EXPECT_EQ(count.bytes_sent, sent) << NameOf(kind);
      EXPECT_EQ(count.bytes_received, received) << NameOf(kind);
      EXPECT_GE(count.time, absl::ZeroDuration());
    };
    const int64_t reduced = 2 * 2 * bytes * (n - 1) / n;
    expect(CollectiveKind::kAllReduce, Traffic::kFeedForward, 2, reduced,
           reduced);
    const int64_t scattered = bytes * (n - 1) / n;
    expect(CollectiveKind::kReduceScatter, Traffic::kWindowLayer, 1, scattered,
           scattered);
    const int64_t gathered = bytes * (n - 1);
    expect(CollectiveKind::kAllGather, Traffic::kGlobalLayer, 1, gathered,
           gathered);
    const bool root = collective.rank() == 0;
    expect(CollectiveKind::kBroadcast, Traffic::kControl, 1,
           root ? gathered : 0, root ? 0 : bytes);
    EXPECT_EQ(collective.counters().Total().calls, n == 1 ? 0 : 5);
  });
}

TEST_P(CollectiveContract, CountsSharesThatDiffer) {
  std::atomic<int64_t> sent = 0;
  std::atomic<int64_t> received = 0;
  Run([&](Collective& collective) {
    const Matrix x(DType::kF32, 1, 13);
    ASSERT_OK(collective.AllReduceSum(kHead, x.tensor()));
    sent += collective.counters().Total().bytes_sent;
    received += collective.counters().Total().bytes_received;
  });
  // All elements but the own share come in for the sums, and again summed.
  EXPECT_EQ(sent, 2 * 13 * 4 * (num_ranks() - 1));
  EXPECT_EQ(received, sent);
}

TEST_P(CollectiveContract, GivesUpOnALateRankAtItsDeadline) {
  if (num_ranks() == 1) GTEST_SKIP() << "a group of one waits for nobody";
  const int late = num_ranks() - 1;
  std::latch others_done(num_ranks() - 1);
  Run([&](Collective& collective) {
    if (collective.rank() == late) return others_done.wait();
    Matrix x(DType::kF32, 4, 4);
    collective.SetDeadline(Deadline::In(absl::ZeroDuration()));
    const absl::Status status = Broadcast(collective, kHead, late, x.tensor());
    EXPECT_THAT(status, StatusIs(absl::StatusCode::kDeadlineExceeded,
                                 HasSubstr(absl::StrCat("rank ", late))));
    // It stays so.
    collective.SetDeadline(Deadline::Never());
    EXPECT_EQ(collective.AllReduceSum(kHead, x.tensor()), status);
    others_done.count_down();
  });
}

TEST_P(CollectiveContract, LeavesOtherExchangesAloneAfterAnError) {
  if (num_ranks() == 1) GTEST_SKIP() << "a group of one waits for nobody";
  const int late = num_ranks() - 1;
  std::latch others_done(num_ranks() - 1);
  Run([&](Collective& collective) {
    if (collective.rank() == late) return others_done.wait();
    {
      const Matrix a(DType::kF32, 4, 4, kGap);
      const Matrix b(DType::kF32, 200, 200);
      const std::array<RankPart, 1> receives = {RankPart{late, a.tensor()}};
      const std::array<RankPart, 1> sends = {RankPart{late, b.tensor()}};
      const auto first =
          collective.Start(CollectiveKind::kSendReceive, kHead, {}, receives);
      const auto second =
          collective.Start(CollectiveKind::kSendReceive, kHead, sends, {});
      ASSERT_OK(first);
      ASSERT_OK(second);
      collective.SetDeadline(Deadline::In(absl::ZeroDuration()));
      EXPECT_FALSE(collective.Wait(*first).ok());
      EXPECT_FALSE(collective.Wait(*second).ok());
    }  // Sanitizers see whoever still touches the tensors.
    others_done.count_down();
  });
}

}  // namespace
}  // namespace lapidary
