// A fixture for tests of attention: random histories of keys and queries, the
// pages that hold them, and the same softmax in float64.

#ifndef KERNELS_TESTING_ATTENTION_FIXTURE_H_
#define KERNELS_TESTING_ATTENTION_FIXTURE_H_

#include <climits>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <tuple>
#include <vector>

#include "common/tokens.h"
#include "gtest/gtest.h"
#include "kernels/attention.h"
#include "kernels/backend.h"
#include "kernels/cpu/isa.h"
#include "kernels/tensor.h"
#include "kernels/testing/matrix.h"

namespace lapidary {

struct AttentionLayer {
  int heads;
  int kv_heads;
  int head_dim;
  int key_half;
  int window;
};

// A sequence's queries, keys and values from position 0 to its end.
struct History {
  Matrix q;       // [length, H * d]
  Matrix keys;    // [length, K * 2 * key_half]
  Matrix values;  // [length, K * d]
  int length() const { return q.rows(); }
};

History RandomHistory(const AttentionLayer& layer, DType dtype, int length,
                      uint32_t seed);

// What a query gets of the keys that it sees.
struct AttendedInFloat64 {
  std::vector<double> out;  // [d]
  double lse;
};

// The query at `position` in `head`, over the pages that are `visible`.
AttendedInFloat64 AttendInFloat64(const AttentionLayer& layer,
                                  const History& history, int position,
                                  int head,
                                  const std::function<bool(int page)>& visible);

// Pages of a few sequences.  All memory that no test writes to is NaN.
class PagedStore {
 public:
  // `backend` outlives it.
  PagedStore(const AttentionLayer& layer, DType dtype, Backend& backend);

  const KvPlanes& planes() const { return planes_; }

  // A page table for `num_tokens` tokens, without the pages that a query at
  // `start` or later does not see.
  std::vector<PageId> NewPages(int num_tokens, int start);

  // Writes the positions [begin, end) of `history`.
  void Write(History& history, const std::vector<PageId>& pages, int begin,
             int end);

 private:
  static constexpr int kPages = 96;

  const AttentionLayer layer_;
  Backend& backend_;
  Matrix keys_;
  Matrix values_;
  KvPlanes planes_;
  int next_page_ = 1;
};

enum class StepKeys { kGiven, kInPages };

// By instruction set and dtype.
class AttentionTest : public ::testing::TestWithParam<std::tuple<Isa, DType>> {
 protected:
  // What the queries at [start, start + count) of a history get.
  struct Part {
    History* history;
    int start;
    int count;
  };
  struct Options {
    StepKeys step_keys = StepKeys::kInPages;
    int earlier_keys = 0;  // As in AttentionSequence.
    int first_key = 0;
    int end_key = INT_MAX;
    int first_head = 0;  // As in AttendArgs.
    int num_heads = 0;   // 0: all.
    int rank = 0;
    int num_ranks = 1;
    bool fp32_out = false;
    int threads = 2;
  };
  struct Result {
    Matrix out;  // [rows of all parts, heads * d]
    Matrix lse;  // [rows, heads]
  };

  Isa isa() const { return std::get<0>(GetParam()); }
  DType dtype() const { return std::get<1>(GetParam()); }
  std::unique_ptr<Backend> NewBackend(int threads) const;

  // Pages that the options rule out are not there.
  Result Attend(const AttentionLayer& layer, const std::vector<Part>& parts,
                const Options& options) const;

  // Compares with float64 what a part's queries from `start` on got; fails
  // fatally.
  void ExpectNear(const AttentionLayer& layer, const History& history,
                  int start, const Result& result,
                  const Options& options) const;
};

std::string AttentionTestName(
    const ::testing::TestParamInfo<std::tuple<Isa, DType>>& info);

}  // namespace lapidary

#endif  // KERNELS_TESTING_ATTENTION_FIXTURE_H_
