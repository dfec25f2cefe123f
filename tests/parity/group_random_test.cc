// Requests through groups of ranks in seeded stories: prompts that switch
// between rounds and chunks, batches of them, decoding beside them, requests
// that go and leave their pages to others.  Every logit asked for is held
// against the same request alone on one rank.

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <memory>
#include <numeric>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "common/testing/status_matchers.h"
#include "common/tokens.h"
#include "gtest/gtest.h"
#include "kernels/tensor.h"
#include "tests/parity/random_config.h"
#include "tests/parity/reference_model.h"
#include "tests/parity/small_group.h"
#include "tools/sequence_driver.h"
#include "worker/parallel/context_split.h"

namespace lapidary {
namespace {

using Part = SequenceDriver::Part;
using Replica = SequenceDriver::Replica;

// Of logits: only the order of sums differs.
constexpr double kMaxDifference = 5e-4;
constexpr int kConfigs = 48;
constexpr int kStoriesPerConfig = 6;
constexpr int kLongestPrompt = 460;
constexpr int kMostDecoded = 5;
constexpr int kLongest = kLongestPrompt + kMostDecoded;
constexpr int kMostLive = 3;

int NumRanksOf(int seed) {
  const std::vector<int> ranks = {2, 3, 4, 6, 8, 2, 4, 1};
  return ranks[seed % ranks.size()];
}

TokenId Largest(std::span<const float> logits) {
  return static_cast<TokenId>(std::max_element(logits.begin(), logits.end()) -
                              logits.begin());
}

// A request and what one rank makes of it, alone and in one chunk.
struct Request {
  int prompt_tokens = 0;
  std::vector<TokenId> tokens;             // The prompt and what is generated.
  std::vector<std::vector<float>> logits;  // By position.
};

// A request in the group.
struct Live {
  const Request* request = nullptr;
  SequenceDriver::Sequence sequence;

  int size() const { return static_cast<int>(request->tokens.size()); }
  int prompt_left() const {
    return std::max(0, request->prompt_tokens - sequence.num_computed);
  }
  bool done() const { return sequence.num_computed == size(); }
};

class GroupRandomTest : public ::testing::TestWithParam<int> {
 protected:
  // Runs a prompt and generates `num_decoded` tokens.
  Request OnOneRank(SequenceDriver& driver, std::vector<TokenId> prompt,
                    int num_decoded) const {
    Request request;
    request.prompt_tokens = static_cast<int>(prompt.size());
    SequenceDriver::Sequence sequence = driver.NewSequence(std::move(prompt));
    for (int i = 0; i <= num_decoded; ++i) {
      const int size = static_cast<int>(sequence.tokens.size());
      std::vector<int> positions(size - sequence.num_computed);
      std::iota(positions.begin(), positions.end(), sequence.num_computed);
      EXPECT_OK(driver.Prefill(sequence, /*chunk=*/size, positions,
                               [&](int, std::span<const float> logits) {
                                 request.logits.emplace_back(logits.begin(),
                                                             logits.end());
                               }));
      if (i < num_decoded) {
        sequence.tokens.push_back(Largest(request.logits.back()));
      }
    }
    request.tokens = sequence.tokens;
    return request;
  }

  const int num_ranks_ = NumRanksOf(GetParam());
  const SmallConfig config_ = RandomGroupConfig(GetParam(), num_ranks_);
  const SmallModel model_{"group", config_, GetParam()};
};

INSTANTIATE_TEST_SUITE_P(Seeds, GroupRandomTest, ::testing::Range(0, kConfigs));

// One story: what the steps were, and what they gave.
class Story {
 public:
  Story(const std::vector<Request>& requests, int num_ranks, Replica replica,
        int seed, SequenceDriver& driver)
      : requests_(requests),
        num_ranks_(num_ranks),
        replica_(replica),
        draw_(seed),
        driver_(driver) {}

  void Run() {
    const int live = draw_.Between(1, kMostLive);
    while (true) {
      while (CountLive() < live && next_ < requests_.size()) Begin();
      if (CountLive() == 0) return;
      if (draw_.OneIn(12)) {
        Cancel();
      } else if (num_ranks_ > 1 && AnyPromptLeft() && draw_.Below(5) < 3) {
        Round();
      } else {
        Step();
      }
      if (::testing::Test::HasFailure()) return;
    }
  }

