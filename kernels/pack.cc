#include "kernels/pack.h"

#include <algorithm>
#include <cstring>

#include "glog/logging.h"

namespace lapidary {
namespace {

constexpr int kBlockRows = PackedMatrix::kBlockRows;
// Pairs of columns a tile: 16 rows times one cache line.
constexpr int kTilePairs = 16;

// Packs `pairs` columns of 16 rows that lie `cols` apart.  A pair is moved as
// one 32-bit number; a mapped file may have it at any even address.
void PackTile(const Bf16* rows, int64_t cols, int pairs, Bf16* packed) {
  for (int p = 0; p < pairs; ++p) {
    for (int r = 0; r < kBlockRows; ++r) {
      std::memcpy(packed + 2 * (p * kBlockRows + r), rows + r * cols + 2 * p,
                  sizeof(uint32_t));
    }
  }
}

}  // namespace

void PackRows(const Bf16* row_major, int rows, int cols, Bf16* packed) {
  CHECK_EQ(rows % kBlockRows, 0);
  CHECK_EQ(cols % 2, 0);
  const int row_pairs = cols / 2;
  for (int r = 0; r < rows; r += kBlockRows) {
    const Bf16* from = row_major + int64_t{r} * cols;
    Bf16* to = packed + int64_t{r} * cols;
    for (int p = 0; p < row_pairs; p += kTilePairs) {
      PackTile(from + 2 * p, cols, std::min(kTilePairs, row_pairs - p),
               to + int64_t{2} * p * kBlockRows);
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
