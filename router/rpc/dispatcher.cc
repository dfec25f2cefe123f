#include "router/rpc/dispatcher.h"

#include <pthread.h>

#include <utility>

#include "glog/logging.h"
#include "router/core/progress_pace.h"

namespace lapidary {
namespace {

std::vector<WorkerClient*> Borrow(
    const std::vector<std::unique_ptr<WorkerClient>>& clients) {
  std::vector<WorkerClient*> pointers;
  for (const auto& client : clients) pointers.push_back(client.get());
  return pointers;
}

}  // namespace

Dispatcher::Dispatcher(const RouterCore::Options& options,
                       std::vector<std::unique_ptr<WorkerClient>> clients,
                       Clock& clock)
    : clock_(clock),
      addresses_(options.registry.addresses),
      core_(options, clock.Now()),
      last_states_(addresses_.size(), GroupState::kConnecting),
      clients_(std::move(clients)) {
  CHECK_EQ(clients_.size(), addresses_.size());
  discovery_ = std::make_unique<Discovery>(Borrow(clients_), CoreEvents());
  timer_ = std::thread([this] {
    pthread_setname_np(pthread_self(), "timer");
    TickUntilStopped();
  });
}

Dispatcher::~Dispatcher() {
  {
    MutexLock lock(mutex_);
    stopped_ = true;
  }
  changed_.SignalAll();
  timer_.join();
  {
    MutexLock lock(mutex_);
    while (num_acting_ > 0) changed_.Wait(mutex_);
  }
  clients_.clear();  // No callback comes after this.
}

RequestKey Dispatcher::NewKey() {
  MutexLock lock(mutex_);
  return next_key_++;
}

void Dispatcher::Add(RequestKey key, Handler handler) {
  auto shared = std::make_shared<const Handler>(std::move(handler));
  MutexLock lock(mutex_);
  handlers_[key] = std::move(shared);
}

void Dispatcher::Submit(const RouterCore::NewRequest& request) {
  Do([&](RouterCore& core, absl::Time now, RouterCore::Actions& actions) {
    core.Submit(request, now, actions);
  });
}

void Dispatcher::OnPrefilled(RequestKey key, int tokens) {
  MutexLock lock(mutex_);
  core_.OnPrefilled(key, tokens);
}

void Dispatcher::OnFirstToken(RequestKey key) {
  MutexLock lock(mutex_);
  core_.OnFirstToken(key);
}

void Dispatcher::OnRunLost(RequestKey key, const absl::Status& status) {
  Do([&](RouterCore& core, absl::Time now, RouterCore::Actions& actions) {
    core.OnRunLost(key, status, now, actions);
  });
}

void Dispatcher::OnRunRefused(RequestKey key, const absl::Status& status,
                              absl::Duration retry_after) {
  Do([&](RouterCore& core, absl::Time, RouterCore::Actions& actions) {
    core.OnRunRefused(key, status, retry_after, actions);
  });
}

void Dispatcher::Remove(RequestKey key) {
  SharedHandler handler;  // Destroyed without the lock.
  MutexLock lock(mutex_);
  core_.Remove(key);
  if (const auto it = handlers_.find(key); it != handlers_.end()) {
    handler = std::move(it->second);
    handlers_.erase(it);
  }
}

void Dispatcher::Drain() {
  MutexLock lock(mutex_);
  core_.Drain();
}

Dispatcher::Snapshot Dispatcher::snapshot() const {
  MutexLock lock(mutex_);
  return {core_.groups(), core_.load()};
}

void Dispatcher::set_on_tick(std::function<void(const Snapshot&)> callback) {
  MutexLock lock(tick_mutex_);
  on_tick_ = std::move(callback);
}

void Dispatcher::Do(const Step& step) {
  RouterCore::Actions actions;
  {
    MutexLock lock(mutex_);
    if (stopped_) return;
    step(core_, clock_.Now(), actions);
    LogChanges();
    ++num_acting_;
  }
  Act(actions);
  MutexLock lock(mutex_);
  --num_acting_;
  if (stopped_) changed_.SignalAll();
}

void Dispatcher::Act(const RouterCore::Actions& actions) {
  for (const Registry::Action& action : actions.groups)
    discovery_->Perform(action);
  for (const RouterCore::Start& start : actions.starts) {
    if (const auto handler = FindHandler(start.request)) {
      handler->on_start(*clients_[start.group], addresses_[start.group],
                        start.max_tokens);
    }
  }
  for (const RouterCore::Failure& failure : actions.failures) {
    if (const auto handler = TakeHandler(failure.request))
      handler->on_failure(failure.refusal);
  }
}

// The handler of `key`; null if its request has ended.
Dispatcher::SharedHandler Dispatcher::FindHandler(RequestKey key) {
  MutexLock lock(mutex_);
  const auto it = handlers_.find(key);
  return it == handlers_.end() ? nullptr : it->second;
}

Dispatcher::SharedHandler Dispatcher::TakeHandler(RequestKey key) {
  MutexLock lock(mutex_);
  const auto it = handlers_.find(key);
  if (it == handlers_.end()) return nullptr;
  SharedHandler handler = std::move(it->second);
  handlers_.erase(it);
  return handler;
}

void Dispatcher::Tick() {
  Do([&](RouterCore& core, absl::Time now, RouterCore::Actions& actions) {
    core.Tick(now, actions);
  });
  std::vector<SharedHandler> handlers;
  {
    MutexLock lock(mutex_);
    for (const auto& [key, handler] : handlers_) handlers.push_back(handler);
  }
  const absl::Time now = clock_.Now();
  for (const SharedHandler& handler : handlers) handler->on_tick(now);
  MutexLock lock(tick_mutex_);
  if (on_tick_) on_tick_(snapshot());
}

void Dispatcher::TickUntilStopped() {
  while (true) {
    Tick();
    MutexLock lock(mutex_);
    // Signalled when stopped; waking early only ticks early.
    if (!stopped_) changed_.WaitFor(mutex_, ProgressPace::kTick);
    if (stopped_) return;
  }
}

Discovery::Events Dispatcher::CoreEvents() {
  Discovery::Events events;
  events.on_described =
      [this](GroupId id, uint64_t attempt,
             const absl::StatusOr<GroupDescription>& description) {
        Do([&](RouterCore& core, absl::Time now, RouterCore::Actions& actions) {
          core.OnDescribed(id, attempt, description, now, actions);
        });
      };
  events.on_load = [this](GroupId id, uint64_t attempt, const GroupLoad& load) {
    Do([&](RouterCore& core, absl::Time now, RouterCore::Actions& actions) {
      core.OnLoad(id, attempt, load, now, actions);
    });
  };
  events.on_watch_ended = [this](GroupId id, uint64_t attempt,
                                 const absl::Status& status) {
    Do([&](RouterCore& core, absl::Time now, RouterCore::Actions& actions) {
      core.OnWatchEnded(id, attempt, status, now, actions);
    });
  };
  return events;
}

void Dispatcher::LogChanges() {
  for (const Group& group : core_.groups()) {
    GroupState& last = last_states_[group.id];
    if (group.state == last) continue;
    last = group.state;
    LOG(INFO) << "group " << group.address << " is "
              << GroupStateName(group.state)
              << (group.reason.empty() ? "" : ": ") << group.reason;
  }
}

}  // namespace lapidary
