#include "worker/parallel/tcp_socket.h"

#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <memory>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "common/address.h"
#include "common/status_macros.h"
#include "glog/logging.h"

namespace lapidary {
namespace {

struct FreeAddresses {
  void operator()(addrinfo* addresses) const { freeaddrinfo(addresses); }
};
using Addresses = std::unique_ptr<addrinfo, FreeAddresses>;

absl::Status SystemError(absl::string_view what, const std::string& address) {
  return absl::UnavailableError(
      absl::StrCat(what, " ", address, ": ", std::strerror(errno)));
}

absl::StatusOr<Addresses> Resolve(const std::string& address) {
  RETURN_IF_ERROR(CheckListenAddress("the address of rank 0", address));
  const size_t colon = address.rfind(':');
  std::string host = address.substr(0, colon);
  if (host.size() > 2 && host.front() == '[' && host.back() == ']') {
    host = host.substr(1, host.size() - 2);
  }
  addrinfo hints = {};
  hints.ai_socktype = SOCK_STREAM;
  addrinfo* found = nullptr;
  const int error =
      getaddrinfo(host.c_str(), address.c_str() + colon + 1, &hints, &found);
  if (error != 0) {
    return absl::UnavailableError(
        absl::StrCat("cannot find ", address, ": ", gai_strerror(error)));
  }
  return Addresses(found);
}

struct NamedAddress {
  std::string host;
  int port = 0;
};

using NameFunction = int (*)(int, sockaddr*, socklen_t*);

NamedAddress NameOf(int fd, NameFunction function) {
  sockaddr_storage address = {};
  socklen_t size = sizeof(address);
  auto* const generic = reinterpret_cast<sockaddr*>(&address);
  char host[NI_MAXHOST] = {};
  char port[NI_MAXSERV] = {};
  if (function(fd, generic, &size) != 0 ||
      getnameinfo(generic, size, host, sizeof(host), port, sizeof(port),
                  NI_NUMERICHOST | NI_NUMERICSERV) != 0) {
    return {};
  }
  NamedAddress named = {.host = host};
  CHECK(absl::SimpleAtoi(port, &named.port));
  return named;
}

// Waits until `socket` is connected, or is not.
absl::Status FinishConnect(const TcpSocket& socket, const std::string& address,
                           Deadline deadline) {
  pollfd event = {socket.fd(), POLLOUT, 0};
  while (poll(&event, 1, deadline.PollTimeout()) <= 0) {
    if (deadline.has_passed()) {
      return absl::DeadlineExceededError(
          absl::StrCat("cannot reach ", address, " in time"));
    }
  }
  int error = 0;
  socklen_t size = sizeof(error);
  PCHECK(getsockopt(socket.fd(), SOL_SOCKET, SO_ERROR, &error, &size) == 0);
  if (error == 0) return absl::OkStatus();
  errno = error;
  return SystemError("cannot reach", address);
}

// A port that nobody listens at may be the very one that a connection to it is
// given as its own, and then meets itself.
bool IsItself(const TcpSocket& socket) {
  const NamedAddress own = NameOf(socket.fd(), getsockname);
  const NamedAddress peer = NameOf(socket.fd(), getpeername);
  return own.host == peer.host && own.port == peer.port;
}

}  // namespace

TcpSocket::TcpSocket(int fd) : fd_(fd) {
  const int flags = fcntl(fd, F_GETFL);
  PCHECK(flags >= 0);
  PCHECK(fcntl(fd, F_SETFL, flags | O_NONBLOCK) == 0);
  PCHECK(fcntl(fd, F_SETFD, FD_CLOEXEC) == 0);
}

TcpSocket::~TcpSocket() {
  if (fd_ >= 0) close(fd_);
}

TcpSocket::TcpSocket(TcpSocket&& other) noexcept
    : fd_(std::exchange(other.fd_, -1)) {}

TcpSocket& TcpSocket::operator=(TcpSocket&& other) noexcept {
  std::swap(fd_, other.fd_);
  return *this;
}

std::string TcpSocket::LocalAddress() const {
  return NameOf(fd_, getsockname).host;
}

int TcpSocket::LocalPort() const { return NameOf(fd_, getsockname).port; }

std::string TcpSocket::PeerAddress() const {
  const NamedAddress named = NameOf(fd_, getpeername);
  return absl::StrCat(named.host, ":", named.port);
}

absl::StatusOr<TcpSocket> ListenAt(const std::string& address) {
  ASSIGN_OR_RETURN(const Addresses addresses, Resolve(address));
  absl::Status status;
  for (const addrinfo* a = addresses.get(); a != nullptr; a = a->ai_next) {
    const int fd = socket(a->ai_family, a->ai_socktype, a->ai_protocol);
    if (fd < 0) {
      status = SystemError("cannot listen at", address);
      continue;
    }
    TcpSocket listener(fd);
    const int on = 1;
    PCHECK(setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)) == 0);
    if (bind(fd, a->ai_addr, a->ai_addrlen) == 0 &&
        listen(fd, SOMAXCONN) == 0) {
      return listener;
    }
    status = SystemError("cannot listen at", address);
  }
  return status;
}

std::optional<TcpSocket> AcceptFrom(const TcpSocket& listener) {
  const int fd = accept(listener.fd(), nullptr, nullptr);
  if (fd < 0) return std::nullopt;
  return TcpSocket(fd);
}

absl::StatusOr<TcpSocket> ConnectTo(const std::string& address,
                                    Deadline deadline) {
  ASSIGN_OR_RETURN(const Addresses addresses, Resolve(address));
  absl::Status status;
  for (const addrinfo* a = addresses.get(); a != nullptr; a = a->ai_next) {
    const int fd = socket(a->ai_family, a->ai_socktype, a->ai_protocol);
    if (fd < 0) {
      status = SystemError("cannot reach", address);
      continue;
    }
    TcpSocket socket(fd);
    if (connect(fd, a->ai_addr, a->ai_addrlen) == 0) {
      status = absl::OkStatus();
    } else if (errno == EINPROGRESS) {
      status = FinishConnect(socket, address, deadline);
    } else {
      status = SystemError("cannot reach", address);
    }
    if (status.ok() && IsItself(socket)) {
      status = absl::UnavailableError(
          absl::StrCat("cannot reach ", address, ": nobody listens"));
    }
    if (status.ok()) return socket;
  }
  return status;
}

}  // namespace lapidary
