// A router and a group of workers as real processes on loopback, with the
// recall checkpoint, for tests.

#ifndef TESTS_INTEGRATION_CLUSTER_H_
#define TESTS_INTEGRATION_CLUSTER_H_

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "gtest/gtest.h"
#include "proto/lapidary/v1/inference.grpc.pb.h"
#include "tests/integration/process.h"

namespace lapidary {

// A process that listens.
struct Server {
  std::unique_ptr<Process> process;
  std::string rpc;      // HOST:PORT
  std::string metrics;  // HOST:PORT
};

using Flags = std::vector<std::string>;

// Thread-compatible.  Logs go to the test's undeclared outputs.
class Cluster {
 public:
  // Writes the checkpoint, once a test program.
  Cluster();

  // Start a server and wait until it listens.  A later flag wins over the
  // defaults; a server of the kind that runs already is killed.
  void StartWorker(const Flags& flags = {});
  void StartRouter(const Flags& flags = {});

  // Starts a group of `num_ranks`, one thread each, in place of what is there,
  // and waits until it serves.  `flags` are for all ranks.
  void StartGroup(int num_ranks, const Flags& flags = {});
  // Rank 0 is worker().
  Server& rank(int rank) { return rank == 0 ? worker_ : followers_[rank - 1]; }
  // Where the ranks of the group have met.
  const std::string& rendezvous() const { return rendezvous_; }

  // Waits until the router has a group that is ready.
  void WaitForGroup();

  // Starts both and waits.
  void Start();

  // Run a program of ours that is expected to end by itself.
  std::unique_ptr<Process> RunWorker(const Flags& flags);
  std::unique_ptr<Process> RunRank(int rank, int num_ranks,
                                   const std::string& rendezvous,
                                   const Flags& flags = {});
  std::unique_ptr<Process> RunRouter(const Flags& flags);
  std::unique_ptr<Process> RunClient(const Flags& flags,
                                     const std::string& input = "/dev/null");

  // The checkpoint's directory.
  const std::string& model() const;

  Server& worker() { return worker_; }
  Server& router() { return router_; }
  std::shared_ptr<grpc::Channel> channel() { return channel_; }
  v1::Inference::Stub& stub() { return *stub_; }

  // The router's view of everything.
  v1::GetStatusResponse Status();

  // Waits until neither router nor group has a request; false if they still do
  // after `timeout`.
  bool WaitUntilIdle(absl::Duration timeout);

 private:
  Server Listen(std::unique_ptr<Process> process, const std::string& ports);

  Server worker_;
  std::vector<Server> followers_;
  std::string rendezvous_;
  Server router_;
  std::shared_ptr<grpc::Channel> channel_;
  std::unique_ptr<v1::Inference::Stub> stub_;
};

// HOST:PORT of this machine where nobody listens now.
std::string FreeAddress();

// A path in the test's temporary directory that no other call returns.
std::string NewPath(absl::string_view name);

// Asks again and again until `condition` holds; false after `timeout`.
bool Eventually(absl::Duration timeout, const std::function<bool()>& condition);

// The body of http://ADDRESS/metrics; empty if there is none.
std::string MetricsPage(const std::string& address);

}  // namespace lapidary

#endif  // TESTS_INTEGRATION_CLUSTER_H_
