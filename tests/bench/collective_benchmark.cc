// What it costs two processes of a machine to exchange tensors over Gloo, next
// to what a bare TCP connection does in the same run.
//
//   bazel run //tests/bench:collective_benchmark
//
// A JSON line a measurement: medians of runs that take turns.

#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "common/deadline.h"
#include "glog/logging.h"
#include "kernels/tensor.h"
#include "worker/parallel/collective.h"
#include "worker/parallel/collective_ops.h"
#include "worker/parallel/gloo_collective.h"

namespace lapidary {
namespace {

// A decode step's branch output of the 12B: 3840 values of bf16.
constexpr int kSmallValues = 3840;
constexpr int kSmallRepeats = 2000;
// What a rank sends and receives at once.
constexpr int64_t kLargeBytes = 64 << 20;
constexpr int kLargeRepeats = 4;
constexpr int kRuns = 7;

// ------------------------------------------------------------- bare sockets

// One connection over the loopback interface, an end for each process.
struct Connection {
  int ends[2];
};

Connection Connect() {
  const int listener = socket(AF_INET, SOCK_STREAM, 0);
  sockaddr_in address = {};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t size = sizeof(address);
  auto* const generic = reinterpret_cast<sockaddr*>(&address);
  PCHECK(bind(listener, generic, size) == 0);
  PCHECK(listen(listener, 1) == 0);
  PCHECK(getsockname(listener, generic, &size) == 0);
  Connection connection;
  connection.ends[0] = socket(AF_INET, SOCK_STREAM, 0);
  PCHECK(connect(connection.ends[0], generic, size) == 0);
  connection.ends[1] = accept(listener, nullptr, nullptr);
  PCHECK(connection.ends[1] >= 0);
  close(listener);
  const int on = 1;
  for (const int end : connection.ends) {
    PCHECK(setsockopt(end, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on)) == 0);
  }
  return connection;
}

// Sends `out` while it receives as many bytes to `in`.
void ExchangeBare(int socket, const std::vector<char>& out,
                  std::vector<char>& in) {
  size_t sent = 0;
  size_t received = 0;
  while (sent < out.size() || received < in.size()) {
    pollfd event = {socket, 0, 0};
    if (sent < out.size()) event.events |= POLLOUT;
    if (received < in.size()) event.events |= POLLIN;
    PCHECK(poll(&event, 1, -1) > 0);
    if ((event.revents & POLLOUT) != 0) {
      sent += std::max<ssize_t>(
          send(socket, out.data() + sent, out.size() - sent, MSG_DONTWAIT), 0);
    }
    if ((event.revents & POLLIN) != 0) {
      received += std::max<ssize_t>(recv(socket, in.data() + received,
                                         in.size() - received, MSG_DONTWAIT),
                                    0);
    }
  }
}

// The other's string for this one.
std::string Swap(int socket, const std::string& own) {
  const int64_t size = own.size();
  PCHECK(write(socket, &size, sizeof(size)) == sizeof(size));
  PCHECK(write(socket, own.data(), size) == size);
  int64_t other_size = 0;
  PCHECK(recv(socket, &other_size, sizeof(other_size), MSG_WAITALL) ==
         sizeof(other_size));
  std::string other(other_size, '\0');
  PCHECK(recv(socket, other.data(), other_size, MSG_WAITALL) == other_size);
  return other;
}

// ------------------------------------------------------------- measurements

class Rank {
 public:
  Rank(int rank, int socket) : socket_(socket) {
    auto collective =
        ConnectGloo({.rank = rank,
                     .num_ranks = 2,
                     .host = "127.0.0.1",
                     .all_gather =
                         [&](std::string own) {
                           std::vector<std::string> all = {own, own};
                           all[1 - rank] = Swap(socket, own);
                           return all;
                         },
                     .deadline = Deadline::In(absl::Seconds(30))});
    CHECK(collective.ok()) << collective.status();
    collective_ = *std::move(collective);
  }

  int rank() const { return collective_->rank(); }

  absl::Duration SmallSum() {
    std::vector<char> memory(kSmallValues * SizeOf(DType::kBf16));
    const Tensor x = {memory.data(), DType::kBf16, 1, kSmallValues,
                      kSmallValues};
    return TimeOf(kSmallRepeats, [&] {
      CHECK(collective_->AllReduceSum(Traffic::kHead, x).ok());
    });
  }
  absl::Duration SmallBare() {
    return Bare(kSmallValues * SizeOf(DType::kBf16), kSmallRepeats);
  }

