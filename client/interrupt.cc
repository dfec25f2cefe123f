#include "client/interrupt.h"

#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include <cstdint>
#include <utility>

#include "glog/logging.h"

namespace lapidary {
namespace {

constexpr int kInterruptedExitCode = 130;

int BlockAndOpenSignals() {
  sigset_t signals;
  sigemptyset(&signals);
  sigaddset(&signals, SIGINT);
  sigaddset(&signals, SIGTERM);
  CHECK_EQ(pthread_sigmask(SIG_BLOCK, &signals, nullptr), 0);
  return signalfd(-1, &signals, SFD_CLOEXEC);
}

}  // namespace

Interrupt::Interrupt()
    : signals_(BlockAndOpenSignals()), stop_(eventfd(0, EFD_CLOEXEC)) {
  PCHECK(signals_ >= 0);
  PCHECK(stop_ >= 0);
  thread_ = std::thread([this] {
    pthread_setname_np(pthread_self(), "interrupt");
    Watch();
  });
}

Interrupt::~Interrupt() {
  PCHECK(eventfd_write(stop_, 1) == 0);
  thread_.join();
  close(signals_);
  close(stop_);
}

void Interrupt::Watch() {
  for (;;) {
    pollfd events[] = {{signals_, POLLIN, 0}, {stop_, POLLIN, 0}};
    if (poll(events, 2, -1) < 0) continue;  // EINTR
    if (events[1].revents != 0) return;
    signalfd_siginfo info;
    if (read(signals_, &info, sizeof(info)) != sizeof(info)) continue;
    MutexLock lock(mutex_);
    if (!action_) _exit(kInterruptedExitCode);
    action_();
  }
}

Interrupt::Scope::Scope(Interrupt& interrupt, std::function<void()> action)
    : interrupt_(interrupt) {
  MutexLock lock(interrupt_.mutex_);
  interrupt_.action_ = std::move(action);
}

Interrupt::Scope::~Scope() {
  MutexLock lock(interrupt_.mutex_);
  interrupt_.action_ = nullptr;
}

}  // namespace lapidary
