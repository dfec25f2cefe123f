// Functions of vectors of floats.

#ifndef KERNELS_CPU_VECTOR_MATH_H_
#define KERNELS_CPU_VECTOR_MATH_H_

namespace lapidary::cpu {

// e^x to about one unit in the last place; 0 below -87, the largest power of
// two times e^r above 88.
//
//   x = n ln 2 + r,  |r| <= ln 2 / 2,   e^x = 2^n (1 + r + r^2/2! + ... r^7/7!)
template <class S>
[[gnu::always_inline]] inline typename S::F Exp(typename S::F x) {
  using F = typename S::F;
  using I = typename S::I;
  constexpr float kLowest = -87.0f;
  constexpr float kHighest = 88.0f;
  constexpr float kLog2E = 1.442695041f;
  // ln 2 in two parts; n times the first is exact.
  constexpr float kLn2High = 0.693359375f;
  constexpr float kLn2Low = -2.12194440e-4f;
  // Adding it rounds to an integer, which the low bits then hold.
  constexpr float kRounder = 12582912.0f;  // 1.5 * 2^23.
  constexpr int kRounderBits = 0x4b400000;

  const F lowest = S::Set(kLowest);
  const F highest = S::Set(kHighest);
  const F clamped = S::Max(lowest, x > highest ? highest : x);
  const F rounded = clamped * kLog2E + kRounder;
  const F n = rounded - kRounder;
  const F r =
      S::Fma(n, S::Set(-kLn2Low), S::Fma(n, S::Set(-kLn2High), clamped));

  F sum = S::Set(1.0f / 5040);
  sum = S::Fma(sum, r, S::Set(1.0f / 720));
  sum = S::Fma(sum, r, S::Set(1.0f / 120));
  sum = S::Fma(sum, r, S::Set(1.0f / 24));
  sum = S::Fma(sum, r, S::Set(1.0f / 6));
  sum = S::Fma(sum, r, S::Set(0.5f));
  sum = S::Fma(sum, r * r, r) + 1.0f;

  const I exponent = ((I)rounded - kRounderBits + 127) << 23;
  const F result = sum * (F)exponent;
  return x < lowest ? S::Zero() : result;
}

// 1 / (1 + e^-x).
template <class S>
typename S::F Sigmoid(typename S::F x) {
  return 1.0f / (1.0f + Exp<S>(-x));
}

// Near zero by the odd polynomial of the power series' shape, elsewhere
// 2 sigmoid(2x) - 1.
template <class S>
typename S::F Tanh(typename S::F x) {
  using F = typename S::F;
  constexpr float kSmall = 0.625f;
  const F z = x * x;
  F p = S::Set(-5.70498872745e-3f);
  p = S::Fma(p, z, S::Set(2.06390887954e-2f));
  p = S::Fma(p, z, S::Set(-5.37397155531e-2f));
  p = S::Fma(p, z, S::Set(1.33314422036e-1f));
  p = S::Fma(p, z, S::Set(-3.33332819422e-1f));
  const F near_zero = S::Fma(p * z, x, x);
  const F elsewhere = 2.0f * Sigmoid<S>(2.0f * x) - 1.0f;
  return z < S::Set(kSmall * kSmall) ? near_zero : elsewhere;
}

}  // namespace lapidary::cpu

#endif  // KERNELS_CPU_VECTOR_MATH_H_
