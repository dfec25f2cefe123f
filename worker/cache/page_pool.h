// The pages of one family on one rank: which are free, and who holds the rest.

#ifndef WORKER_CACHE_PAGE_POOL_H_
#define WORKER_CACHE_PAGE_POOL_H_

#include <vector>

#include "common/tokens.h"

namespace lapidary {

// A page is free while it has no holder.  A lease is one holder; whoever else
// keeps a page alive beyond the lease (a snapshot, a shared prefix) is another.
//
// Thread-compatible.
class PagePool {
 public:
  // REQUIRES: num_pages > 0.
  explicit PagePool(int num_pages);

  int num_pages() const { return static_cast<int>(holders_.size()); }
  int num_free() const { return static_cast<int>(free_.size()); }
  int num_used() const { return num_pages() - num_free(); }

  // A page that was free, with one holder: the one given back last, whose bytes
  // are the likeliest to be in a cache.
  //
  // REQUIRES: num_free() > 0.
  PageId Take();

  // Adds a holder.
  //
  // REQUIRES: the page has one.
  void Hold(PageId page);

  // Removes a holder; with the last one the page is free.
  //
  // REQUIRES: the page has one.
  void Release(PageId page);

 private:
  std::vector<PageId> free_;  // A stack.
  std::vector<int> holders_;  // By PageId.
};

}  // namespace lapidary

#endif  // WORKER_CACHE_PAGE_POOL_H_
