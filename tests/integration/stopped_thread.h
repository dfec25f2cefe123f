// Stops one thread of a child process while its others go on: a rank that is
// stuck in a step and still sends heartbeats.

#ifndef TESTS_INTEGRATION_STOPPED_THREAD_H_
#define TESTS_INTEGRATION_STOPPED_THREAD_H_

#include <sys/types.h>

#include <string>

namespace lapidary {

// Used by the thread that started the process.
class StoppedThread {
 public:
  StoppedThread() = default;
  // Lets it run on.
  ~StoppedThread();

  StoppedThread(const StoppedThread&) = delete;
  StoppedThread& operator=(const StoppedThread&) = delete;

  // CHECKs that `pid` has a thread called `name` and may be traced.
  void Stop(pid_t pid, const std::string& name);

  // Waits for the end of its process, which cannot be seen before that.
  void AwaitEnd();

 private:
  pid_t thread_ = 0;
};

}  // namespace lapidary

#endif  // TESTS_INTEGRATION_STOPPED_THREAD_H_
