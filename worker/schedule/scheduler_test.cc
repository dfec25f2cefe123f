#include "worker/schedule/scheduler.h"

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <map>
#include <new>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "common/testing/status_matchers.h"
#include "common/tokens.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "worker/cache/kv_cache.h"
#include "worker/schedule/step_plan.h"
#include "worker/schedule/testing/small_costs.h"

namespace {
std::atomic<int> num_allocations = 0;
}  // namespace

void* operator new(size_t size) {
  ++num_allocations;
  void* memory = std::malloc(size);
  if (memory == nullptr) throw std::bad_alloc();
  return memory;
}
void operator delete(void* memory) noexcept { std::free(memory); }
void operator delete(void* memory, size_t) noexcept { std::free(memory); }

namespace lapidary {
namespace {

using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::Not;
using Event = Scheduler::Event;
using Kind = Scheduler::Event::Kind;

// The stories in tests/schedule show what the scheduler decides; here is what a
// story cannot show.
class SchedulerTest : public ::testing::Test {
 protected:
  absl::Status Add(SequenceId id, int prompt, int max_tokens,
                   int priority = 0) {
    return scheduler_.Add({.id = id,
                           .prompt = std::vector<TokenId>(prompt),
                           .max_tokens = max_tokens,
                           .priority = priority},
                          now_);
  }

  const StepPlan& Plan() {
    events_.clear();
    return scheduler_.Plan(now_, events_);
  }

  // Every row draws token 7 and goes on.
  void Commit(const StepPlan& plan) {
    sampled_.clear();
    size_t part = 0;
    for (const int row : plan.logit_rows) {
      while (plan.sequences[part].first_token +
                 plan.sequences[part].num_tokens <=
             row) {
        ++part;
      }
      sampled_.push_back({plan.sequences[part].sequence, 7, false});
    }
    scheduler_.Commit(sampled_, events_);
  }

  void Step() { Commit(Plan()); }

