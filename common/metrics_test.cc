#include "common/metrics.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <string>

#include "absl/strings/numbers.h"
#include "common/testing/status_matchers.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace lapidary {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

// What http://127.0.0.1:`port`/metrics answers.
std::string Scrape(int port) {
  const int socket = ::socket(AF_INET, SOCK_STREAM, 0);
  sockaddr_in address = {};
  address.sin_family = AF_INET;
  address.sin_port = htons(port);
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  EXPECT_EQ(
      ::connect(socket, reinterpret_cast<sockaddr*>(&address), sizeof(address)),
      0);
  const std::string request = "GET /metrics HTTP/1.0\r\n\r\n";
  EXPECT_EQ(::send(socket, request.data(), request.size(), 0),
            static_cast<ssize_t>(request.size()));
  std::string answer;
  char buffer[4096];
  for (ssize_t n; (n = ::recv(socket, buffer, sizeof(buffer), 0)) > 0;) {
    answer.append(buffer, n);
  }
  ::close(socket);
  return answer;
}

int PortOf(const std::string& address) {
  int port = 0;
  EXPECT_TRUE(absl::SimpleAtoi(address.substr(address.rfind(':') + 1), &port));
  return port;
}

TEST(MetricsTest, ShowsNamesHelpLabelsAndValues) {
  Metrics metrics;
  metrics.AddCounter("apples_total", "Apples eaten.", {{"color", "red"}})
      .Increment(3);
  metrics.AddGauge("pears", "Pears left.").Set(7);
  const std::string text = metrics.Text();
  EXPECT_THAT(text, HasSubstr("# HELP apples_total Apples eaten."));
  EXPECT_THAT(text, HasSubstr("# TYPE apples_total counter"));
  EXPECT_THAT(text, HasSubstr("apples_total{color=\"red\"} 3"));
  EXPECT_THAT(text, HasSubstr("pears 7"));
}

TEST(MetricsTest, CountsInBuckets) {
  Metrics metrics;
  Histogram& seconds =
      metrics.AddHistogram("wait_seconds", "Waiting.", {0.5, 2560});
  seconds.Observe(0.25);
  seconds.Observe(2000);
  const std::string text = metrics.Text();
  EXPECT_THAT(text, HasSubstr("wait_seconds_bucket{le=\"0.5"));
  EXPECT_THAT(text, HasSubstr("wait_seconds_bucket{le=\"+Inf\"} 2"));
  EXPECT_THAT(text, HasSubstr("wait_seconds_count 2"));
}

TEST(MetricsTest, GivesTheSameMetricForTheSameNameAndLabels) {
  Metrics metrics;
  EXPECT_EQ(&metrics.AddCounter("a_total", "A.", {{"k", "v"}}),
            &metrics.AddCounter("a_total", "A.", {{"k", "v"}}));
}

TEST(MetricsDeathTest, RefusesABadName) {
  Metrics metrics;
  EXPECT_DEATH(metrics.AddCounter("no spaces", ""), "no spaces");
}

TEST(MetricsPageTest, ServesThePageOnAFreePort) {
  Metrics metrics;
  metrics.AddCounter("apples_total", "Apples eaten.").Increment();
  const auto page = MetricsPage::Serve("127.0.0.1:0", metrics);
  ASSERT_OK(page);
  EXPECT_THAT((*page)->address(), Not(HasSubstr(":0")));
  const std::string answer = Scrape(PortOf((*page)->address()));
  EXPECT_THAT(answer, HasSubstr("200 OK"));
  EXPECT_THAT(answer, HasSubstr("apples_total 1"));
}

TEST(MetricsPageTest, SaysThatAPortIsInUse) {
  Metrics metrics;
  const auto first = MetricsPage::Serve("127.0.0.1:0", metrics);
  ASSERT_OK(first);
  const std::string& taken = (*first)->address();
  EXPECT_THAT(MetricsPage::Serve(taken, metrics),
              StatusIs(absl::StatusCode::kUnavailable, HasSubstr(taken)));
}

TEST(MetricsPageTest, RefusesWhatIsNoAddress) {
  Metrics metrics;
  for (const char* address : {"", ":80", "localhost", "localhost:http"}) {
    EXPECT_THAT(MetricsPage::Serve(address, metrics),
                StatusIs(absl::StatusCode::kInvalidArgument))
        << address;
  }
}

}  // namespace
}  // namespace lapidary