  double worst() const { return worst_; }
  int num_positions() const { return num_positions_; }

 private:
  int CountLive() const {
    return static_cast<int>(
        std::count_if(all_.begin(), all_.end(),
                      [](const auto& live) { return !live->done(); }));
  }

  bool AnyPromptLeft() const {
    return std::any_of(all_.begin(), all_.end(), [](const auto& live) {
      return live->prompt_left() > 0;
    });
  }

  // A sequence that `fits`, of which there is one.
  template <class Fits>
  Live& Pick(const Fits& fits) {
    std::vector<Live*> fitting;
    for (const auto& live : all_) {
      if (!live->done() && fits(*live)) fitting.push_back(live.get());
    }
    return *fitting[draw_.Below(static_cast<int>(fitting.size()))];
  }

  void Begin() {
    const Request& request = requests_[next_++];
    auto live = std::make_unique<Live>();
    live->request = &request;
    live->sequence = driver_.NewSequence(request.tokens);
    all_.push_back(std::move(live));
  }

  // Its pages go to whoever asks next.
  void Cancel() {
    Live& live = Pick([](const Live&) { return true; });
    absl::StrAppend(&log_, "cancel ", IndexOf(live), "\n");
    End(live);
    live.sequence.num_computed = live.size();
  }

  static void End(Live& live) { live.sequence.lease = {}; }

  // What a step of `tokens` asks for.
  std::vector<int> Positions(int start, int num_tokens) {
    std::vector<int> positions;
    const int kind = draw_.Below(6);
    if (kind == 0) return positions;
    for (int p = start; p < start + num_tokens; ++p) {
      if (kind > 2 || (kind == 1 && p == start + num_tokens - 1) ||
          (kind == 2 && draw_.OneIn(4))) {
        positions.push_back(p);
      }
    }
    return positions;
  }

  void Round() {
    Live& live = Pick([](const Live& l) { return l.prompt_left() > 0; });
    const int start = live.sequence.num_computed;
    const int prompt = live.request->prompt_tokens;
    const int pages = draw_.Of({1, 1, 2, 3, 5, NumPages(kLongest)});
    int end = std::min(prompt, (start / kPageTokens + pages) * kPageTokens);
    if (draw_.OneIn(6)) end = draw_.Between(start + 1, end);
    const Replica replica = draw_.Below(3) > 0 ? replica_ : Replica::kNone;
    const std::vector<int> ends = Ranges({start, end});
    absl::StrAppend(&log_, "round ", IndexOf(live), " from ", start, " to ",
                    absl::StrJoin(ends, " "),
                    replica == Replica::kUse ? " replica\n" : "\n");
    const Part part = {.sequence = &live.sequence,
                       .num_tokens = end - start,
                       .logit_positions = Positions(start, end - start)};
    const auto logits = driver_.StepRound(part, ends, replica);
    ASSERT_OK(logits);
    Compare({&part, 1}, {&live}, *logits);
  }

  // By cost, or anywhere at page borders.
  std::vector<int> Ranges(PositionRange round) {
    if (draw_.Below(3) > 0) {
      const int least = NumPages(round.size() / num_ranks_) + 1;
      return SplitRound(
          round, num_ranks_,
          {.fixed = 1, .per_position = draw_.Of({0, 1, 100, 10000}) * 1e-3},
          draw_.Of({least, NumPages(kLongest)}) * kPageTokens);
    }
    std::vector<int> ends(num_ranks_, round.end);
    for (int r = 0; r + 1 < num_ranks_; ++r) {
      const int border = draw_.Between(round.begin, round.end + kPageTokens) /
                         kPageTokens * kPageTokens;
      ends[r] = std::clamp(border, round.begin, round.end);
    }
    std::sort(ends.begin(), ends.end());
    return ends;
  }

  // Some sequences at once: chunks of prompts, single tokens of the others.
  void Step() {
    std::vector<Part> parts;
    std::vector<Live*> lives;
    const Live& always = Pick([](const Live&) { return true; });
    for (const auto& live : all_) {
      if (live->done()) continue;
      if (live.get() != &always && draw_.OneIn(3)) continue;
      const int start = live->sequence.num_computed;
      const int left = live->prompt_left();
      const int chunk = std::min(
          left, draw_.Of({1, 2, 63, 64, 65, 130, draw_.Between(1, 300)}));
      const int num_tokens = left == 0 ? 1 : chunk;
      parts.push_back({.sequence = &live->sequence,
                       .num_tokens = num_tokens,
                       .logit_positions = Positions(start, num_tokens)});
      lives.push_back(live.get());
      absl::StrAppend(&log_, "step ", IndexOf(*live), " from ", start, " of ",
                      num_tokens, lives.size() > 1 ? " in the same\n" : "\n");
    }
    const auto logits = driver_.Step(parts);
    ASSERT_OK(logits);
    Compare(parts, lives, *logits);
  }

