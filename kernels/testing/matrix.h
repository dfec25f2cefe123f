// Matrices of test data in either dtype.

#ifndef KERNELS_TESTING_MATRIX_H_
#define KERNELS_TESTING_MATRIX_H_

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <random>
#include <vector>

#include "kernels/bf16.h"
#include "kernels/pack.h"
#include "kernels/tensor.h"

namespace lapidary {

// Owns its elements.  Rows lie a little further apart than they need to.
class Matrix {
 public:
  Matrix(DType dtype, int rows, int cols)
      : dtype_(dtype),
        rows_(rows),
        cols_(cols),
        stride_(cols + kGap),
        bytes_(int64_t{rows} * stride_ * SizeOf(dtype)) {}

  // Uniform in [-scale, scale].
  static Matrix Random(DType dtype, int rows, int cols, uint32_t seed,
                       float scale = 1.0f) {
    Matrix matrix(dtype, rows, cols);
    std::minstd_rand random(seed + 1);
    for (int r = 0; r < rows; ++r) {
      for (int c = 0; c < cols; ++c) {
        matrix.Set(r, c, (static_cast<float>(random()) * 0x1p-30f - 1) * scale);
      }
    }
    return matrix;
  }

  int rows() const { return rows_; }
  int cols() const { return cols_; }

  Tensor tensor() { return {bytes_.data(), dtype_, rows_, cols_, stride_}; }

  float at(int r, int c) const {
    const char* p = bytes_.data() + Offset(r, c);
    if (dtype_ == DType::kF32) {
      float value;
      std::memcpy(&value, p, sizeof(value));
      return value;
    }
    Bf16 value;
    std::memcpy(&value, p, sizeof(value));
    return ToFloat(value);
  }

  void Set(int r, int c, float value) {
    char* p = bytes_.data() + Offset(r, c);
    if (dtype_ == DType::kF32) {
      std::memcpy(p, &value, sizeof(value));
    } else {
      const Bf16 rounded = ToBf16(value);
      std::memcpy(p, &rounded, sizeof(rounded));
    }
  }

  // Every element becomes NaN.
  void FillNan() { std::fill(bytes_.begin(), bytes_.end(), '\xff'); }

  // REQUIRES: the same dtype and columns.
  void CopyRow(int r, const Matrix& from, int from_row) {
    std::memcpy(bytes_.data() + Offset(r, 0),
                from.bytes_.data() + from.Offset(from_row, 0),
                int64_t{cols_} * SizeOf(dtype_));
  }

  // Bit for bit.
  bool SameRow(int r, const Matrix& other, int other_row) const {
    return std::memcmp(bytes_.data() + Offset(r, 0),
                       other.bytes_.data() + other.Offset(other_row, 0),
                       int64_t{cols_} * SizeOf(dtype_)) == 0;
  }

 private:
  static constexpr int kGap = 2;

  int64_t Offset(int r, int c) const {
    return (r * stride_ + c) * SizeOf(dtype_);
  }

  DType dtype_;
  int rows_;
  int cols_;
  int64_t stride_;
  std::vector<char> bytes_;
};

// Random bf16 weights, row-major and packed.
class Weights {
 public:
  Weights(int rows, int cols, uint32_t seed, float scale = 1.0f)
      : rows_(rows), cols_(cols), row_major_(int64_t{rows} * cols) {
    std::minstd_rand random(seed + 1);
    for (Bf16& weight : row_major_) {
      weight = ToBf16((static_cast<float>(random()) * 0x1p-30f - 1) * scale);
    }
    packed_ = static_cast<Bf16*>(
        std::aligned_alloc(64, (row_major_.size() * sizeof(Bf16) + 63) & ~63));
    PackRows(row_major_.data(), rows, cols, packed_);
  }
  ~Weights() { std::free(packed_); }
  Weights(const Weights&) = delete;
  Weights& operator=(const Weights&) = delete;

  float at(int r, int c) const {
    return ToFloat(row_major_[int64_t{r} * cols_ + c]);
  }
  const std::vector<Bf16>& row_major() const { return row_major_; }
  PackedMatrix packed() const {
    return {packed_, rows_, cols_, int64_t{PackedMatrix::kBlockRows} * cols_};
  }

 private:
  int rows_;
  int cols_;
  std::vector<Bf16> row_major_;
  Bf16* packed_;
};

}  // namespace lapidary

#endif  // KERNELS_TESTING_MATRIX_H_
