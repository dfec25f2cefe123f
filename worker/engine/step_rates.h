// How many tokens a second recent steps computed.

#ifndef WORKER_ENGINE_STEP_RATES_H_
#define WORKER_ENGINE_STEP_RATES_H_

#include "absl/time/time.h"

namespace lapidary {

// What a step computed.
struct StepSize {
  int prefill_tokens = 0;
  int decode_tokens = 0;
};

// Averages over the last kMemory or so.  The time of a step that did both is
// shared by tokens.  Thread-compatible.
class StepRates {
 public:
  static constexpr absl::Duration kMemory = absl::Seconds(10);

  void Add(const StepSize& size, absl::Duration duration);

  // 0 until there was such a token.
  double prefill_tokens_per_second() const { return Rate(prefill_); }
  double decode_tokens_per_second() const { return Rate(decode_); }

 private:
  // Decaying sums.
  struct Sum {
    double tokens = 0;
    double seconds = 0;
  };
  static void Add(int tokens, double seconds, Sum& sum);
  static double Rate(const Sum& sum);

  Sum prefill_;
  Sum decode_;
};

}  // namespace lapidary

#endif  // WORKER_ENGINE_STEP_RATES_H_
