#include "worker/cache/kv_cache.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_format.h"
#include "glog/logging.h"

namespace lapidary {

int WindowPages(int num_tokens, int window) {
  // `window` consecutive positions, the first of which is the last of its page.
  const int most = NumPages(window - 1) + 1;
  return std::min(NumPages(num_tokens), most);
}

KvCache::Lease::Lease(Lease&& other) noexcept { *this = std::move(other); }

KvCache::Lease& KvCache::Lease::operator=(Lease&& other) noexcept {
  if (this == &other) return *this;
  if (cache_ != nullptr) cache_->Release(*this);
  cache_ = std::exchange(other.cache_, nullptr);
  global_ = std::exchange(other.global_, {});
  window_ = std::exchange(other.window_, {});
  window_base_ = std::exchange(other.window_base_, 0);
  num_window_held_ = std::exchange(other.num_window_held_, 0);
  num_tokens_ = std::exchange(other.num_tokens_, 0);
  return *this;
}

KvCache::Lease::~Lease() {
  if (cache_ != nullptr) cache_->Release(*this);
}

KvCache::KvCache(const Options& options)
    : options_(options), window_(options.window_pages) {
  CHECK_GT(options.num_ranks, 0);
  CHECK_GT(options.window, 0);
  for (int rank = 0; rank < options.num_ranks; ++rank) {
    global_.emplace_back(options.global_pages_per_rank);
  }
}

KvCache::Lease KvCache::NewLease() { return Lease(this); }

absl::Status KvCache::Extend(int num_tokens, Lease& lease) {
  CHECK(lease.cache_ == this);
  CHECK_GE(num_tokens, lease.num_tokens_);
  const Need need = NeedFor(num_tokens, lease);
  const int held = static_cast<int>(lease.global_.size());
  if (!HasGlobal(held, need.global)) {
    return absl::ResourceExhaustedError(
        absl::StrFormat("needs %d global pages, %d available", need.global,
                        free_global_pages()));
  }
  if (need.window > window_.num_free()) {
    return absl::ResourceExhaustedError(
        absl::StrFormat("needs %d window pages, %d available", need.window,
                        window_.num_free()));
  }

  for (int page = held; page < held + need.global; ++page) {
    lease.global_.push_back(global_[page % options_.num_ranks].Take());
  }
  const int first_kept = FirstSeen(num_tokens) / kPageTokens;
  const int end = NumPages(num_tokens);
  int page = lease.window_base_ + static_cast<int>(lease.window_.size());
  for (; page < end; ++page) {
    lease.window_.push_back(page < first_kept ? kNoPage : window_.Take());
  }
  lease.num_window_held_ += need.window;
  lease.num_tokens_ = num_tokens;
  return absl::OkStatus();
}

void KvCache::Trim(Lease& lease) {
  CHECK(lease.cache_ == this);
  const int base = FirstSeen(lease.num_tokens_) / kPageTokens;
  const int drop = std::min(base - lease.window_base_,
                            static_cast<int>(lease.window_.size()));
  for (int i = 0; i < drop; ++i) {
    if (lease.window_[i] == kNoPage) continue;
    window_.Release(lease.window_[i]);
    --lease.num_window_held_;
  }
  lease.window_.erase(lease.window_.begin(), lease.window_.begin() + drop);
  lease.window_base_ = base;
}

int KvCache::Reach(int num_tokens, const Lease& lease) const {
  const int held = static_cast<int>(lease.global_.size());
  int target = num_tokens;
  while (target > lease.num_tokens_) {
    const Need need = NeedFor(target, lease);
    if (HasGlobal(held, need.global) && need.window <= window_.num_free()) {
      return target;
    }
    target = (target - 1) / kPageTokens * kPageTokens;
  }
  return lease.num_tokens_;
}

bool KvCache::CanEverFit(int num_tokens) const {
  const int pages = NumPages(num_tokens);
  const int per_rank = (pages + options_.num_ranks - 1) / options_.num_ranks;
  return per_rank <= options_.global_pages_per_rank &&
         WindowPages(num_tokens, options_.window) <= options_.window_pages;
}

KvCache::PoolUse KvCache::global_use() const {
  PoolUse use;
  for (const PagePool& pool : global_) {
    use.total += pool.num_pages();
    use.used += pool.num_used();
  }
  return use;
}

KvCache::PoolUse KvCache::global_use(int rank) const {
  return {.total = global_[rank].num_pages(), .used = global_[rank].num_used()};
}

KvCache::PoolUse KvCache::window_use() const {
  return {.total = window_.num_pages(), .used = window_.num_used()};
}

int KvCache::free_global_pages() const {
  int scarcest = global_.front().num_free();
  for (const PagePool& pool : global_) {
    scarcest = std::min(scarcest, pool.num_free());
  }
  return scarcest * options_.num_ranks;
}

KvCache::Need KvCache::NeedFor(int num_tokens, const Lease& lease) const {
  const int end = NumPages(num_tokens);
  const int window_end =
      lease.window_base_ + static_cast<int>(lease.window_.size());
  const int first_kept = FirstSeen(num_tokens) / kPageTokens;
  return {.global = end - static_cast<int>(lease.global_.size()),
          .window = std::max(0, end - std::max(window_end, first_kept))};
}

// Whether logical pages first, …, first + count - 1 can be had.
bool KvCache::HasGlobal(int first, int count) const {
  const int num_ranks = options_.num_ranks;
  for (int i = 0; i < std::min(count, num_ranks); ++i) {
    const int on_rank = (count - i + num_ranks - 1) / num_ranks;
    if (on_rank > global_[(first + i) % num_ranks].num_free()) return false;
  }
  return true;
}

int KvCache::FirstSeen(int position) const {
  return std::max(0, position - options_.window + 1);
}

void KvCache::Release(Lease& lease) {
  for (int page = 0; page < static_cast<int>(lease.global_.size()); ++page) {
    global_[page % options_.num_ranks].Release(lease.global_[page]);
  }
  for (const PageId page : lease.window_) {
    if (page != kNoPage) window_.Release(page);
  }
}

}  // namespace lapidary
