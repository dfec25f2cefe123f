#include "worker/engine/outbox.h"

#include <algorithm>
#include <iterator>
#include <utility>

#include "glog/logging.h"

namespace lapidary {

Outbox::Outbox(int max_tokens, std::function<void()> on_change)
    : max_tokens_(max_tokens), on_change_(std::move(on_change)) {}

Outbox::Contents Outbox::Take(int max_tokens) {
  MutexLock lock(mutex_);
  const int num_tokens = static_cast<int>(contents_.tokens.size());
  if (num_tokens <= max_tokens) return std::exchange(contents_, Contents());
  Contents taken;
  taken.progress = std::exchange(contents_.progress, std::nullopt);
  const auto begin = contents_.tokens.begin();
  taken.tokens.assign(std::make_move_iterator(begin),
                      std::make_move_iterator(begin + max_tokens));
  contents_.tokens.erase(begin, begin + max_tokens);
  return taken;
}

void Outbox::SetProgress(const Scheduler::Progress& progress) {
  MutexLock lock(mutex_);
  contents_.progress = progress;
}

void Outbox::AddToken(SampledToken token) {
  MutexLock lock(mutex_);
  CHECK_LT(added_tokens_, max_tokens_);
  ++added_tokens_;
  contents_.tokens.push_back(std::move(token));
}

void Outbox::Finish(Finished finished) {
  MutexLock lock(mutex_);
  CHECK(!contents_.finished.has_value());
  contents_.finished = std::move(finished);
}

}  // namespace lapidary
