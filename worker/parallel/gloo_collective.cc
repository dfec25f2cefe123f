// Gloo's exceptions do not leave this file.

#include "worker/parallel/gloo_collective.h"

#include <pthread.h>
#include <sched.h>

#include <algorithm>
#include <chrono>
#include <csignal>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <span>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "common/deadline.h"
#include "common/status_macros.h"
#include "glog/logging.h"
#include "gloo/transport/address.h"
#include "gloo/transport/context.h"
#include "gloo/transport/tcp/device.h"
#include "gloo/transport/unbound_buffer.h"
#include "worker/parallel/host_collective.h"
#include "worker/parallel/transport.h"

// For leak checkers alone: Gloo forgets what the system tells it of addresses
// and interfaces, once a process.
// NOLINTNEXTLINE(bugprone-reserved-identifier): the checker's name for it.
extern "C" const char* __lsan_default_suppressions() {
  return "leak:libgloo.so";
}

namespace lapidary {
namespace {

// Gloo adds timeouts to a time of nanoseconds in 64 bits.
constexpr absl::Duration kForever = absl::Hours(24 * 365 * 10);

// Gloo's own clock may be this much ahead of ours when it gives up.
constexpr absl::Duration kClockSlack = absl::Milliseconds(2);

// How often longer than its timeout Gloo waits for a connection.
constexpr int kConnectTimeouts = 5;

// Rounded up, so that the deadline has passed when Gloo gives up.
std::chrono::milliseconds TimeUntil(Deadline deadline) {
  const absl::Duration left = std::min(deadline.left(), kForever);
  return absl::ToChronoMilliseconds(absl::Ceil(left, absl::Milliseconds(1)));
}

// Gloo's messages begin with the place in its source: "[pair.cc:598] ...".
absl::string_view WithoutPlace(absl::string_view message) {
  const size_t end = message.find("] ");
  if (message.empty() || message[0] != '[' || end == message.npos) {
    return message;
  }
  return message.substr(end + 2);
}

absl::Status ErrorOf(int peer, const std::exception& error, Deadline deadline) {
  if (deadline.left() <= kClockSlack) {
    return absl::DeadlineExceededError(
        absl::StrCat("rank ", peer, " did not do its part in time"));
  }
  return absl::UnavailableError(
      absl::StrCat("rank ", peer, ": ", WithoutPlace(error.what())));
}

// Threads that the caller creates while one lives are SCHED_BATCH: when they
// wake up they do not take the core from a thread that runs.
//
// Gloo's own thread must not: it polls until it gets a connection's lock, and
// if it has taken the core from the engine thread that holds it, it polls for
// its whole time slice of some milliseconds.
class YieldingThreads {
 public:
  YieldingThreads() {
    if (pthread_getschedparam(pthread_self(), &policy_, &param_) != 0) return;
    if (policy_ != SCHED_OTHER) return;
    set_ = pthread_setschedparam(pthread_self(), SCHED_BATCH, &param_) == 0;
  }
  ~YieldingThreads() {
    if (set_) pthread_setschedparam(pthread_self(), policy_, &param_);
  }

  YieldingThreads(const YieldingThreads&) = delete;
  YieldingThreads& operator=(const YieldingThreads&) = delete;

 private:
  int policy_ = SCHED_OTHER;
  sched_param param_ = {};
  bool set_ = false;
};

class GlooTransport : public Transport {
 public:
  GlooTransport(int rank, int size) : rank_(rank), size_(size) {}

  absl::Status Connect(const GlooOptions& options);

  int rank() const override { return rank_; }
  int size() const override { return size_; }
  absl::Status StartSend(int to, int64_t exchange,
                         std::span<const char> bytes) override;
  absl::Status StartReceive(int from, int64_t exchange,
                            std::span<char> bytes) override;
  absl::Status Finish(int64_t exchange, Deadline deadline) override;

 private:
  enum class Direction { kSend, kReceive };

  struct Message {
    int64_t exchange;
    int peer;
    Direction direction;
    std::unique_ptr<gloo::transport::UnboundBuffer> buffer;
  };

  absl::Status Start(Message message, void* data, size_t bytes);
  static absl::Status Wait(const Message& message, Deadline deadline);
  absl::StatusOr<std::string> Listen(const std::string& host,
                                     Deadline deadline);
  absl::Status ConnectTo(int peer, absl::string_view addresses,
                         Deadline deadline);

