#include "kernels/cpu/probes.h"

#include "common/testing/status_matchers.h"
#include "gtest/gtest.h"

namespace lapidary {
namespace {

TEST(ProbesTest, MeasureOnEveryInstructionSet) {
  for (const Isa isa : SupportedIsas()) {
    const auto probes = NewProbes({.threads = 2, .isa = isa});
    ASSERT_OK(probes);
    // Far below and above what any machine does.
    EXPECT_GT((*probes)->ReadBandwidth(), 1e6);
    EXPECT_LT((*probes)->ReadBandwidth(), 1e14);
    EXPECT_GT((*probes)->DotRate(), 1e6);
    EXPECT_LT((*probes)->DotRate(), 1e16);
  }
}

}  // namespace
}  // namespace lapidary
