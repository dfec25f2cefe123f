#include "router/router_options.h"

#include "common/testing/status_matchers.h"
#include "gtest/gtest.h"

namespace lapidary {
namespace {

using ::testing::HasSubstr;

RouterOptions Valid() {
  RouterOptions options;
  options.model = "dir";
  options.groups = "a:1";
  return options;
}

TEST(RouterOptionsTest, AcceptsTheDefaults) { EXPECT_OK(Valid().Validate()); }

TEST(RouterOptionsTest, NeedsAModelAndGroups) {
  RouterOptions options = Valid();
  options.model.clear();
  EXPECT_THAT(options.Validate(), StatusIs(absl::StatusCode::kInvalidArgument,
                                           HasSubstr("--model")));
  options = Valid();
  options.groups.clear();
  EXPECT_THAT(options.Validate(), StatusIs(absl::StatusCode::kInvalidArgument,
                                           HasSubstr("--groups")));
}

TEST(RouterOptionsTest, NeedsAddressesWithAPort) {
  RouterOptions options = Valid();
  options.listen = "localhost";
  EXPECT_THAT(options.Validate(), StatusIs(absl::StatusCode::kInvalidArgument,
                                           HasSubstr("--listen needs")));
  options = Valid();
  // It used to be taken for port 34463.
  options.metrics_listen = "127.0.0.1:99999";
  EXPECT_THAT(options.Validate(), StatusIs(absl::StatusCode::kInvalidArgument,
                                           HasSubstr("--metrics-listen")));
}

TEST(RouterOptionsTest, NamesTheFlagThatIsOutOfRange) {
  RouterOptions options = Valid();
  options.tokenize_threads = 1;
  EXPECT_THAT(options.Validate(),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       "--tokenize-threads needs a number from 2 to 256, got "
                       "1"));
  options = Valid();
  options.max_wait_for_group = absl::ZeroDuration();
  EXPECT_THAT(options.Validate(), StatusIs(absl::StatusCode::kInvalidArgument,
                                           HasSubstr("--max-wait-for-group")));
  options = Valid();
  options.keepalive_interval = absl::Seconds(4);
  EXPECT_THAT(options.Validate(), StatusIs(absl::StatusCode::kInvalidArgument,
                                           HasSubstr("--keepalive-interval")));
}

}  // namespace
}  // namespace lapidary
