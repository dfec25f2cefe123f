// Attention of a step by all threads.
//
// An item of work is a few tokens of a sequence with the heads of one KV head,
// so many rows that a tile of keys, once loaded, serves for a while.  Where
// that leaves threads without work, as in decode, an item's pieces of keys
// (kPieceTokens) are computed apart and merged afterwards, which gives the same
// numbers.

#ifndef KERNELS_CPU_ATTENTION_H_
#define KERNELS_CPU_ATTENTION_H_

#include <cstdint>
#include <vector>

#include "kernels/attention.h"
#include "kernels/cpu/isa_kernels.h"
#include "kernels/cpu/scratch.h"
#include "kernels/cpu/thread_pool.h"

namespace lapidary::cpu {

class Attention {
 public:
  // Both must outlive it.
  Attention(const IsaKernels& kernels, ThreadPool& pool);

  // REQUIRES: the shapes fit (see Backend).
  void Run(const AttendArgs& args);

 private:
  struct Item {
    AttendUnit unit;  // Its piece is set when it runs.
    int rows;
    int first_piece;
    int num_pieces;
    // Where the pieces' states lie if they are computed apart, else -1.
    int64_t states;  // In floats.
  };
  // A piece of an item, or all of them.
  struct Job {
    int item;
    int piece;
  };

  void ListItems(const AttendArgs& args);
  // Chooses jobs of items from `first` on, whose states fit in memory; returns
  // the item after them.
  int ListJobs(int first, int head_dim);
  void RunJob(const AttendArgs& args, const Job& job, int thread);
  void MergeItem(const AttendArgs& args, const Item& item, int thread);
  void ReserveScratch(const AttendArgs& args);

  const IsaKernels& kernels_;
  ThreadPool& pool_;

  // Of the call that runs; members to keep their memory.
  std::vector<Item> items_;
  std::vector<Job> jobs_;
  Scratch states_;

  struct ThreadScratch {
    Scratch memory;
    AttendScratch kernel;
    AttendState piece;
    AttendState total;
  };
  std::vector<ThreadScratch> threads_;  // By thread.
};

}  // namespace lapidary::cpu

#endif  // KERNELS_CPU_ATTENTION_H_