  void Compare(std::span<const Part> parts, const std::vector<Live*>& lives,
               const Tensor& logits) {
    int row = 0;
    for (size_t i = 0; i < parts.size(); ++i) {
      for (const int position : parts[i].logit_positions) {
        const auto* ours = static_cast<const float*>(logits.row(row++));
        CompareRow(lives[i]->request->logits[position],
                   {ours, static_cast<size_t>(logits.cols)});
        ASSERT_FALSE(::testing::Test::HasFailure())
            << "position " << position << " of " << IndexOf(*lives[i])
            << ", after\n"
            << log_;
      }
      if (lives[i]->done()) End(*lives[i]);
    }
    EXPECT_EQ(row, logits.rows);
  }

  void CompareRow(const std::vector<float>& expected,
                  std::span<const float> ours) {
    ++num_positions_;
    double worst = 0;
    for (size_t v = 0; v < expected.size(); ++v) {
      const double difference = std::abs(double{expected[v]} - ours[v]);
      worst = difference <= worst ? worst : difference;  // NaN stays.
    }
    worst_ = std::max(worst_, worst);
    EXPECT_LE(worst, kMaxDifference);
    const float lost = expected[Largest(expected)] - expected[Largest(ours)];
    EXPECT_LE(lost, kMaxDifference) << "another greedy token";
  }

  int IndexOf(const Live& live) const {
    return static_cast<int>(live.request - requests_.data());
  }

  const std::vector<Request>& requests_;
  const int num_ranks_;
  const Replica replica_;  // Whether there is one.
  Draw draw_;
  SequenceDriver& driver_;
  std::vector<std::unique_ptr<Live>> all_;  // Those that are done as well.
  size_t next_ = 0;
  std::string log_;
  double worst_ = 0;
  int num_positions_ = 0;
};

// At the edges of the window and of pages, or anywhere.
int PromptTokens(const SmallConfig& config, Draw& draw) {
  const int edge = draw.Of({config.window, config.window + kPageTokens,
                            draw.Between(1, 6) * kPageTokens});
  const int tokens = draw.OneIn(3) ? draw.Between(1, kLongestPrompt)
                                   : edge + draw.Between(-1, 1);
  return std::clamp(tokens, 1, kLongestPrompt);
}

TEST_P(GroupRandomTest, EqualsOneRank) {
  SCOPED_TRACE(absl::StrCat(num_ranks_, " ranks, ", ConfigJson(config_)));
  const SmallGroup one = model_.Start({.max_tokens = kLongest});
  double worst = 0;
  int num_positions = 0;
  for (int s = 0; s < kStoriesPerConfig; ++s) {
    const int seed = GetParam() * kStoriesPerConfig + s;
    SCOPED_TRACE(absl::StrCat("story ", seed));
    Draw draw(seed);
    std::vector<Request> requests;
    for (int i = draw.Between(2, 4); i > 0; --i) {
      requests.push_back(OnOneRank(
          *one.driver,
          RandomTokens(config_, PromptTokens(config_, draw), seed * 8 + i),
          draw.Between(0, kMostDecoded)));
    }
    const Replica replica = draw.OneIn(3) ? Replica::kNone : Replica::kUse;
    const SmallGroup group =
        model_.Start({.num_ranks = num_ranks_,
                      .max_tokens = kLongest,
                      .max_sequences = kMostLive,
                      .gather_pages = draw.Of({1, 2, 3, 256}),
                      .replica = replica});
    Story story(requests, num_ranks_, replica, seed, *group.driver);
    story.Run();
    if (HasFailure()) return;
    worst = std::max(worst, story.worst());
    num_positions += story.num_positions();
  }
  std::printf("%d ranks: %d positions, max difference %.2e\n", num_ranks_,
              num_positions, worst);
}

}  // namespace
}  // namespace lapidary
