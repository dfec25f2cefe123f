#include "common/address.h"

#include "common/testing/status_matchers.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace lapidary {
namespace {

TEST(AddressTest, TakesNamesAndNumbersWithAPort) {
  for (const char* address : {"localhost:8470", "127.0.0.1:1", "[::1]:65535",
                              "dns:///router.example:80"}) {
    EXPECT_OK(CheckAddress("--router", address)) << address;
  }
}

TEST(AddressTest, RefusesWhatHasNoHostOrNoPort) {
  for (const char* address :
       {"", "localhost", "8470", ":8470", "localhost:", "localhost:http",
        "localhost:-1", "localhost:+1", "localhost: 1"}) {
    EXPECT_THAT(CheckAddress("--router", address),
                StatusIs(absl::StatusCode::kInvalidArgument))
        << address;
  }
}

TEST(AddressTest, PortZeroIsForListening) {
  EXPECT_OK(CheckListenAddress("--listen", "localhost:0"));
  EXPECT_THAT(CheckAddress("--router", "localhost:0"),
              StatusIs(absl::StatusCode::kInvalidArgument));
}

// gRPC takes it for port 34463.
TEST(AddressTest, RefusesAPortThatDoesNotExist) {
  EXPECT_THAT(CheckAddress("--router", "127.0.0.1:99999"),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       "--router needs HOST:PORT with a port from 1 to 65535, "
                       "got \"127.0.0.1:99999\""));
}

}  // namespace
}  // namespace lapidary
