#include "worker/worker_options.h"

#include <cstdint>
#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "common/testing/status_matchers.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace lapidary {
namespace {

using ::testing::HasSubstr;

WorkerOptions GoodOptions() {
  WorkerOptions options;
  options.model = "/models/12b";
  options.image_dir = "/cache";
  return options;
}

TEST(WorkerOptionsTest, DefaultsAreValid) {
  EXPECT_OK(GoodOptions().Validate());
}

TEST(WorkerOptionsTest, NamesTheFlagThatIsWrong) {
  using Spoil = std::function<void(WorkerOptions&)>;
  const std::vector<std::pair<std::string, Spoil>> cases = {
      {"--model", [](auto& o) { o.model = ""; }},
      {"--image-dir", [](auto& o) { o.image_dir = ""; }},
      {"--listen", [](auto& o) { o.listen = "8000"; }},
      {"--metrics-listen", [](auto& o) { o.metrics_listen = ":1"; }},
      // It used to be taken for port 34463.
      {"--listen", [](auto& o) { o.listen = "127.0.0.1:99999"; }},
      {"--threads", [](auto& o) { o.threads = -1; }},
      {"--kv-memory", [](auto& o) { o.kv_memory = -1; }},
      {"--kv-memory", [](auto& o) { o.kv_memory = kMaxMemoryBytes + 1; }},
      {"--max-sequences", [](auto& o) { o.max_sequences = 0; }},
      {"--step-tokens", [](auto& o) { o.step_tokens = 0; }},
      {"--max-waiting", [](auto& o) { o.max_waiting = 0; }},
      {"--max-waiting-tokens", [](auto& o) { o.max_waiting_tokens = 0; }},
      {"--max-message-bytes", [](auto& o) { o.max_message_bytes = 0; }},
      {"--ranks", [](auto& o) { o.ranks = 0; }},
      {"--ranks", [](auto& o) { o.ranks = 65; }},
      {"--rank", [](auto& o) { o.rank = 1; }},
      {"--rendezvous", [](auto& o) { o.ranks = 2; }},
      {"--rendezvous",
       [](auto& o) {
         o.ranks = 2;
         o.rendezvous = "north";
       }},
      {"--group-timeout", [](auto& o) { o.group_timeout = absl::Seconds(0); }},
      {"--liveness-timeout",
       [](auto& o) { o.liveness_timeout = absl::Seconds(1); }},
      {"--inter-token-deadline",
       [](auto& o) { o.inter_token_deadline = absl::ZeroDuration(); }},
      {"--round-tokens", [](auto& o) { o.round_tokens = 100; }},
      {"--replica-memory", [](auto& o) { o.replica_memory = -1; }},
      {"--replica-memory",
       [](auto& o) { o.replica_memory = kMaxMemoryBytes + 1; }},
      {"--gather-memory", [](auto& o) { o.gather_memory = 0; }},
      {"--gather-memory",
       [](auto& o) { o.gather_memory = kMaxMemoryBytes + 1; }},
      {"--drain-timeout", [](auto& o) { o.drain_timeout = absl::Seconds(-1); }},
  };
  for (const auto& [flag, spoil] : cases) {
    WorkerOptions options = GoodOptions();
    spoil(options);
    EXPECT_THAT(options.Validate(),
                StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr(flag)));
  }
}

TEST(WorkerOptionsTest, TellsTheMemoryThatItExpects) {
  WorkerOptions options = GoodOptions();
  options.kv_memory = int64_t{1} << 61;
  EXPECT_THAT(options.Validate(),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       "--kv-memory: expected 0 B to 1024.00 TiB, got "
                       "2097152.00 TiB"));
}

}  // namespace
}  // namespace lapidary
