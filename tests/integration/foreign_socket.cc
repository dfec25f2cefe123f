#include "tests/integration/foreign_socket.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "glog/logging.h"

namespace lapidary {
namespace {

constexpr int kHangUpMilliseconds = 10'000;

sockaddr_in ToSocketAddress(const std::string& address) {
  const std::vector<std::string> parts = absl::StrSplit(address, ':');
  int port = 0;
  sockaddr_in result = {};
  result.sin_family = AF_INET;
  CHECK(parts.size() == 2 && absl::SimpleAtoi(parts[1], &port) &&
        inet_pton(AF_INET, parts[0].c_str(), &result.sin_addr) == 1)
      << address;
  result.sin_port = htons(static_cast<uint16_t>(port));
  return result;
}

bool IsConnectedTo(int socket, const sockaddr_in& address) {
  sockaddr_in peer = {};
  socklen_t size = sizeof(peer);
  return getpeername(socket, reinterpret_cast<sockaddr*>(&peer), &size) == 0 &&
         peer.sin_family == AF_INET &&
         peer.sin_addr.s_addr == address.sin_addr.s_addr &&
         peer.sin_port == address.sin_port;
}

}  // namespace

void SendAs(pid_t pid, const std::string& address, const std::string& bytes) {
  const sockaddr_in to = ToSocketAddress(address);
  const int process = static_cast<int>(syscall(SYS_pidfd_open, pid, 0));
  PCHECK(process >= 0);
  bool sent = false;
  const std::string files = absl::StrCat("/proc/", pid, "/fd");
  for (const auto& entry : std::filesystem::directory_iterator(files)) {
    std::error_code error;
    const std::string target =
        std::filesystem::read_symlink(entry.path(), error).string();
    if (error || !absl::StartsWith(target, "socket:")) continue;
    const int number = std::atoi(entry.path().filename().c_str());
    const int socket =
        static_cast<int>(syscall(SYS_pidfd_getfd, process, number, 0));
    PCHECK(socket >= 0) << "pidfd_getfd";
    if (IsConnectedTo(socket, to)) {
      PCHECK(send(socket, bytes.data(), bytes.size(), MSG_NOSIGNAL) ==
             static_cast<ssize_t>(bytes.size()));
      sent = true;
    }
    close(socket);
  }
  close(process);
  CHECK(sent) << "process " << pid << " has no connection to " << address;
}

void SendAsStranger(const std::string& address, const std::string& bytes) {
  const sockaddr_in to = ToSocketAddress(address);
  const int connection = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  PCHECK(connection >= 0);
  PCHECK(connect(connection, reinterpret_cast<const sockaddr*>(&to),
                 sizeof(to)) == 0);
  PCHECK(send(connection, bytes.data(), bytes.size(), MSG_NOSIGNAL) ==
         static_cast<ssize_t>(bytes.size()));
  pollfd file = {.fd = connection, .events = POLLIN, .revents = 0};
  poll(&file, 1, kHangUpMilliseconds);
  close(connection);
}

}  // namespace lapidary