  absl::Duration LargeExchange() {
    return TimeOf(kLargeRepeats, [&] {
      const RankPart send = {1 - rank(), Large(out_)};
      const RankPart receive = {1 - rank(), Large(in_)};
      CHECK(Exchange(*collective_, CollectiveKind::kSendReceive, Traffic::kHead,
                     {&send, 1}, {&receive, 1})
                .ok());
    });
  }
  absl::Duration LargeSum() {
    return TimeOf(kLargeRepeats, [&] {
      CHECK(collective_->AllReduceSum(Traffic::kHead, Large(out_)).ok());
    });
  }
  absl::Duration LargeBare() { return Bare(kLargeBytes, kLargeRepeats); }

 private:
  static Tensor Large(std::vector<char>& memory) {
    constexpr int kCols = 4096;
    return {memory.data(), DType::kBf16,
            static_cast<int>(kLargeBytes / kCols / 2), kCols, kCols};
  }

  // Of one repeat, once both are ready.
  template <typename F>
  absl::Duration TimeOf(int repeats, F run) {
    run();
    const absl::Time begin = absl::Now();
    for (int i = 0; i < repeats; ++i) run();
    return (absl::Now() - begin) / repeats;
  }

  absl::Duration Bare(int64_t bytes, int repeats) {
    std::vector<char> out(bytes);
    std::vector<char> in(bytes);
    return TimeOf(repeats, [&] { ExchangeBare(socket_, out, in); });
  }

  const int socket_;
  std::unique_ptr<Collective> collective_;
  std::vector<char> out_ = std::vector<char>(kLargeBytes);
  std::vector<char> in_ = std::vector<char>(kLargeBytes);
};

absl::Duration Median(std::vector<absl::Duration> times) {
  std::sort(times.begin(), times.end());
  return times[times.size() / 2];
}

void Print(const char* name, absl::Duration gloo, absl::Duration bare,
           int64_t bytes) {
  std::printf(
      "{\"name\": \"%s\", \"bytes\": %lld, \"gloo_us\": %.1f, "
      "\"bare_tcp_us\": %.1f, \"gloo_gb_s\": %.3f, \"bare_tcp_gb_s\": %.3f, "
      "\"share_of_bare_tcp\": %.3f}\n",
      name, static_cast<long long>(bytes), absl::ToDoubleMicroseconds(gloo),
      absl::ToDoubleMicroseconds(bare), bytes / absl::ToDoubleNanoseconds(gloo),
      bytes / absl::ToDoubleNanoseconds(bare), absl::FDivDuration(bare, gloo));
}

void RunRank(int number, int socket) {
  Rank rank(number, socket);
  std::vector<absl::Duration> small_sum, small_bare, large_exchange, large_sum,
      large_bare;
  for (int run = 0; run < kRuns; ++run) {
    small_sum.push_back(rank.SmallSum());
    small_bare.push_back(rank.SmallBare());
    large_exchange.push_back(rank.LargeExchange());
    large_sum.push_back(rank.LargeSum());
    large_bare.push_back(rank.LargeBare());
  }
  Swap(socket, "done");  // Neither closes its connections before.
  if (number != 0) return;
  Print("all_reduce_decode", Median(small_sum), Median(small_bare),
        kSmallValues * SizeOf(DType::kBf16));
  Print("exchange_64mb", Median(large_exchange), Median(large_bare),
        kLargeBytes);
  Print("all_reduce_64mb", Median(large_sum), Median(large_bare), kLargeBytes);
}

}  // namespace
}  // namespace lapidary

int main(int, char** argv) {
  google::InitGoogleLogging(argv[0]);
  const lapidary::Connection connection = lapidary::Connect();
  const pid_t child = fork();
  PCHECK(child >= 0);
  if (child == 0) {
    lapidary::RunRank(1, connection.ends[1]);
    return 0;
  }
  lapidary::RunRank(0, connection.ends[0]);
  int status = 0;
  PCHECK(waitpid(child, &status, 0) == child);
  return status == 0 ? 0 : 1;
}