  const absl::Time now_ = absl::UnixEpoch();
  KvCache cache_{
      {.global_pages_per_rank = 200, .window_pages = 100, .window = 100}};
  Scheduler scheduler_{{.max_step_tokens = 128, .max_sequences = 4}, cache_};
  std::vector<Event> events_;
  std::vector<Scheduler::Sampled> sampled_;
};

TEST_F(SchedulerTest, PutsEmittedTokensIntoTheNextStep) {
  ASSERT_OK(Add(1, 3, 5));
  Step();
  EXPECT_THAT(Plan().tokens, ElementsAre(7));
}

TEST_F(SchedulerTest, WantsLogitsOnlyOfRowsThatAreSampled) {
  ASSERT_OK(Add(1, 3, 5));
  Step();
  ASSERT_OK(Add(2, 300, 5));
  ASSERT_OK(Add(3, 10, 5));
  // 1 decodes, 2 has a page, 3 ends.
  EXPECT_THAT(Plan().logit_rows, ElementsAre(0, 64 + 10));
}

TEST_F(SchedulerTest, CountsStepsThatRan) {
  EXPECT_TRUE(Plan().empty());
  ASSERT_OK(Add(1, 3, 5));
  const StepPlan& first = Plan();
  EXPECT_EQ(first.step, 1);
  Commit(first);
  EXPECT_EQ(Plan().step, 2);
}

TEST_F(SchedulerTest, KnowsNothingOfAnIdThatHasLeft) {
  EXPECT_FALSE(scheduler_.progress(1).queued);
  ASSERT_OK(Add(1, 3, 1));
  EXPECT_TRUE(scheduler_.progress(1).queued);
  Step();
  EXPECT_THAT(events_, Contains(Event{.kind = Kind::kFinished,
                                      .sequence = 1,
                                      .finish = Scheduler::Finish::kLength}));
  EXPECT_FALSE(scheduler_.progress(1).queued);
  EXPECT_EQ(scheduler_.progress(1).prefilled_tokens, 0);
}

TEST_F(SchedulerTest, CountsProgressWhenAStepHasRunOnly) {
  ASSERT_OK(Add(1, 300, 1));
  const StepPlan& plan = Plan();
  EXPECT_EQ(scheduler_.progress(1).prefilled_tokens, 0);
  Commit(plan);
  EXPECT_EQ(scheduler_.progress(1).prefilled_tokens, 128);
  EXPECT_EQ(scheduler_.load().unprefilled_tokens, 172);
}

TEST_F(SchedulerTest, IgnoresWhatWasDrawnForACancelledSequenceOfTheSameId) {
  ASSERT_OK(Add(1, 3, 5));
  const StepPlan& plan = Plan();
  scheduler_.Cancel(1);
  ASSERT_OK(Add(1, 3, 5));
  Commit(plan);
  EXPECT_THAT(events_,
              Not(Contains(Event{.kind = Kind::kPrefilled, .sequence = 1})));
  EXPECT_TRUE(scheduler_.progress(1).queued);
}

// A long prompt among short ones of its priority that never stop coming: it has
// a chunk at least every max_sequences steps, and the short ones start in
// order.
TEST_F(SchedulerTest, StarvesNobodyWithinAPriority) {
  ASSERT_OK(Add(1000, 6000, 2));
  SequenceId next = 1;
  SequenceId last_admitted = 0;
  int steps_without = 0;
  bool finished = false;
  for (int step = 0; step < 1000 && !finished; ++step) {
    while (scheduler_.load().waiting < 3) ASSERT_OK(Add(next++, 120, 1));
    const StepPlan& plan = Plan();
    ++steps_without;
    for (const SequenceStep& part : plan.sequences) {
      if (part.sequence == 1000) steps_without = 0;
    }
    ASSERT_LT(steps_without, 4);
    Commit(plan);
    for (const Event& event : events_) {
      if (event.kind == Kind::kAdmitted && event.sequence != 1000) {
        ASSERT_EQ(event.sequence, ++last_admitted);
      }
      finished |= event.kind == Kind::kFinished && event.sequence == 1000;
    }
  }
  EXPECT_TRUE(finished);
}

// The same for streams when the budget does not suffice for all of them.
TEST_F(SchedulerTest, TakesTurnsWhenStreamsExceedTheBudget) {
  Scheduler scheduler({.max_step_tokens = 8, .max_sequences = 30}, cache_);
  for (int id = 0; id < 30; ++id) {
    ASSERT_OK(scheduler.Add(
        {.id = id, .prompt = std::vector<TokenId>(1), .max_tokens = 50}, now_));
  }
  std::map<SequenceId, int> last_part;
  std::vector<Event> events;
  for (int step = 0; step < 150; ++step) {
    const StepPlan& plan = scheduler.Plan(now_, events);
    sampled_.clear();
    for (const SequenceStep& part : plan.sequences) {
      sampled_.push_back({part.sequence, 7, false});
      const auto found = last_part.find(part.sequence);
      if (found != last_part.end()) {
        ASSERT_LE(step - found->second, 5) << "step " << step;
      }
      last_part[part.sequence] = step;
    }
    ASSERT_EQ(sampled_.size(), plan.logit_rows.size());
    scheduler.Commit(sampled_, events);
  }
  EXPECT_EQ(last_part.size(), 30u);
}

// The same where the long one is prefilled in rounds.
TEST_F(SchedulerTest, StarvesNoRoundsAndNobodyBesideThem) {
  Scheduler scheduler({.max_step_tokens = 128,
                       .max_sequences = 4,
                       .cost_model = SmallCosts(2, /*window=*/100),
                       .max_range_tokens = 128,
                       .replica_pages = 100,
                       .inter_token_deadline = absl::Seconds(1)},
                      cache_);
  const auto add = [&](SequenceId id, int prompt, int max_tokens) {
    ASSERT_OK(scheduler.Add({.id = id,
                             .prompt = std::vector<TokenId>(prompt),
                             .max_tokens = max_tokens},
                            now_));
  };
  add(1000, 6000, 2);
  SequenceId next = 1;
  int steps_without_long = 0;
  int steps_without_short = 0;
  while (scheduler.progress(1000).prefilled_tokens < 6000) {
    while (scheduler.load().waiting < 3) add(next++, 50, 2);
    const StepPlan& plan = scheduler.Plan(now_, events_);
    ++steps_without_long;
    ++steps_without_short;
    for (const SequenceStep& part : plan.sequences) {
      (part.sequence == 1000 ? steps_without_long : steps_without_short) = 0;
    }
    ASSERT_LT(steps_without_long, 8);
    ASSERT_LT(steps_without_short, 2);
    sampled_.clear();
    for (const SequenceStep& part : plan.sequences) {
      const int last_row = part.first_token + part.num_tokens - 1;
      if (std::count(plan.logit_rows.begin(), plan.logit_rows.end(), last_row) >
          0) {
        sampled_.push_back({part.sequence, 7, false});
      }
    }
    scheduler.Commit(sampled_, events_);
  }
  EXPECT_GT(scheduler.counts().rounds, 20);
}

TEST_F(SchedulerTest, PlansOnOneRankAsWithoutCosts) {
  KvCache other_cache(
      {.global_pages_per_rank = 200, .window_pages = 100, .window = 100});
  Scheduler other({.max_step_tokens = 128,
                   .max_sequences = 4,
                   .cost_model = SmallCosts(1, /*window=*/100),
                   .max_range_tokens = 128,
                   .replica_pages = 100,
                   .inter_token_deadline = absl::Nanoseconds(1)},
                  other_cache);
  for (SequenceId id = 1; id < 10; ++id) {
    const int prompt = static_cast<int>(id * id * 31 % 700);
    ASSERT_OK(Add(id, prompt, 20));
    ASSERT_OK(other.Add(
        {.id = id, .prompt = std::vector<TokenId>(prompt), .max_tokens = 20},
        now_));
  }
  std::vector<Event> other_events;
  while (scheduler_.load().running + scheduler_.load().waiting > 0) {
    StepPlan plan = other.Plan(now_, other_events);
    EXPECT_GT(plan.planned_time, absl::ZeroDuration());
    plan.planned_time = absl::ZeroDuration();
    const StepPlan& expected = Plan();
    ASSERT_EQ(plan, expected);
    Commit(expected);
    other.Commit(sampled_, other_events);
  }
  EXPECT_EQ(other.counts().rounds, 0);
  EXPECT_EQ(other.counts().over_deadline, 0);
}

TEST_F(SchedulerTest, AllocatesNothingForATokenInASteadyState) {
  ASSERT_OK(Add(1, 1, 300));
  ASSERT_OK(Add(2, 70, 300));
  for (int i = 0; i < 130; ++i) Step();  // Tables and plan have grown.
  const int before = num_allocations;
  for (int i = 0; i < 50; ++i) Step();
  EXPECT_EQ(num_allocations - before, 0);
}

TEST_F(SchedulerTest, GivesAllPagesBackWithTheScheduler) {
  {
    Scheduler scheduler({}, cache_);
    ASSERT_OK(scheduler.Add(
        {.id = 1, .prompt = std::vector<TokenId>(300), .max_tokens = 1}, now_));
    scheduler.Plan(now_, events_);
    EXPECT_EQ(cache_.global_use().used, 5);
  }
  EXPECT_EQ(cache_.global_use().used, 0);
}

TEST_F(SchedulerTest, ValidatesItsOptions) {
  EXPECT_OK(Scheduler::Options().Validate());
  EXPECT_THAT(Scheduler::Options{.max_step_tokens = 0}.Validate(),
              StatusIs(absl::StatusCode::kInvalidArgument));
  EXPECT_THAT(Scheduler::Options{.max_waiting_tokens = -1}.Validate(),
              StatusIs(absl::StatusCode::kInvalidArgument));
  EXPECT_THAT(Scheduler::Options{.max_range_tokens = 100}.Validate(),
              StatusIs(absl::StatusCode::kInvalidArgument));
  EXPECT_THAT(Scheduler::Options{.replica_pages = -1}.Validate(),
              StatusIs(absl::StatusCode::kInvalidArgument));
}

using SchedulerDeathTest = SchedulerTest;

TEST_F(SchedulerDeathTest, DiesOfAPlanBeforeTheCommit) {
  ASSERT_OK(Add(1, 3, 5));
  Plan();
  EXPECT_DEATH(Plan(), "was not committed");
}

TEST_F(SchedulerDeathTest, DiesOfSamplesThatDoNotMatchTheRows) {
  ASSERT_OK(Add(1, 3, 5));
  Plan();
  EXPECT_DEATH(scheduler_.Commit({}, events_), "logit_rows");
}

}  // namespace
}  // namespace lapidary
