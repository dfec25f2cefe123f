// Random loads on small memories: what must hold in every step.

#include <algorithm>
#include <cmath>
#include <iostream>
#include <map>
#include <optional>
#include <random>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "common/testing/status_matchers.h"
#include "common/tokens.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "worker/cache/kv_cache.h"
#include "worker/schedule/cost_model.h"
#include "worker/schedule/scheduler.h"
#include "worker/schedule/step_plan.h"

namespace lapidary {
namespace {

using Event = Scheduler::Event;

// The token of a sequence at a position, prompt or output.
TokenId TokenAt(SequenceId id, int position) {
  return static_cast<TokenId>((id * 7919 + position * 31) % 262144);
}

// A group of several ranks.
struct Ranks {
  int max_range_tokens = 0;
  int replica_pages = 0;
  int deadline = 0;  // Inter-token, in milliseconds; 0: none.
};

struct Case {
  unsigned seed;
  KvCache::Options cache;
  Scheduler::Options scheduler;
  Ranks ranks = {};
};

double Between(double low, double high, std::minstd_rand& random) {
  return low *
         std::pow(high / low, std::uniform_real_distribution<double>()(random));
}

// Of a small model at rates that are drawn from the case's seed: steps take
// from microseconds to seconds.
CostModel RandomCosts(const Case& of) {
  std::minstd_rand random(of.seed);
  random.discard(10);  // The first ones are alike for seeds that are.
  const ModelShape shape = {.hidden_size = 128,
                            .intermediate_size = 256,
                            .num_heads = 24,
                            .vocab_size = 1000,
                            .window = of.cache.window,
                            .window_layers = {.count = 5,
                                              .kv_heads = 24,
                                              .head_dim = 16,
                                              .key_half = 8,
                                              .has_v = true},
                            .global_layers = {.count = 1,
                                              .kv_heads = 1,
                                              .head_dim = 32,
                                              .key_half = 4,
                                              .has_v = false}};
  RankRates rates;
  rates.read_bytes = Between(1e8, 1e10, random);
  rates.matmul_flops = rates.read_bytes * Between(5, 100, random);
  rates.attention_flops = rates.matmul_flops * Between(0.3, 1, random);
  rates.link_bytes = rates.read_bytes / Between(1, 50, random);
  rates.link_latency = absl::Seconds(Between(1e-7, 1e-4, random));
  return CostModel(
      shape, rates,
      {.num_ranks = of.cache.num_ranks,
       .activation_bytes = 4,
       .gather_pages = std::uniform_int_distribution(1, 8)(random)});
}

Scheduler::Options SchedulerOptions(const Case& of) {
  Scheduler::Options options = of.scheduler;
  if (of.ranks.max_range_tokens == 0) return options;
  options.cost_model = RandomCosts(of);
  options.max_range_tokens = of.ranks.max_range_tokens;
  options.replica_pages = of.ranks.replica_pages;
  if (of.ranks.deadline > 0) {
    options.inter_token_deadline = absl::Milliseconds(of.ranks.deadline);
  }
  return options;
}

std::string PrintCase(const ::testing::TestParamInfo<Case>& info) {
  return "Seed" + std::to_string(info.param.seed);
}

// What the test knows of a sequence, from the events and plans alone.
struct Shadow {
  int num_prompt = 0;
  int max_tokens = 0;
  int stop_after = 0;  // Output tokens after which the model stops.
  int priority = 0;
  absl::Time deadline;
  int num_output = 0;
  int computed = 0;  // Since it was last admitted.
  bool admitted = false;
  bool prefilled = false;
  int rounds_since_token = 0;

  int size() const { return num_prompt + num_output; }
  bool decoding() const { return num_output > 0 && computed == size() - 1; }
};

// What the ranks' replica holds.
struct ShadowReplica {
  std::optional<SequenceId> owner;
  int num_tokens = 0;

