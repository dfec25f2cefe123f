#include "tools/timed_backend.h"

#include <utility>

#include "absl/time/clock.h"

namespace lapidary {

OperationTimes TimedBackend::TakeTimes() { return std::exchange(times_, {}); }

void TimedBackend::Time(absl::Duration& total,
                        absl::FunctionRef<void()> operation) {
  const absl::Time begin = absl::Now();
  operation();
  total += absl::Now() - begin;
}

std::string TimedBackend::Description() const { return backend_.Description(); }

absl::StatusOr<void*> TimedBackend::Allocate(int64_t bytes) {
  return backend_.Allocate(bytes);
}

void TimedBackend::Free(void* memory) { backend_.Free(memory); }

void TimedBackend::CopyToDevice(const void* host, int64_t bytes, void* device) {
  Time(times_.other, [&] { backend_.CopyToDevice(host, bytes, device); });
}

void TimedBackend::CopyToHost(const void* device, int64_t bytes, void* host) {
  Time(times_.other, [&] { backend_.CopyToHost(device, bytes, host); });
}

void TimedBackend::Embed(const PackedMatrix& table,
                         std::span<const TokenId> ids, float scale,
                         Tensor out) {
  Time(times_.other, [&] { backend_.Embed(table, ids, scale, out); });
}

void TimedBackend::RmsNorm(Tensor x, const Bf16* weight, float epsilon,
                           Tensor out) {
  Time(times_.other, [&] { backend_.RmsNorm(x, weight, epsilon, out); });
}

void TimedBackend::MatMul(Tensor x, const PackedMatrix& w, Tensor out) {
  Time(times_.matmul, [&] { backend_.MatMul(x, w, out); });
  const double elements = static_cast<double>(w.rows) * w.cols;
  times_.matmul_operations += 2.0 * x.rows * elements;
  times_.weight_bytes += sizeof(Bf16) * elements;
}

void TimedBackend::Add(Tensor x, Tensor y, float scale, Tensor out) {
  Time(times_.other, [&] { backend_.Add(x, y, scale, out); });
}

void TimedBackend::GeluMul(Tensor x, Tensor out) {
  Time(times_.other, [&] { backend_.GeluMul(x, out); });
}

void TimedBackend::RopeAngles(std::span<const int> positions,
                              std::span<const float> inverse_frequencies,
                              float* cos, float* sin) {
  Time(times_.other,
       [&] { backend_.RopeAngles(positions, inverse_frequencies, cos, sin); });
}

void TimedBackend::QkNormRope(const QkNormRopeArgs& args) {
  Time(times_.other, [&] { backend_.QkNormRope(args); });
}

void TimedBackend::WriteKv(const WriteKvArgs& args) {
  Time(times_.other, [&] { backend_.WriteKv(args); });
}

void TimedBackend::Copy(Tensor from, Tensor to) {
  Time(times_.other, [&] { backend_.Copy(from, to); });
}

void TimedBackend::ReadKv(const ReadKvArgs& args) {
  Time(times_.other, [&] { backend_.ReadKv(args); });
}

void TimedBackend::Attend(const AttendArgs& args) {
  Time(times_.attend, [&] { backend_.Attend(args); });
}

void TimedBackend::MergeAttention(const MergeAttentionArgs& args) {
  Time(times_.attend, [&] { backend_.MergeAttention(args); });
}

void TimedBackend::SoftCap(Tensor x, float cap) {
  Time(times_.other, [&] { backend_.SoftCap(x, cap); });
}

absl::Status TimedBackend::Synchronize() { return backend_.Synchronize(); }

}  // namespace lapidary
