// Memory that grows to the largest size ever asked for, and is kept.

#ifndef KERNELS_CPU_SCRATCH_H_
#define KERNELS_CPU_SCRATCH_H_

#include <cstdint>
#include <cstdlib>
#include <memory>

#include "glog/logging.h"

namespace lapidary::cpu {

class Scratch {
 public:
  // At least `bytes`, aligned to 64 bytes, with any content.  Stays valid while
  // calls ask for no more than the most that was asked for before; a call for
  // more moves the memory and loses its content.  Reserve(0) thus returns what
  // is there: threads call it to share what one has reserved for all.
  void* Reserve(int64_t bytes) {
    constexpr int64_t kAlignment = 64;
    if (bytes > size_) {
      size_ = (bytes + kAlignment - 1) / kAlignment * kAlignment;
      memory_.reset();
      memory_.reset(std::aligned_alloc(kAlignment, size_));
      CHECK(memory_ != nullptr) << "no memory for " << size_ << " bytes";
    }
    return memory_.get();
  }

 private:
  struct Free {
    void operator()(void* memory) const { std::free(memory); }
  };

  std::unique_ptr<void, Free> memory_;
  int64_t size_ = 0;
};

}  // namespace lapidary::cpu

#endif  // KERNELS_CPU_SCRATCH_H_