  void Release(SequenceId sequence) {
    if (owner == sequence) *this = {};
  }
};

class SchedulerPropertyTest : public ::testing::TestWithParam<Case> {
 protected:
  void AddSome();
  void CancelSome();
  void Step();
  void CheckPart(const StepPlan& plan, const SequenceStep& step);
  void CheckPages(const StepPlan& plan, const SequenceStep& step);
  void CheckCadence(const StepPlan& plan, const std::vector<Event>& events);
  void CheckRound(const StepPlan& plan, const std::vector<Event>& events);
  void CheckDeadline(const StepPlan& plan, const std::vector<Event>& events);
  void ListStreams();
  void CheckReplica(const StepPlan& plan, const SequenceStep& step);
  void Take(const std::vector<Event>& events);

  int Draw(int low, int high) {
    return std::uniform_int_distribution<int>(low, high)(random_);
  }

  std::minstd_rand random_{GetParam().seed};
  KvCache cache_{GetParam().cache};
  Scheduler scheduler_{SchedulerOptions(GetParam()), cache_};
  ShadowReplica replica_;
  // Before the step was planned.
  bool pages_were_short_ = false;
  std::set<SequenceId> streams_;
  int64_t num_rounds_ = 0;
  int64_t num_over_deadline_ = 0;
  std::map<SequenceId, Shadow> live_;
  absl::Time now_ = absl::UnixEpoch();
  SequenceId next_id_ = 1;
  int num_finished_ = 0;
  int num_preempted_ = 0;
  int num_expired_ = 0;
};

void SchedulerPropertyTest::AddSome() {
  const int longest = GetParam().cache.global_pages_per_rank *
                      GetParam().cache.num_ranks * kPageTokens;
  const SequenceId id = next_id_++;
  Shadow shadow;
  shadow.num_prompt = Draw(1, Draw(0, 3) == 0 ? longest : 150);
  shadow.max_tokens = Draw(1, 400);
  shadow.stop_after = Draw(1, 500);
  shadow.priority = Draw(0, 5) == 0 ? Draw(-1, 1) : 0;
  shadow.deadline = Draw(0, 9) == 0 ? now_ + absl::Seconds(Draw(1, 200))
                                    : absl::InfiniteFuture();
  Scheduler::NewSequence sequence = {.id = id,
                                     .prompt = {},
                                     .max_tokens = shadow.max_tokens,
                                     .priority = shadow.priority,
                                     .deadline = shadow.deadline};
  for (int p = 0; p < shadow.num_prompt; ++p) {
    sequence.prompt.push_back(TokenAt(id, p));
  }
  const absl::Status status = scheduler_.Add(std::move(sequence), now_);
  const bool fits = cache_.CanEverFit(shadow.num_prompt + shadow.max_tokens);
  if (!fits) {
    EXPECT_THAT(status, StatusIs(absl::StatusCode::kFailedPrecondition));
  } else if (status.ok()) {
    live_[id] = shadow;
  } else {
    EXPECT_THAT(status, StatusIs(absl::StatusCode::kResourceExhausted));
  }
}

void SchedulerPropertyTest::CancelSome() {
  if (live_.empty()) return;
  auto victim = live_.begin();
  std::advance(victim, Draw(0, static_cast<int>(live_.size()) - 1));
  scheduler_.Cancel(victim->first);
  replica_.Release(victim->first);
  live_.erase(victim);
}

void SchedulerPropertyTest::Take(const std::vector<Event>& events) {
  for (const Event& event : events) {
    ASSERT_TRUE(live_.contains(event.sequence));
    Shadow& shadow = live_[event.sequence];
    switch (event.kind) {
      case Event::Kind::kAdmitted:
        EXPECT_FALSE(std::exchange(shadow.admitted, true));
        break;
      case Event::Kind::kPrefilled:
        EXPECT_FALSE(std::exchange(shadow.prefilled, true));
        EXPECT_GE(shadow.computed, shadow.num_prompt);
        break;
      case Event::Kind::kPreempted:
        shadow.computed = 0;
        replica_.Release(event.sequence);
        ++num_preempted_;
        break;
      case Event::Kind::kFinished:
        if (event.finish == Scheduler::Finish::kDeadline) {
          EXPECT_LE(shadow.deadline, now_);
          ++num_expired_;
        } else {
          const bool stopped = event.finish == Scheduler::Finish::kStop;
          EXPECT_EQ(shadow.num_output,
                    stopped ? shadow.stop_after : shadow.max_tokens);
          ++num_finished_;
        }
        replica_.Release(event.sequence);
        live_.erase(event.sequence);
        break;
    }
  }
}

// Positions follow those computed before, each once, with the right tokens.
void SchedulerPropertyTest::CheckPart(const StepPlan& plan,
                                      const SequenceStep& step) {
  ASSERT_TRUE(live_.contains(step.sequence));
  const Shadow& shadow = live_[step.sequence];
  ASSERT_EQ(step.start, shadow.computed);
  ASSERT_GT(step.num_tokens, 0);
  const int size = shadow.num_prompt + shadow.num_output;
  ASSERT_LE(step.start + step.num_tokens, size);
  for (int i = 0; i < step.num_tokens; ++i) {
    ASSERT_EQ(plan.tokens[step.first_token + i],
              TokenAt(step.sequence, step.start + i));
  }
  const bool wants_logits =
      std::count(plan.logit_rows.begin(), plan.logit_rows.end(),
                 step.first_token + step.num_tokens - 1) > 0;
  EXPECT_EQ(wants_logits, step.start + step.num_tokens == size);
}

// Each position that a query of the step or a later one needs has its page.
void SchedulerPropertyTest::CheckPages(const StepPlan& plan,
                                       const SequenceStep& step) {
  const int window = cache_.window();
  const int end = step.start + step.num_tokens;
  ASSERT_EQ(step.num_global_pages, NumPages(end));
  for (int p = std::max(0, step.start - window + 1); p < end; ++p) {
    const bool read = p < step.start;
    const bool kept = p > end - window;
    if (!read && !kept) continue;
    const int index = p / kPageTokens - step.window_base;
    ASSERT_GE(index, 0);
    ASSERT_LT(index, step.num_window_pages);
    ASSERT_NE(plan.window_pages[step.first_window_page + index], kNoPage);
  }
}

// While the budget suffices and nobody is preempted, a decoding sequence that
// ran in a step runs in the next one.
void SchedulerPropertyTest::CheckCadence(const StepPlan& plan,
                                         const std::vector<Event>& events) {
  int decoding = 0;
  for (const auto& [id, shadow] : live_) decoding += shadow.decoding();
  std::set<SequenceId> planned;
  for (const SequenceStep& step : plan.sequences) {
    if (live_[step.sequence].decoding()) planned.insert(step.sequence);
  }
  // The last in rank may wait in place; an eighth may be kept for prefills.
  const int budget = GetParam().scheduler.max_step_tokens;
  const int num_planned = static_cast<int>(planned.size());
  const int share = budget - (budget + 7) / 8;
  // A prefill may have preempted one that was planned already.
  const auto preempted = static_cast<int>(
      std::count_if(events.begin(), events.end(), [](const Event& event) {
        return event.kind == Event::Kind::kPreempted;
      }));
  EXPECT_GE(num_planned + preempted, std::min(share, decoding - 1));
  for (auto& [id, shadow] : live_) {
    // Who waits though there is budget has had its chance.
    if (planned.contains(id) || num_planned < share) {
      shadow.rounds_since_token = 0;
    }
  }
}

// One prefill, and streams have a token between two of them.
void SchedulerPropertyTest::CheckRound(const StepPlan& plan,
                                       const std::vector<Event>& events) {
  ++num_rounds_;
  ASSERT_EQ(plan.sequences.size(), 1u);
  const SequenceStep& step = plan.sequences.front();
  ASSERT_FALSE(live_[step.sequence].decoding());
  ASSERT_NO_FATAL_FAILURE(CheckReplica(plan, step));
  for (auto& [id, shadow] : live_) {
    if (!shadow.decoding() || ++shadow.rounds_since_token < 2) continue;
    // It waits for a page, and so does all that is no round.
    EXPECT_TRUE(pages_were_short_ || !events.empty()) << "sequence " << id;
  }
}

void SchedulerPropertyTest::CheckReplica(const StepPlan& plan,
                                         const SequenceStep& step) {
  const bool fits =
      NumPages(live_[step.sequence].size()) <= GetParam().ranks.replica_pages;
  if (!replica_.owner.has_value() && fits) replica_.owner = step.sequence;
  const bool owned = replica_.owner == step.sequence;
  ASSERT_EQ(plan.replica_tokens, owned ? replica_.num_tokens : kNoReplica);
  if (owned) replica_.num_tokens = step.start + step.num_tokens;
}

// With prefill beside streams, a step keeps to the deadline if it is longer
// than a page.
void SchedulerPropertyTest::CheckDeadline(const StepPlan& plan,
                                          const std::vector<Event>& events) {
  for (const Event& event : events) {
    if (event.kind == Event::Kind::kFinished) streams_.erase(event.sequence);
  }
  const int64_t counted = scheduler_.counts().over_deadline;
  int prefilled = 0;
  for (const SequenceStep& step : plan.sequences) {
    if (!live_[step.sequence].decoding()) prefilled += step.num_tokens;
  }
  const bool over =
      GetParam().ranks.deadline > 0 && prefilled > 0 && !streams_.empty() &&
      GetParam().cache.num_ranks > 1 &&
      plan.planned_time > absl::Milliseconds(GetParam().ranks.deadline);
  EXPECT_EQ(counted - num_over_deadline_, over);
  EXPECT_TRUE(!over || prefilled <= kPageTokens) << prefilled;
  num_over_deadline_ = counted;
}

void SchedulerPropertyTest::ListStreams() {
  streams_.clear();
  for (const auto& [id, shadow] : live_) {
    if (shadow.decoding()) streams_.insert(id);
  }
}

void SchedulerPropertyTest::Step() {
  std::vector<Event> events;
  pages_were_short_ =
      cache_.free_global_pages() == 0 || cache_.free_window_pages() == 0;
  ListStreams();
  const StepPlan& plan = scheduler_.Plan(now_, events);
  Take(events);
  ASSERT_EQ(plan.empty(), live_.empty());
  const PlanLimits limits = {
      .num_ranks = GetParam().cache.num_ranks,
      .vocab_size = 1 << 20,
      .global_pages = GetParam().cache.global_pages_per_rank,
      .window_pages = GetParam().cache.window_pages,
      .max_step_tokens = GetParam().scheduler.max_step_tokens,
      .max_range_tokens = GetParam().ranks.max_range_tokens,
      .replica_pages = GetParam().ranks.replica_pages};
  ASSERT_THAT(DecodeStepPlan(EncodeStepPlan(plan), limits), IsOkAndHolds(plan));
  ASSERT_LE(static_cast<int>(plan.sequences.size()),
            GetParam().scheduler.max_sequences);

  std::set<std::pair<int, PageId>> global;  // With its rank.
  std::set<PageId> window;
  for (const SequenceStep& step : plan.sequences) {
    CheckPart(plan, step);
    CheckPages(plan, step);
    for (int p = 0; p < step.num_global_pages; ++p) {
      const PageId page = plan.global_pages[step.first_global_page + p];
      ASSERT_TRUE(global.insert({p % GetParam().cache.num_ranks, page}).second);
    }
    for (int p = 0; p < step.num_window_pages; ++p) {
      const PageId page = plan.window_pages[step.first_window_page + p];
      ASSERT_TRUE(page == kNoPage || window.insert(page).second);
    }
  }
  CheckDeadline(plan, events);
  if (plan.layout == Layout::kTokenSplit) {
    ASSERT_NO_FATAL_FAILURE(CheckRound(plan, events));
  } else {
    CheckCadence(plan, events);
  }

  for (const SequenceStep& step : plan.sequences) {
    Shadow& shadow = live_[step.sequence];
    shadow.computed += step.num_tokens;
    if (shadow.computed == shadow.size()) replica_.Release(step.sequence);
  }
  std::vector<Scheduler::Sampled> sampled;
  auto part = plan.sequences.begin();
  for (const int row : plan.logit_rows) {
    while (part->first_token + part->num_tokens - 1 != row) ++part;
    Shadow& shadow = live_[part->sequence];
    const int position = shadow.num_prompt + shadow.num_output++;
    sampled.push_back({.sequence = part->sequence,
                       .token = TokenAt(part->sequence, position),
                       .stop = shadow.num_output == shadow.stop_after});
  }
  if (Draw(0, 30) == 0) CancelSome();  // Between Plan and Commit.
  if (plan.empty()) return;
  events.clear();
  scheduler_.Commit(sampled, events);
  Take(events);
  now_ += absl::Seconds(1);
}

TEST_P(SchedulerPropertyTest, HoldsInEveryStep) {
  for (int step = 0; step < 2500; ++step) {
    if (Draw(0, 3) == 0) AddSome();
    if (Draw(0, 60) == 0) CancelSome();
    ASSERT_NO_FATAL_FAILURE(Step()) << "step " << step;
  }
  for (int step = 0; !live_.empty(); ++step) {
    ASSERT_LT(step, 200000) << live_.size() << " sequences do not finish";
    ASSERT_NO_FATAL_FAILURE(Step());
  }
  EXPECT_EQ(cache_.global_use().used, 0);
  EXPECT_EQ(cache_.window_use().used, 0);
  EXPECT_EQ(scheduler_.load().running, 0);
  EXPECT_EQ(scheduler_.load().waiting, 0);
  EXPECT_EQ(scheduler_.load().waiting_tokens, 0);
  EXPECT_GT(num_finished_, 20);
  EXPECT_EQ(scheduler_.counts().rounds, num_rounds_);
  std::cout << num_finished_ << " finished, " << num_expired_ << " expired, "
            << num_preempted_ << " preempted, " << num_rounds_ << " rounds, "
            << num_over_deadline_ << " steps over the deadline\n";
}

INSTANTIATE_TEST_SUITE_P(
    Loads, SchedulerPropertyTest,
    ::testing::Values(
        Case{1, {1, 12, 8, 100}, {.max_step_tokens = 128}},
        Case{2, {1, 8, 3, 100}, {.max_step_tokens = 200, .max_sequences = 3}},
        Case{3, {1, 40, 60, 1024}, {.max_step_tokens = 512}},
        Case{4, {3, 5, 12, 96}, {.max_step_tokens = 64}},
        Case{5, {1, 30, 40, 64}, {.max_step_tokens = 5}},
        Case{6, {1, 30, 40, 1}, {.max_step_tokens = 7, .max_sequences = 20}},
        Case{7, {4, 6, 10, 512}, {.max_step_tokens = 1000, .max_waiting = 5}},
        Case{8, {1, 4, 4, 65}, {.max_step_tokens = 1}},
        Case{9,
             {2, 20, 25, 127},
             {.max_step_tokens = 96, .max_waiting_tokens = 2000}},
        Case{10, {1, 100, 17, 1024}, {.max_step_tokens = 2048}}),
    PrintCase);

INSTANTIATE_TEST_SUITE_P(
    LoadsOnRanks, SchedulerPropertyTest,
    ::testing::Values(
        Case{11, {1, 30, 20, 100}, {.max_step_tokens = 128}, {256, 20, 10}},
        Case{12, {2, 20, 20, 100}, {.max_step_tokens = 128}, {256, 20, 10}},
        Case{13, {3, 10, 12, 96}, {.max_step_tokens = 64}, {64, 30, 50}},
        Case{14, {4, 10, 40, 200}, {.max_step_tokens = 100}, {512, 0, 1}},
        Case{15, {8, 20, 60, 1024}, {.max_step_tokens = 512}, {1024, 200, 5}},
        Case{16, {8, 4, 6, 65}, {.max_step_tokens = 3}, {128, 10, 0}},
        Case{17, {2, 8, 3, 100}, {.max_step_tokens = 1}, {64, 8, 2}},
        Case{18, {4, 3, 5, 100}, {.max_sequences = 3}, {192, 12, 100}},
        Case{19, {3, 40, 30, 500}, {.max_step_tokens = 200}, {320, 60, 1000}},
        Case{20, {2, 5, 40, 1}, {.max_step_tokens = 32}, {64, 4, 20}},
        Case{21, {4, 30, 30, 300}, {.max_step_tokens = 5}, {256, 120, 3}},
        Case{22, {8, 30, 99, 700}, {.max_step_tokens = 256}, {128, 50, 500}}),
    PrintCase);

}  // namespace
}  // namespace lapidary
