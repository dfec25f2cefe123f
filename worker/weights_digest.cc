#include "worker/weights_digest.h"

#include <algorithm>
#include <cstdint>
#include <memory>

#include "absl/strings/escaping.h"
#include "absl/strings/string_view.h"
#include "kernels/bf16.h"
#include "kernels/tensor.h"
#include "xxhash.h"

namespace lapidary {
namespace {

constexpr int kSamples = 16;       // Of a matrix, at equal distances.
constexpr int kSampleValues = 64;  // Of a sample.

class SampleHash {
 public:
  void Add(const Bf16* data, int64_t count) {
    if (data == nullptr) return;
    XXH3_128bits_update(state_.get(), &count, sizeof(count));
    for (int i = 0; i < kSamples; ++i) {
      const int64_t begin = count / kSamples * i;
      const int64_t size = std::min<int64_t>(kSampleValues, count - begin);
      XXH3_128bits_update(state_.get(), data + begin, size * sizeof(Bf16));
    }
  }

  void Add(const PackedMatrix& matrix) {
    Add(matrix.data, int64_t{matrix.rows} * matrix.cols);
  }

  void Add(float value) {
    XXH3_128bits_update(state_.get(), &value, sizeof(value));
  }

  std::string Finish() const {
    XXH128_canonical_t canonical;
    XXH128_canonicalFromHash(&canonical, XXH3_128bits_digest(state_.get()));
    return absl::BytesToHexString(
        absl::string_view(reinterpret_cast<const char*>(canonical.digest),
                          sizeof(canonical.digest)));
  }

 private:
  struct Free {
    void operator()(XXH3_state_t* state) const { XXH3_freeState(state); }
  };
  static XXH3_state_t* NewState() {
    XXH3_state_t* state = XXH3_createState();
    XXH3_128bits_reset(state);
    return state;
  }

  const std::unique_ptr<XXH3_state_t, Free> state_{NewState()};
};

}  // namespace

std::string DigestOfWeights(const GemmaWeights& weights, int hidden_size) {
  SampleHash hash;
  hash.Add(weights.embedding);
  hash.Add(weights.head);
  hash.Add(weights.final_norm, hidden_size);
  for (const LayerWeights& layer : weights.layers) {
    for (const Bf16* norm :
         {layer.input_norm, layer.post_attention_norm,
          layer.pre_feedforward_norm, layer.post_feedforward_norm}) {
      hash.Add(norm, hidden_size);
    }
    hash.Add(layer.layer_scalar);
    for (const PackedMatrix* matrix : {&layer.q, &layer.k, &layer.v, &layer.o,
                                       &layer.gate, &layer.up, &layer.down}) {
      hash.Add(*matrix);
    }
  }
  return hash.Finish();
}

}  // namespace lapidary
