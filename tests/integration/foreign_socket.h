// Writes into a connection of another process, as if that process did: a rank
// that sends garbage.

#ifndef TESTS_INTEGRATION_FOREIGN_SOCKET_H_
#define TESTS_INTEGRATION_FOREIGN_SOCKET_H_

#include <sys/types.h>

#include <string>

namespace lapidary {

// Sends `bytes` over the child `pid`'s connection to `address`, IPv4's
// HOST:PORT.  CHECKs that there is one and that the system lets us.
void SendAs(pid_t pid, const std::string& address, const std::string& bytes);

// Connects to `address`, sends `bytes`, and hangs up once the other side has,
// or after some seconds.
void SendAsStranger(const std::string& address, const std::string& bytes);

}  // namespace lapidary

#endif  // TESTS_INTEGRATION_FOREIGN_SOCKET_H_
