// Every operation but attention, on every instruction set that the machine has,
// against float64.

#include "kernels/backend.h"

#include <cmath>
#include <memory>
#include <numeric>
#include <random>
#include <string>
#include <tuple>
#include <vector>

#include "common/testing/status_matchers.h"
#include "common/tokens.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "kernels/bf16.h"
#include "kernels/cpu/cpu_backend.h"
#include "kernels/pack.h"
#include "kernels/tensor.h"
#include "kernels/testing/matrix.h"

namespace lapidary {
namespace {

std::unique_ptr<Backend> NewBackend(Isa isa, int threads) {
  return NewCpuBackend({.threads = threads, .isa = isa}).value();
}

// By instruction set and dtype of the activations.
class BackendTest : public ::testing::TestWithParam<std::tuple<Isa, DType>> {
 protected:
  Isa isa() const { return std::get<0>(GetParam()); }
  DType dtype() const { return std::get<1>(GetParam()); }
  Matrix Random(int rows, int cols, uint32_t seed, float scale = 1.0f) const {
    return Matrix::Random(dtype(), rows, cols, seed, scale);
  }
  Matrix Empty(int rows, int cols) const { return Matrix(dtype(), rows, cols); }

  // `actual` is `expected` computed in fp32 with intermediate results up to
  // `magnitude`, and rounded once to the dtype.
  void ExpectNear(float actual, double expected, double magnitude) const {
    const double rounding = dtype() == DType::kF32 ? 0x1p-24 : 0x1p-8;
    ASSERT_NEAR(actual, expected,
                std::abs(expected) * rounding + magnitude * 0x1p-20);
  }

