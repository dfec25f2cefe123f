#include "worker/cache/page_pool.h"

#include <cstddef>

#include "glog/logging.h"

namespace lapidary {

PagePool::PagePool(int num_pages) {
  CHECK_GT(num_pages, 0);
  holders_.resize(static_cast<size_t>(num_pages));
  free_.reserve(holders_.size());
  for (PageId page = num_pages - 1; page >= 0; --page) free_.push_back(page);
}

PageId PagePool::Take() {
  CHECK(!free_.empty());
  const PageId page = free_.back();
  free_.pop_back();
  holders_[page] = 1;
  return page;
}

void PagePool::Hold(PageId page) {
  CHECK_GT(holders_.at(page), 0) << "page " << page;
  ++holders_[page];
}

void PagePool::Release(PageId page) {
  CHECK_GT(holders_.at(page), 0) << "page " << page;
  if (--holders_[page] == 0) free_.push_back(page);
}

}  // namespace lapidary
