#include "kernels/pack.h"

#include <cstring>

#include "glog/logging.h"

namespace lapidary {
namespace {

constexpr int kBlockRows = PackedMatrix::kBlockRows;
// Pairs of columns a tile: 16 rows times one cache line.
constexpr int kTilePairs = 16;

// Writes `pairs` columns of 16 rows that lie `row_pairs` apart.  A pair is
// moved as one 32-bit number.
void PackTile(const uint32_t* rows, int64_t row_pairs, int pairs,
              uint32_t* packed) {
  for (int r = 0; r < kBlockRows; ++r) {
    for (int p = 0; p < pairs; ++p) {
      packed[p * kBlockRows + r] = rows[r * row_pairs + p];
    }
  }
}

}  // namespace

void PackRows(const Bf16* row_major, int rows, int cols, Bf16* packed) {
  CHECK_EQ(rows % kBlockRows, 0);
  CHECK_EQ(cols % 2, 0);
  const int row_pairs = cols / 2;
  const auto* source = reinterpret_cast<const uint32_t*>(row_major);
  auto* target = reinterpret_cast<uint32_t*>(packed);
  for (int r = 0; r < rows; r += kBlockRows) {
    for (int p = 0; p < row_pairs; p += kTilePairs) {
      const int pairs = row_pairs - p < kTilePairs ? row_pairs - p : kTilePairs;
      PackTile(source + int64_t{r} * row_pairs + p, row_pairs, pairs,
               target + int64_t{r} * row_pairs + int64_t{p} * kBlockRows);
    }
  }
}

void UnpackRows(const PackedMatrix& matrix, Bf16* row_major) {
  for (int r = 0; r < matrix.rows; ++r) {
    for (int c = 0; c < matrix.cols; ++c) {
      row_major[int64_t{r} * matrix.cols + c] = matrix.at(r, c);
    }
  }
}

}  // namespace lapidary
