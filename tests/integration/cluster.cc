#include "tests/integration/cluster.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>
#include <signal.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cstdlib>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/time/clock.h"
#include "glog/logging.h"
#include "grpcpp/grpcpp.h"

namespace lapidary {
namespace {

constexpr char kWorker[] = "worker/worker_main";
constexpr char kRouter[] = "router/router_main";
constexpr char kClient[] = "client/lapidary";
constexpr char kMakeCheckpoint[] = "tools/make_checkpoint";
constexpr char kTokenizer[] = "tests/testdata/tokenizer/mini/tokenizer.json";

const absl::Duration kStartTimeout = absl::Minutes(2);

std::string LogPath(absl::string_view name) {
  const char* outputs = std::getenv("TEST_UNDECLARED_OUTPUTS_DIR");
  static int number = 0;
  return absl::StrCat(outputs != nullptr ? outputs : ::testing::TempDir(), "/",
                      name, ".", ++number, ".log");
}

const std::string& Checkpoint() {
  static const std::string* const directory = [] {
    auto* path = new std::string(NewPath("recall"));
    const auto tool =
        Process::Start({kMakeCheckpoint, "--recall", "--tokenizer", kTokenizer,
                        "--output", *path},
                       LogPath("make_checkpoint"));
    CHECK_EQ(tool->Wait(kStartTimeout).value_or(-1), 0) << tool->Output();
    return path;
  }();
  return *directory;
}

std::unique_ptr<Process> Run(absl::string_view name, const Flags& defaults,
                             const Flags& flags,
                             const std::string& input = "/dev/null") {
  Flags arguments = defaults;
  arguments.insert(arguments.end(), flags.begin(), flags.end());
  return Process::Start(arguments, LogPath(name), input);
}

}  // namespace

Cluster::Cluster() { Checkpoint(); }

const std::string& Cluster::model() const { return Checkpoint(); }

std::unique_ptr<Process> Cluster::RunWorker(const Flags& flags) {
  return Run("worker",
             {kWorker, "--model", Checkpoint(), "--listen", "127.0.0.1:0",
              "--metrics-listen", "127.0.0.1:0", "--kv-memory", "256MiB",
              "--image-dir", absl::StrCat(::testing::TempDir(), "/images")},
             flags);
}

std::unique_ptr<Process> Cluster::RunRouter(const Flags& flags) {
  return Run("router",
             {kRouter, "--model", Checkpoint(), "--listen", "127.0.0.1:0",
              "--metrics-listen", "127.0.0.1:0", "--groups", worker_.rpc},
             flags);
}

std::unique_ptr<Process> Cluster::RunClient(const Flags& flags,
                                            const std::string& input) {
  return Run("client", {kClient, "--router", router_.rpc}, flags, input);
}

Server Cluster::Listen(std::unique_ptr<Process> process,
                       const std::string& ports) {
  Server server;
  server.process = std::move(process);
  const absl::Time deadline = absl::Now() + kStartTimeout;
  // Followers have no rpc port; the file appears whole.
  while (server.metrics.empty()) {
    CHECK(!server.process->Wait(absl::Milliseconds(10)).has_value())
        << "ended before it listened: " << server.process->Output();
    CHECK(absl::Now() < deadline)
        << "does not listen: " << server.process->Output();
    for (const absl::string_view line : absl::StrSplit(FileText(ports), '\n')) {
      const std::vector<std::string> words = absl::StrSplit(line, ' ');
      if (words[0] == "rpc") server.rpc = words.at(1);
      if (words[0] == "metrics") server.metrics = words.at(1);
    }
  }
  return server;
}

std::unique_ptr<Process> Cluster::RunRank(int rank, int num_ranks,
                                          const std::string& rendezvous,
                                          const Flags& flags) {
  Flags all = {
      "--rank",       absl::StrCat(rank), "--ranks",   absl::StrCat(num_ranks),
      "--rendezvous", rendezvous,         "--threads", "1"};
  all.insert(all.end(), flags.begin(), flags.end());
  return RunWorker(all);
}

void Cluster::StartGroup(int num_ranks, const Flags& flags) {
  followers_.clear();
  worker_.process.reset();
  rendezvous_ = FreeAddress();
  std::vector<std::unique_ptr<Process>> processes;
  std::vector<std::string> ports;
  for (int rank = 0; rank < num_ranks; ++rank) {
    ports.push_back(NewPath("rank.ports"));
    Flags with_ports = flags;
    with_ports.insert(with_ports.end(), {"--port-file", ports.back()});
    processes.push_back(RunRank(rank, num_ranks, rendezvous_, with_ports));
  }
  worker_ = Listen(std::move(processes[0]), ports[0]);
  for (int rank = 1; rank < num_ranks; ++rank) {
    followers_.push_back(Listen(std::move(processes[rank]), ports[rank]));
  }
}

void Cluster::StartWorker(const Flags& flags) {
  followers_.clear();
  worker_.process.reset();
  const std::string ports = NewPath("worker.ports");
  Flags with_ports = flags;
  with_ports.insert(with_ports.end(), {"--port-file", ports});
  worker_ = Listen(RunWorker(with_ports), ports);
}

void Cluster::StartRouter(const Flags& flags) {
  router_.process.reset();
  const std::string ports = NewPath("router.ports");
  Flags with_ports = flags;
  with_ports.insert(with_ports.end(), {"--port-file", ports});
  router_ = Listen(RunRouter(with_ports), ports);
  grpc::ChannelArguments arguments;
  arguments.SetMaxReceiveMessageSize(-1);
  channel_ = grpc::CreateCustomChannel(
      router_.rpc, grpc::InsecureChannelCredentials(), arguments);
  stub_ = v1::Inference::NewStub(channel_);
}

void Cluster::WaitForGroup() {
  CHECK(Eventually(kStartTimeout, [this] {
    const v1::GetStatusResponse status = Status();
    return status.groups_size() > 0 && status.groups(0).state() == "ready";
  })) << Status().DebugString();
}

void Cluster::Start() {
  StartWorker();
  StartRouter();
  WaitForGroup();
}

v1::GetStatusResponse Cluster::Status() {
  grpc::ClientContext context;
  v1::GetStatusResponse response;
  const grpc::Status status = stub_->GetStatus(&context, {}, &response);
  CHECK(status.ok()) << status.error_message();
  return response;
}

bool Cluster::WaitUntilIdle(absl::Duration timeout) {
  return Eventually(timeout, [this] {
    const v1::GetStatusResponse status = Status();
    return status.running_requests() == 0 && status.waiting_requests() == 0 &&
           status.groups_size() > 0 &&
           status.groups(0).running_requests() == 0 &&
           status.groups(0).waiting_requests() == 0 &&
           status.groups(0).queued_tokens() == 0;
  });
}

std::string FreeAddress() {
  const int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  PCHECK(listener >= 0);
  sockaddr_in address = {};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t size = sizeof(address);
  PCHECK(bind(listener, reinterpret_cast<sockaddr*>(&address), size) == 0);
  PCHECK(getsockname(listener, reinterpret_cast<sockaddr*>(&address), &size) ==
         0);
  close(listener);
  return absl::StrCat("127.0.0.1:", ntohs(address.sin_port));
}

std::string NewPath(absl::string_view name) {
  static int number = 0;
  return absl::StrCat(::testing::TempDir(), "/", name, ".", ++number);
}

bool Eventually(absl::Duration timeout,
                const std::function<bool()>& condition) {
  const absl::Time deadline = absl::Now() + timeout;
  while (!condition()) {
    if (absl::Now() > deadline) return false;
    poll(nullptr, 0, 10);
  }
  return true;
}

std::string MetricsPage(const std::string& address) {
  const std::vector<std::string> parts = absl::StrSplit(address, ':');
  int port = 0;
  CHECK(parts.size() == 2 && absl::SimpleAtoi(parts[1], &port)) << address;
  sockaddr_in peer = {};
  peer.sin_family = AF_INET;
  peer.sin_port = htons(static_cast<uint16_t>(port));
  inet_pton(AF_INET, parts[0].c_str(), &peer.sin_addr);
  const int connection = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  PCHECK(connection >= 0);
  std::string page;
  if (connect(connection, reinterpret_cast<sockaddr*>(&peer), sizeof(peer)) ==
      0) {
    const std::string request =
        absl::StrCat("GET /metrics HTTP/1.1\r\nHost: ", address,
                     "\r\nConnection: close\r\n\r\n");
    PCHECK(send(connection, request.data(), request.size(), MSG_NOSIGNAL) ==
           static_cast<ssize_t>(request.size()));
    char buffer[4096];
    for (ssize_t n; (n = recv(connection, buffer, sizeof(buffer), 0)) > 0;) {
      page.append(buffer, n);
    }
  }
  close(connection);
  const size_t body = page.find("\r\n\r\n");
  return body == std::string::npos ? "" : page.substr(body + 4);
}

}  // namespace lapidary