  const int rank_;
  const int size_;
  // Shared with its buffers alone, which go first.
  std::shared_ptr<gloo::transport::Context> context_;
  size_t address_bytes_ = 0;
  std::vector<Message> messages_;  // Under way.
};

absl::Status GlooTransport::StartSend(int to, int64_t exchange,
                                      std::span<const char> bytes) {
  return Start({exchange, to, Direction::kSend, nullptr},
               const_cast<char*>(bytes.data()), bytes.size());
}

absl::Status GlooTransport::StartReceive(int from, int64_t exchange,
                                         std::span<char> bytes) {
  return Start({exchange, from, Direction::kReceive, nullptr}, bytes.data(),
               bytes.size());
}

absl::Status GlooTransport::Start(Message message, void* data, size_t bytes) {
  try {
    message.buffer = context_->createUnboundBuffer(data, bytes);
    if (message.direction == Direction::kSend) {
      message.buffer->send(message.peer, message.exchange);
    } else {
      message.buffer->recv(message.peer, message.exchange);
    }
  } catch (const std::exception& error) {
    return ErrorOf(message.peer, error, Deadline::Never());
  }
  messages_.push_back(std::move(message));
  return absl::OkStatus();
}

// A buffer that goes takes its message along: Gloo holds it by a weak pointer,
// and by a strong one while it copies.
absl::Status GlooTransport::Finish(int64_t exchange, Deadline deadline) {
  absl::Status status;
  for (const Message& message : messages_) {
    if (message.exchange != exchange) continue;
    status = Wait(message, deadline);
    if (!status.ok()) break;
  }
  std::erase_if(messages_,
                [&](const Message& m) { return m.exchange == exchange; });
  return status;
}

absl::Status GlooTransport::Wait(const Message& message, Deadline deadline) {
  try {
    const bool done = message.direction == Direction::kSend
                          ? message.buffer->waitSend(TimeUntil(deadline))
                          : message.buffer->waitRecv(TimeUntil(deadline));
    CHECK(done) << "a wait was aborted; nothing here aborts any";
    return absl::OkStatus();
  } catch (const std::exception& error) {
    return ErrorOf(message.peer, error, deadline);
  }
}

absl::Status GlooTransport::Connect(const GlooOptions& options) {
  ASSIGN_OR_RETURN(std::string own, Listen(options.host, options.deadline));
  ASSIGN_OR_RETURN(const std::vector<std::string> addresses,
                   options.all_gather(std::move(own)));
  CHECK_EQ(static_cast<int>(addresses.size()), size_);
  // All in the order of their ranks, so that no two wait for each other.
  for (int peer = 0; peer < size_; ++peer) {
    if (peer == rank_) continue;
    RETURN_IF_ERROR(ConnectTo(peer, addresses[peer], options.deadline));
  }
  return absl::OkStatus();
}

// Listens for each rank on a port of its own; returns the addresses by rank,
// one after the other.
absl::StatusOr<std::string> GlooTransport::Listen(const std::string& host,
                                                  Deadline deadline) {
  std::string addresses;
  try {
    gloo::transport::tcp::attr attributes;
    attributes.hostname = host;
    const YieldingThreads yielding;
    context_ = gloo::transport::tcp::CreateDevice(attributes)
                   ->createContext(rank_, size_);
    context_->setTimeout(std::max(TimeUntil(deadline) / kConnectTimeouts,
                                  std::chrono::milliseconds(1)));
    for (int peer = 0; peer < size_; ++peer) {
      const std::vector<char> address =
          context_->createPair(peer)->address().bytes();
      address_bytes_ = address.size();
      addresses.append(address.begin(), address.end());
    }
  } catch (const std::exception& error) {
    return absl::InvalidArgumentError(absl::StrCat(
        "cannot listen on ", host, ": ", WithoutPlace(error.what())));
  }
  return addresses;
}

absl::Status GlooTransport::ConnectTo(int peer, absl::string_view addresses,
                                      Deadline deadline) {
  if (addresses.size() != address_bytes_ * size_) {
    return absl::UnavailableError(
        absl::StrCat("rank ", peer, ": needs ", address_bytes_ * size_,
                     " bytes of addresses, it sent ", addresses.size()));
  }
  const absl::string_view address =
      addresses.substr(rank_ * address_bytes_, address_bytes_);
  try {
    context_->getPair(peer)->connect({address.begin(), address.end()});
    return absl::OkStatus();
  } catch (const std::exception& error) {
    return ErrorOf(peer, error, deadline);
  }
}

}  // namespace

absl::StatusOr<std::unique_ptr<Collective>> ConnectGloo(
    const GlooOptions& options) {
  CHECK_GT(options.num_ranks, 1);
  CHECK_GE(options.rank, 0);
  CHECK_LT(options.rank, options.num_ranks);
  std::signal(SIGPIPE, SIG_IGN);
  auto transport =
      std::make_unique<GlooTransport>(options.rank, options.num_ranks);
  RETURN_IF_ERROR(transport->Connect(options));
  return std::make_unique<HostCollective>(std::move(transport));
}

}  // namespace lapidary
