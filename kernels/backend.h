// The operations that the model is made of, on one device.
//
// An operation is enqueued and returns nothing.  Operations run in the order in
// which they were called.  A wrong shape or dtype is a bug of the caller and a
// CHECK; a fault of the device is the Status of the next Synchronize().
//
// Activations are fp32, or bf16 with fp32 inside each operation and one
// rounding at its end.  Weights are bf16.  Every reduction has one fixed order,
// so a row's result does not depend on the other rows of its batch.

#ifndef KERNELS_BACKEND_H_
#define KERNELS_BACKEND_H_

#include <cstdint>
#include <span>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/tokens.h"
#include "kernels/attention.h"
#include "kernels/tensor.h"

namespace lapidary {

// Owned by one thread.
class Backend {
 public:
  virtual ~Backend() = default;

  // For people: "2 CPU threads, avx512_bf16".
  virtual std::string Description() const = 0;

  // Zeroed memory of the device, aligned to 64 bytes.
  //
  // Errors: RESOURCE_EXHAUSTED, with what was asked for.
  virtual absl::StatusOr<void*> Allocate(int64_t bytes) = 0;
  // REQUIRES: no enqueued operation uses `memory`.  Null is allowed.
  virtual void Free(void* memory) = 0;
  // Between host and device.  The host's memory may be reused on return.
  virtual void CopyToDevice(const void* host, int64_t bytes, void* device) = 0;
  virtual void CopyToHost(const void* device, int64_t bytes, void* host) = 0;

  // to = from, of one shape and dtype; the memories are apart.
  virtual void Copy(Tensor from, Tensor to) = 0;

  // out[i] = table[ids[i]] * scale.
  virtual void Embed(const PackedMatrix& table, std::span<const TokenId> ids,
                     float scale, Tensor out) = 0;

  // out[r, c] = x[r, c] * weight[c] / sqrt(mean over c of x[r, c]^2 + epsilon).
  // `weight` [cols] may be null.  `out` may be `x`.
  virtual void RmsNorm(Tensor x, const Bf16* weight, float epsilon,
                       Tensor out) = 0;

  // out = x * w^T.  x [T, K], w [N, K], out [T, N].  `out` is of x's dtype or
  // fp32.  For x in bf16, products of bf16 numbers are summed in fp32.
  virtual void MatMul(Tensor x, const PackedMatrix& w, Tensor out) = 0;

  // out = (x + y) * scale.  In bf16 the sum is rounded before it is scaled, as
  // the reference does.  `out` may be `x` or `y`.
  virtual void Add(Tensor x, Tensor y, float scale, Tensor out) = 0;

  // out[r, c] = gelu_tanh(x[r, c]) * x[r, F + c].  x [T, 2 F], out [T, F].
  virtual void GeluMul(Tensor x, Tensor out) = 0;

  // cos and sin [T, angles] of positions[t] * inverse_frequencies[i], a product
  // of floats.
  virtual void RopeAngles(std::span<const int> positions,
                          std::span<const float> inverse_frequencies,
                          float* cos, float* sin) = 0;

  virtual void QkNormRope(const QkNormRopeArgs& args) = 0;
  virtual void WriteKv(const WriteKvArgs& args) = 0;
  virtual void ReadKv(const ReadKvArgs& args) = 0;
  virtual void Attend(const AttendArgs& args) = 0;
  virtual void MergeAttention(const MergeAttentionArgs& args) = 0;

  // x = cap * tanh(x / cap), in place.  x is fp32.
  virtual void SoftCap(Tensor x, float cap) = 0;

  // Waits for all that was enqueued.
  virtual absl::Status Synchronize() = 0;
};

}  // namespace lapidary

#endif  // KERNELS_BACKEND_H_
