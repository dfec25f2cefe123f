// A backend that times what it passes on to another.

#ifndef TOOLS_TIMED_BACKEND_H_
#define TOOLS_TIMED_BACKEND_H_

#include <cstdint>
#include <string>

#include "absl/functional/function_ref.h"
#include "absl/time/time.h"
#include "kernels/backend.h"

namespace lapidary {

struct OperationTimes {
  absl::Duration matmul;
  absl::Duration attend;
  absl::Duration other;
  // What the matmuls computed (a multiply-add is two) and read of weights.
  double matmul_operations = 0;
  double weight_bytes = 0;
};

// For backends whose operations are done when they return.
class TimedBackend : public Backend {
 public:
  // `backend` outlives this.
  explicit TimedBackend(Backend& backend) : backend_(backend) {}

  // Since the last call of it.
  OperationTimes TakeTimes();

  std::string Description() const override;
  absl::StatusOr<void*> Allocate(int64_t bytes) override;
  void Free(void* memory) override;
  void CopyToDevice(const void* host, int64_t bytes, void* device) override;
  void CopyToHost(const void* device, int64_t bytes, void* host) override;
  void Embed(const PackedMatrix& table, std::span<const TokenId> ids,
             float scale, Tensor out) override;
  void RmsNorm(Tensor x, const Bf16* weight, float epsilon,
               Tensor out) override;
  void MatMul(Tensor x, const PackedMatrix& w, Tensor out) override;
  void Add(Tensor x, Tensor y, float scale, Tensor out) override;
  void GeluMul(Tensor x, Tensor out) override;
  void RopeAngles(std::span<const int> positions,
                  std::span<const float> inverse_frequencies, float* cos,
                  float* sin) override;
  void QkNormRope(const QkNormRopeArgs& args) override;
  void WriteKv(const WriteKvArgs& args) override;
  void Copy(Tensor from, Tensor to) override;
  void ReadKv(const ReadKvArgs& args) override;
  void Attend(const AttendArgs& args) override;
  void MergeAttention(const MergeAttentionArgs& args) override;
  void SoftCap(Tensor x, float cap) override;
  absl::Status Synchronize() override;

 private:
  void Time(absl::Duration& total, absl::FunctionRef<void()> operation);

  Backend& backend_;
  OperationTimes times_;
};

}  // namespace lapidary

#endif  // TOOLS_TIMED_BACKEND_H_
