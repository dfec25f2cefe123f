#include "kernels/cpu/probes.h"

#include "common/testing/status_matchers.h"
#include "gtest/gtest.h"

namespace lapidary {
namespace {

TEST(ProbesTest, MeasurePlausibleRates) {
  const auto probes = NewProbes({.threads = 2});
  ASSERT_OK(probes);
  const double bandwidth = (*probes)->ReadBandwidth();
  EXPECT_GT(bandwidth, 1e6);
  EXPECT_LT(bandwidth, 1e14);
  const double rate = (*probes)->DotRate();
  EXPECT_GT(rate, 1e6);
  EXPECT_LT(rate, 1e16);
}

}  // namespace
}  // namespace lapidary