  std::unique_ptr<Backend> backend_ = NewBackend(isa(), 2);
};

std::string ParamName(
    const ::testing::TestParamInfo<std::tuple<Isa, DType>>& info) {
  return std::string(IsaName(std::get<0>(info.param))) +
         (std::get<1>(info.param) == DType::kF32 ? "_fp32" : "_bf16");
}

INSTANTIATE_TEST_SUITE_P(
    Isas, BackendTest,
    ::testing::Combine(::testing::ValuesIn(SupportedIsas()),
                       ::testing::Values(DType::kF32, DType::kBf16)),
    ParamName);

struct MatMulShape {
  int rows;
  int out;
  int in;
};

TEST_P(BackendTest, MatMulMultipliesWithTheTransposedWeights) {
  const MatMulShape shapes[] = {{1, 16, 16},   {2, 48, 64},    {7, 80, 1040},
                                {8, 64, 2064}, {17, 128, 512}, {64, 96, 144},
                                {65, 64, 526}, {200, 80, 1056}};
  for (const MatMulShape& shape : shapes) {
    Matrix x = Random(shape.rows, shape.in, 1);
    const Weights w(shape.out, shape.in, 2);
    Matrix out = Empty(shape.rows, shape.out);
    Matrix out_fp32(DType::kF32, shape.rows, shape.out);
    backend_->MatMul(x.tensor(), w.packed(), out.tensor());
    backend_->MatMul(x.tensor(), w.packed(), out_fp32.tensor());
    for (int r = 0; r < shape.rows; ++r) {
      for (int c = 0; c < shape.out; ++c) {
        double sum = 0;
        double magnitude = 0;
        for (int k = 0; k < shape.in; ++k) {
          const double product = double{x.at(r, k)} * w.at(c, k);
          sum += product;
          magnitude += std::abs(product);
        }
        ExpectNear(out.at(r, c), sum, magnitude);
        ASSERT_NEAR(out_fp32.at(r, c), sum, magnitude * 0x1p-20);
      }
    }
  }
}

// Rows beyond a thread's share of 512, blocks of columns that do not fill a
// tile, views of weights, and an output that lies among other columns.
TEST_P(BackendTest, MatMulAgreesOnShapesAtRandom) {
  std::minstd_rand random(11);
  const auto below = [&random](int bound) {
    return static_cast<int>(random() % bound);
  };
  for (int trial = 0; trial < 24; ++trial) {
    const int rows = trial % 4 == 0 ? 505 + below(530) : 1 + below(40);
    const int out_cols = 16 * (1 + below(9));
    const int in = 2 * (1 + below(trial % 4 == 0 ? 100 : 400));
    const int first_row = 16 * below(3);
    const int first_col = 2 * below(20);
    const int margin = 1 + below(5);
    SCOPED_TRACE(::testing::Message()
                 << rows << " x " << in << " times " << in << " x " << out_cols
                 << " from " << first_row << ", " << first_col);
    Matrix x = Random(rows, in, trial);
    const Weights w(first_row + out_cols + 16, first_col + in + 2, trial);
    Matrix out = Empty(rows, margin + out_cols + 3);
    out.FillNan();
    backend_->MatMul(x.tensor(),
                     w.packed().Rows(first_row, out_cols).Cols(first_col, in),
                     out.tensor().Cols(margin, out_cols));
    for (int r = 0; r < rows; ++r) {
      for (int c = 0; c < out.cols(); ++c) {
        if (c < margin || c >= margin + out_cols) {
          ASSERT_TRUE(std::isnan(out.at(r, c))) << "column " << c;
        } else {
          ASSERT_FALSE(std::isnan(out.at(r, c))) << r << ", " << c;
        }
      }
    }
    for (int sample = 0; sample < 300; ++sample) {
      const int r = sample == 0 ? rows - 1 : below(rows);
      const int c = sample == 0 ? out_cols - 1 : below(out_cols);
      double sum = 0;
      double magnitude = 0;
      for (int k = 0; k < in; ++k) {
        const double product =
            double{x.at(r, k)} * w.at(first_row + c, first_col + k);
        sum += product;
        magnitude += std::abs(product);
      }
      ExpectNear(out.at(r, margin + c), sum, magnitude);
      if (HasFatalFailure()) return;
    }
  }
}

// A sum of nothing, as for a rank whose share is empty.
TEST_P(BackendTest, MatMulOverNoColumnsIsZero) {
  for (const int rows : {1, 17, 520}) {
    Matrix x = Random(rows, 4, 1);
    const Weights w(80, 4, 2);
    Matrix out = Empty(rows, 80);
    // Leaves other numbers in memory that is used again.
    backend_->MatMul(x.tensor(), w.packed(), out.tensor());
    backend_->MatMul(x.tensor().Cols(0, 0), w.packed().Cols(0, 0),
                     out.tensor());
    for (int r = 0; r < rows; ++r) {
      for (int c = 0; c < 80; ++c) ASSERT_EQ(out.at(r, c), 0) << r << ", " << c;
    }
  }
}

TEST_P(BackendTest, TakesMatricesWithoutRows) {
  const Weights w(32, 16, 2);
  Matrix x = Empty(0, 32);
  backend_->RmsNorm(x.tensor(), nullptr, 1e-6f, x.tensor());
  backend_->Add(x.tensor(), x.tensor(), 1.0f, x.tensor());
  backend_->MatMul(x.tensor().Cols(0, 16), w.packed(), x.tensor());
  backend_->GeluMul(x.tensor(), x.tensor().Cols(0, 16));
  backend_->Embed(w.packed(), {}, 1.0f, x.tensor().Cols(0, 16));
  EXPECT_OK(backend_->Synchronize());
}

// The table of a model has more elements than an int counts.
TEST_P(BackendTest, ReadsWeightsBeyondTwoBillionElements) {
  constexpr int kRows = 262144;
  constexpr int kCols = 15360;
  constexpr int kBlock = PackedMatrix::kBlockRows;
  const int64_t elements = int64_t{kRows} * kCols;
  const absl::StatusOr<void*> memory =
      backend_->Allocate(elements * static_cast<int64_t>(sizeof(Bf16)));
  if (!memory.ok()) GTEST_SKIP() << "needs 8 GB of addresses, and uses little";
  auto* const data = static_cast<Bf16*>(*memory);
  const PackedMatrix table = {data, kRows, kCols, int64_t{kBlock} * kCols};
  const Weights last(kBlock, kCols, 3);
  PackRows(last.row_major().data(), kBlock, kCols,
           data + elements - int64_t{kBlock} * kCols);
  const TokenId ids[] = {kRows - 1, kRows - kBlock};
  Matrix x = Empty(2, kCols);
  backend_->Embed(table, ids, 1.0f, x.tensor());
  for (int c = 0; c < kCols; ++c) {
    ASSERT_EQ(x.at(0, c), last.at(kBlock - 1, c)) << c;
    ASSERT_EQ(x.at(1, c), last.at(0, c)) << c;
  }
  Matrix expected = Empty(2, kBlock);
  Matrix out = Empty(2, kBlock);
  backend_->MatMul(x.tensor(), last.packed(), expected.tensor());
  backend_->MatMul(x.tensor(), table.Rows(kRows - kBlock, kBlock),
                   out.tensor());
  for (int r = 0; r < 2; ++r) ASSERT_TRUE(out.SameRow(r, expected, r));
  backend_->Free(*memory);
}

TEST_P(BackendTest, MatMulTakesViewsOfWeights) {
  Matrix x = Random(5, 32, 1);
  const Weights w(64, 96, 2);
  Matrix out = Empty(5, 32);
  backend_->MatMul(x.tensor(), w.packed().Rows(16, 32).Cols(40, 32),
                   out.tensor());
  for (int r = 0; r < 5; ++r) {
    for (int c = 0; c < 32; ++c) {
      double sum = 0;
      for (int k = 0; k < 32; ++k) {
        sum += double{x.at(r, k)} * w.at(16 + c, 40 + k);
      }
      ExpectNear(out.at(r, c), sum, 8);
    }
  }
}

TEST_P(BackendTest, MatMulRowsDoNotDependOnTheBatchOrTheThreads) {
  constexpr int kRows = 250;
  constexpr int kIn = 656;
  const Weights w(80, kIn, 2);
  Matrix x = Random(kRows, kIn, 1);
  Matrix all = Empty(kRows, 80);
  backend_->MatMul(x.tensor(), w.packed(), all.tensor());
  for (const int threads : {1, 3}) {
    const std::unique_ptr<Backend> other = NewBackend(isa(), threads);
    for (const int count : {1, 2, 5, 7, 8, 9, 11, 17, 64, 65, 193, 250}) {
      const int first = (kRows - count) / 2;
      Matrix some = Empty(count, 80);
      other->MatMul(x.tensor().Rows(first, count), w.packed(), some.tensor());
      for (int r = 0; r < count; ++r) {
        ASSERT_TRUE(some.SameRow(r, all, first + r))
            << "row " << r << " of " << count;
      }
    }
  }
}

TEST_P(BackendTest, CopiesRowsOfWiderMatrices) {
  std::vector<float> from(3 * 8), to(3 * 6, -1.0f);
  std::iota(from.begin(), from.end(), 0.0f);
  const Tensor source = {from.data(), DType::kF32, 3, 8, 8};
  const Tensor target = {to.data(), DType::kF32, 3, 6, 6};
  backend_->Copy(source.Cols(2, 4), target.Cols(1, 4));
  EXPECT_THAT(to, ::testing::ElementsAre(-1, 2, 3, 4, 5, -1,      //
                                         -1, 10, 11, 12, 13, -1,  //
                                         -1, 18, 19, 20, 21, -1));
}

TEST_P(BackendTest, EmbedReadsRowsOfThePackedTable) {
  const Weights table(64, 48, 3);
  const std::vector<TokenId> ids = {0, 63, 17, 16, 17};
  Matrix out = Empty(5, 48);
  backend_->Embed(table.packed(), ids, 7.75f, out.tensor());
  for (int r = 0; r < 5; ++r) {
    for (int c = 0; c < 48; ++c) {
      ExpectNear(out.at(r, c), 7.75 * table.at(ids[r], c), 0);
    }
  }
}

TEST_P(BackendTest, RmsNormDividesByTheRootMeanSquare) {
  const Weights weight(16, 3840, 4);
  for (const int cols : {1, 3, 15, 17, 63, 80, 130, 256, 3840}) {
    for (const Bf16* w :
         {static_cast<const Bf16*>(nullptr), weight.row_major().data()}) {
      Matrix x = Random(7, cols, 5);
      Matrix out = Empty(7, cols);
      backend_->RmsNorm(x.tensor(), w, 1e-6f, out.tensor());
      for (int r = 0; r < 7; ++r) {
        double squares = 0;
        for (int c = 0; c < cols; ++c) squares += std::pow(x.at(r, c), 2);
        const double scale = 1 / std::sqrt(squares / cols + 1e-6);
        for (int c = 0; c < cols; ++c) {
          const double y = x.at(r, c) * scale;
          ExpectNear(out.at(r, c), w == nullptr ? y : y * ToFloat(w[c]), 2);
        }
      }
    }
  }
}

TEST_P(BackendTest, RmsNormWorksInPlaceAndOneRowAtATime) {
  Matrix x = Random(65, 144, 5);
  Matrix out = Empty(65, 144);
  backend_->RmsNorm(x.tensor(), nullptr, 1e-6f, out.tensor());
  for (int r = 0; r < 65; ++r) {
    backend_->RmsNorm(x.tensor().Rows(r, 1), nullptr, 1e-6f,
                      x.tensor().Rows(r, 1));
    ASSERT_TRUE(x.SameRow(r, out, r)) << r;
  }
}

TEST_P(BackendTest, AddRoundsTheSumBeforeItScales) {
  Matrix x = Random(17, 36, 6);
  Matrix y = Random(17, 36, 7);
  Matrix out = Empty(17, 36);
  backend_->Add(x.tensor(), y.tensor(), 0.8125f, out.tensor());
  for (int r = 0; r < 17; ++r) {
    for (int c = 0; c < 36; ++c) {
      const float sum = x.at(r, c) + y.at(r, c);
      const float expected = dtype() == DType::kF32
                                 ? sum * 0.8125f
                                 : RoundToBf16(RoundToBf16(sum) * 0.8125f);
      ASSERT_EQ(out.at(r, c), expected);
    }
  }
}

TEST_P(BackendTest, GeluMulGatesTheSecondHalf) {
  for (const int cols : {1, 7, 17, 36, 1040}) {
    Matrix x = Random(7, 2 * cols, 8, 12.0f);
    Matrix out = Empty(7, cols);
    backend_->GeluMul(x.tensor(), out.tensor());
    for (int r = 0; r < 7; ++r) {
      for (int c = 0; c < cols; ++c) {
        const double g = x.at(r, c);
        const double inner = std::sqrt(2 / M_PI) * (g + 0.044715 * g * g * g);
        // 0.5 (1 + tanh(inner)), without the cancellation.
        const double gelu = g / (1 + std::exp(-2 * inner));
        const double expected = gelu * x.at(r, cols + c);
        ExpectNear(out.at(r, c), expected,
                   std::abs(expected) * (1 + std::abs(inner)) + 1e-30);
      }
    }
  }
}

TEST_P(BackendTest, GeluMulSaturatesFarFromZero) {
  Matrix x = Empty(1, 2 * 19);
  for (int c = 0; c < 19; ++c) {
    x.Set(0, c, c % 2 == 0 ? 1e30f : -1e30f);
    x.Set(0, 19 + c, 0.5f);
  }
  Matrix out = Empty(1, 19);
  backend_->GeluMul(x.tensor(), out.tensor());
  for (int c = 0; c < 19; ++c) {
    const float expected = c % 2 == 0 ? x.at(0, c) * 0.5f : 0.0f;
    ASSERT_NEAR(out.at(0, c), expected, 1e-6f) << c;
  }
}

TEST_P(BackendTest, SoftCapSaturatesFarFromZero) {
  Matrix capped(DType::kF32, 1, 19);
  for (int c = 0; c < 19; ++c) capped.Set(0, c, c % 2 == 0 ? 1e38f : -1e38f);
  backend_->SoftCap(capped.tensor(), 30.0f);
  for (int c = 0; c < 19; ++c) {
    ASSERT_EQ(capped.at(0, c), c % 2 == 0 ? 30.0f : -30.0f) << c;
  }
}

TEST_P(BackendTest, SoftCapIsAScaledTangent) {
  Matrix x = Matrix::Random(DType::kF32, 3, 9000, 9, 100.0f);
  for (int c = 0; c < 4500; ++c) x.Set(1, c, x.at(1, c) * 1e-3f);
  Matrix out = x;
  backend_->SoftCap(out.tensor(), 30.0f);
  for (int r = 0; r < 3; ++r) {
    for (int c = 0; c < x.cols(); ++c) {
      const double expected = 30 * std::tanh(x.at(r, c) / 30.0);
      ASSERT_NEAR(out.at(r, c), expected, std::abs(expected) * 0x1p-21);
    }
  }
}

TEST_P(BackendTest, RopeAnglesAreThoseOfTheFloatProduct) {
  const std::vector<int> positions = {0, 1, 63, 1000, 16383, 262143, 299999};
  std::vector<float> frequencies;
  for (int i = 0; i < 40; ++i) {
    frequencies.push_back(static_cast<float>(std::pow(1e4, -i / 64.0)));
  }
  std::vector<float> cos(positions.size() * 40);
  std::vector<float> sin(cos.size());
  backend_->RopeAngles(positions, frequencies, cos.data(), sin.data());
  for (size_t t = 0; t < positions.size(); ++t) {
    for (int i = 0; i < 40; ++i) {
      const float angle = static_cast<float>(positions[t]) * frequencies[i];
      ASSERT_NEAR(cos[t * 40 + i], std::cos(double{angle}), 0x1p-23);
      ASSERT_NEAR(sin[t * 40 + i], std::sin(double{angle}), 0x1p-23);
    }
  }
}

TEST_P(BackendTest, AllocatesZeroedAlignedMemory) {
  const absl::StatusOr<void*> memory = backend_->Allocate(100000);
  ASSERT_OK(memory);
  EXPECT_EQ(reinterpret_cast<uintptr_t>(*memory) % 64, 0u);
  std::vector<char> bytes(100000, 1);
  backend_->CopyToHost(*memory, 100000, bytes.data());
  EXPECT_THAT(bytes, ::testing::Each(0));
  backend_->Free(*memory);
  backend_->Free(nullptr);
}

TEST_P(BackendTest, RefusesMoreMemoryThanThereIs) {
  EXPECT_THAT(backend_->Allocate(int64_t{1} << 60),
              StatusIs(absl::StatusCode::kResourceExhausted));
}

TEST(CpuBackendTest, TellsPeopleOfItsThreads) {
  EXPECT_EQ(NewBackend(Isa::kPortable, 1)->Description(),
            "1 CPU thread, portable");
  EXPECT_EQ(NewBackend(Isa::kPortable, 2)->Description(),
            "2 CPU threads, portable");
}

TEST(CpuBackendTest, RefusesANegativeNumberOfThreads) {
  EXPECT_THAT(NewCpuBackend({.threads = -1}),
              StatusIs(absl::StatusCode::kInvalidArgument));
}

TEST(IsaTest, ParsesEveryName) {
  for (const Isa isa : SupportedIsas()) {
    EXPECT_THAT(ParseIsa(IsaName(isa)), IsOkAndHolds(isa));
  }
  EXPECT_THAT(ParseIsa("auto"), IsOkAndHolds(Isa::kAuto));
}

TEST(IsaTest, NamesTheChoicesForAnUnknownName) {
  EXPECT_THAT(ParseIsa("sse9"),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       ::testing::HasSubstr("avx512_bf16, got 'sse9'")));
}

TEST(PackTest, UnpacksToWhatItPacked) {
  for (const int cols : {2, 30, 32, 34, 256}) {
    const Weights weights(48, cols, 10);
    std::vector<Bf16> row_major(48 * cols);
    UnpackRows(weights.packed(), row_major.data());
    for (size_t i = 0; i < row_major.size(); ++i) {
      ASSERT_EQ(row_major[i].bits, weights.row_major()[i].bits);
    }
  }
}

}  // namespace
}  // namespace lapidary
