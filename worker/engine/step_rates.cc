#include "worker/engine/step_rates.h"

#include <cmath>

namespace lapidary {

void StepRates::Add(const StepSize& size, absl::Duration duration) {
  const int tokens = size.prefill_tokens + size.decode_tokens;
  if (tokens == 0 || duration <= absl::ZeroDuration()) return;
  const double seconds_per_token = absl::ToDoubleSeconds(duration) / tokens;
  Add(size.prefill_tokens, size.prefill_tokens * seconds_per_token, prefill_);
  Add(size.decode_tokens, size.decode_tokens * seconds_per_token, decode_);
}

void StepRates::Add(int tokens, double seconds, Sum& sum) {
  const double kept = std::exp(-seconds / absl::ToDoubleSeconds(kMemory));
  sum.tokens = sum.tokens * kept + tokens;
  sum.seconds = sum.seconds * kept + seconds;
}

double StepRates::Rate(const Sum& sum) {
  return sum.seconds > 0 ? sum.tokens / sum.seconds : 0;
}

}  // namespace lapidary
