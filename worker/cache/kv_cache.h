// Which sequence holds which pages of key/value memory.
//
// There are two families of pages (architecture: "key/value memory"):
//
//   global   one page for every 64 positions of the context; logical page p of
//            a sequence is on rank p mod N, so each rank has a pool of its own
//   window   a sliding page table: the pages that hold the last W-1 positions,
//            the same page numbers on every rank
//
//   W = 100, 64-token pages, 300 tokens computed, 40 more in the next step:
//
//   positions    0        64       128      192      256      320
//   global       [0]      [1]      [2]      [3]      [4]      [5]
//   window       -        -        -        [a]      [b]      [c]
//                                            ▲ 201            ▲ 339
//                        the query at 300 sees 201 … 300      last of the step
//
// The bytes live in worker/model/kv_store.h.  A page is written by one
// sequence, never overwritten, and released when no later query can see it.

#ifndef WORKER_CACHE_KV_CACHE_H_
#define WORKER_CACHE_KV_CACHE_H_

#include <span>
#include <vector>

#include "absl/status/status.h"
#include "common/tokens.h"
#include "worker/cache/page_pool.h"

namespace lapidary {

// The most window pages that a sequence of `num_tokens` holds once it advances
// by single tokens, or by chunks that end at the next page border.
int WindowPages(int num_tokens, int window);

// Thread-compatible; in the worker the leader's engine thread alone touches it.
// A call that fails takes no pages.
class KvCache {
 public:
  struct Options {
    int num_ranks = 1;
    int global_pages_per_rank = 0;  // Must be set.
    int window_pages = 0;           // Must be set.
    int window = 0;                 // W.  Must be set.
  };

  struct PoolUse {
    int total = 0;
    int used = 0;
  };

  // One sequence's claim on its pages, given back on destruction.
  // Must not outlive the KvCache that granted it.
  class Lease {
   public:
    Lease() = default;
    Lease(Lease&& other) noexcept;
    Lease& operator=(Lease&& other) noexcept;
    ~Lease();

    // Logical pages 0, 1, …: page p is on rank p mod N.
    std::span<const PageId> global_pages() const { return global_; }
    // Logical pages window_base(), …; kNoPage where no later query looks.
    std::span<const PageId> window_pages() const { return window_; }
    int window_base() const { return window_base_; }
    // Window pages that are not kNoPage.
    int num_window_pages_held() const { return num_window_held_; }
    // Positions [0, num_tokens()) are covered.
    int num_tokens() const { return num_tokens_; }

   private:
    friend class KvCache;
    explicit Lease(KvCache* cache) : cache_(cache) {}

    KvCache* cache_ = nullptr;  // Null if it holds nothing, now or ever.
    std::vector<PageId> global_;
    std::vector<PageId> window_;
    int window_base_ = 0;
    int num_window_held_ = 0;
    int num_tokens_ = 0;
  };

  // REQUIRES: all of the options are > 0.
  explicit KvCache(const Options& options);

  KvCache(const KvCache&) = delete;
  KvCache& operator=(const KvCache&) = delete;

  // A lease that holds nothing yet.
  Lease NewLease();

  // Makes room for a step that computes positions [lease.num_tokens(),
  // num_tokens): global pages for all of them, window pages for those among the
  // last W-1.  Pages that the step reads stay.
  //
  // REQUIRES: num_tokens >= lease.num_tokens().
  // Errors: RESOURCE_EXHAUSTED if pages are short: release others and retry.
  absl::Status Extend(int num_tokens, Lease& lease);

  // Releases the window pages that no query at lease.num_tokens() or later
  // sees.  Call it once the step has run.
  void Trim(Lease& lease);

  // What Extend() can reach on the way to `num_tokens`: `num_tokens` itself, or
  // else the last page border before it for which there are pages, or else
  // lease.num_tokens().
  int Reach(int num_tokens, const Lease& lease) const;

  // Whether a sequence of `num_tokens` fits when nothing else runs, in steps
  // that end where Reach() says.
  bool CanEverFit(int num_tokens) const;

  PoolUse global_use() const;  // Summed over ranks.
  PoolUse global_use(int rank) const;
  PoolUse window_use() const;
  // Global pages that consecutive logical pages can still get: N times what the
  // scarcest rank has.
  int free_global_pages() const;
  int free_window_pages() const { return window_.num_free(); }
  int window() const { return options_.window; }

 private:
  // Pages that Extend() would take.
  struct Need {
    int global = 0;  // Logical pages; consecutive, after those held.
    int window = 0;
  };

  Need NeedFor(int num_tokens, const Lease& lease) const;
  bool HasGlobal(int first, int count) const;
  // The first position that a query at `position` sees.
  int FirstSeen(int position) const;
  void Release(Lease& lease);

  const Options options_;
  std::vector<PagePool> global_;  // By rank.
  PagePool window_;
};

}  // namespace lapidary

#endif  // WORKER_CACHE_KV_CACHE_H_
