#include "worker/engine/engine.h"

#include <memory>
#include <numeric>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "common/metrics.h"
#include "common/mutex.h"
#include "common/testing/fake_clock.h"
#include "common/testing/status_matchers.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "worker/engine/testing/scripted_model.h"

namespace lapidary {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::SizeIs;

using Finish = Scheduler::Finish;

constexpr int kVocabSize = 1000;
constexpr int kStepTokens = 128;
constexpr int kUnlimited = 1 << 30;

// Reads a request's outbox.
class Reader {
 public:
  explicit Reader(int max_tokens)
      : outbox_(std::make_shared<Outbox>(max_tokens, [this] {
          MutexLock lock(mutex_);
          notified_ = true;
          changed_.SignalAll();
        })) {}

  const std::shared_ptr<Outbox>& outbox() const { return outbox_; }
  const std::vector<TokenId>& tokens() const { return tokens_; }
  const std::vector<Scheduler::Progress>& progress() const { return progress_; }

  // Waits for news and takes them.  False at the end.
  bool Read() {
    {
      MutexLock lock(mutex_);
      while (!notified_) changed_.Wait(mutex_);
      notified_ = false;
    }
    Outbox::Contents contents = outbox_->Take(kUnlimited);
    if (contents.progress.has_value()) progress_.push_back(*contents.progress);
    for (const SampledToken& token : contents.tokens) {
      tokens_.push_back(token.token);
    }
    finished_ = std::move(contents.finished);
    return !finished_.has_value();
  }

  // Reads to the end.
  const Outbox::Finished& Finish() {
    while (!finished_.has_value()) Read();
    return *finished_;
  }

 private:
  Mutex mutex_;
  CondVar changed_;
  bool notified_ ABSL_GUARDED_BY(mutex_) = false;
  const std::shared_ptr<Outbox> outbox_;
  std::vector<TokenId> tokens_;
  std::vector<Scheduler::Progress> progress_;
  std::optional<Outbox::Finished> finished_;
};

// Tokens first, first + 1, …
std::vector<TokenId> Count(TokenId first, int num_tokens) {
  std::vector<TokenId> tokens(num_tokens);
  std::iota(tokens.begin(), tokens.end(), first);
  return tokens;
}

class EngineTest : public ::testing::Test {
 protected:
  EngineTest() : metrics_(registry_), group_metrics_(registry_) {
    options_.scheduler = {.max_step_tokens = kStepTokens,
                          .max_sequences = 8,
                          .max_waiting = 4,
                          .max_waiting_tokens = 10'000};
    options_.cache = {.num_ranks = 1,
                      .global_pages_per_rank = 100,
                      .window_pages = 50,
                      .window = 100};
    options_.vocab_size = kVocabSize;
  }

  ~EngineTest() override { model_.Open(); }

  // Starts the engine on first use.
  Engine& engine() {
    if (engine_ == nullptr) {
      engine_ = std::make_unique<Engine>(
          options_, model_.run_step(), clock_,
          Engine::Outlets{.metrics = metrics_,
                          .group_metrics = group_metrics_,
                          .board = board_},
          [this] { ++num_stopped_; });
    }
    return *engine_;
  }

  static EngineRequest Request(std::vector<TokenId> prompt, int max_tokens) {
    EngineRequest request;
    request.id = "test";
    request.prompt = std::move(prompt);
    request.sampling.temperature = 0;
    request.max_tokens = max_tokens;
    return request;
  }

  // Submits `request`.  Its reader lives as long as the engine.
  Reader* Start(EngineRequest request) {
    Reader* reader = NewReader(request.max_tokens);
    EXPECT_OK(engine().Submit(std::move(request), reader->outbox()));
    return reader;
  }

  Reader* NewReader(int max_tokens) {
    return readers_.emplace_back(std::make_unique<Reader>(max_tokens)).get();
  }

  // Of a request that is refused.
  absl::Status Refusal(EngineRequest request) {
    const int max_tokens = request.max_tokens;
    return engine().Submit(std::move(request), NewReader(max_tokens)->outbox());
  }

  Engine::Options options_;
  ScriptedModel model_{kVocabSize};
  FakeClock clock_;
  Metrics registry_;
  WorkerMetrics metrics_;
  GroupMetrics group_metrics_;
  StateBoard board_;
  int num_stopped_ = 0;
  std::vector<std::unique_ptr<Reader>> readers_;
  std::unique_ptr<Engine> engine_;
};

TEST_F(EngineTest, GeneratesAsManyTokensAsAskedFor) {
  Reader* const reader = Start(Request({5, 6, 7}, 4));
  const Outbox::Finished& finished = reader->Finish();
  EXPECT_OK(finished.status);
  EXPECT_EQ(finished.reason, Finish::kLength);
  EXPECT_THAT(reader->tokens(), ElementsAre(8, 9, 10, 11));
}

TEST_F(EngineTest, SendsTheStopTokenAndEnds) {
  EngineRequest request = Request({5}, 100);
  request.stop_tokens = {9, 8};
  Reader* const reader = Start(std::move(request));
  EXPECT_EQ(reader->Finish().reason, Finish::kStop);
  EXPECT_THAT(reader->tokens(), ElementsAre(6, 7, 8));
}

TEST_F(EngineTest, ServesRequestsSideBySide) {
  std::vector<Reader*> readers;
  model_.Hold();
  for (int i = 0; i < 4; ++i) {
    readers.push_back(Start(Request(Count(100 * i, 300), 50)));
  }
  model_.Open();
  for (int i = 0; i < 4; ++i) {
    readers[i]->Finish();
    EXPECT_EQ(readers[i]->tokens(), Count(100 * i + 300, 50));
  }
}

TEST_F(EngineTest, ReportsTheProgressOfAPrefill) {
  model_.Hold();
  Reader* const reader = Start(Request(Count(0, 3 * kStepTokens), 1));
  model_.AwaitHeldStep();
  ASSERT_TRUE(reader->Read());
  EXPECT_FALSE(reader->progress().back().queued);
  EXPECT_EQ(reader->progress().back().prefilled_tokens, 0);
  model_.Allow(1);
  while (reader->progress().back().prefilled_tokens == 0) {
    ASSERT_TRUE(reader->Read());
  }
  EXPECT_EQ(reader->progress().back().prefilled_tokens, kStepTokens);
}

TEST_F(EngineTest, ReportsThatARequestIsQueued) {
  options_.scheduler.max_sequences = 1;
  model_.Hold();
  Start(Request({5}, 100));
  model_.AwaitHeldStep();
  Reader* const second = Start(Request({5}, 1));
  model_.Allow(1);
  ASSERT_TRUE(second->Read());
  EXPECT_TRUE(second->progress().back().queued);
}

TEST_F(EngineTest, CancelsInTheMiddleOfAPrefill) {
  model_.Hold();
  Reader* const reader = Start(Request(Count(0, 3 * kStepTokens), 10));
  model_.Allow(1);
  model_.AwaitHeldStep();
  reader->outbox()->Cancel();
  model_.Open();
  EXPECT_THAT(reader->Finish().status, StatusIs(absl::StatusCode::kCancelled));
  EXPECT_THAT(reader->tokens(), IsEmpty());
  // Nothing of it is left.
  EXPECT_EQ(Start(Request({5}, 1))->Finish().reason, Finish::kLength);
  EXPECT_LT(model_.num_tokens(), 3 * kStepTokens);
  engine().Drain();
  EXPECT_OK(engine().Join());
  EXPECT_EQ(board_.state().global_pages.used, 0);
}

TEST_F(EngineTest, EndsARequestAtItsDeadline) {
  model_.Hold();
  EngineRequest request = Request({5}, 1000);
  request.deadline = clock_.Now() + absl::Seconds(10);
  Reader* const reader = Start(std::move(request));
  model_.Allow(2);
  while (reader->tokens().size() < 2) ASSERT_TRUE(reader->Read());
  clock_.Advance(absl::Seconds(10));
  model_.Open();
  EXPECT_THAT(reader->Finish().status,
              StatusIs(absl::StatusCode::kDeadlineExceeded,
                       HasSubstr("of at most 1000 output tokens")));
}

TEST_F(EngineTest, ASlowReaderHoldsNobodyUp) {
  Reader* const slow = Start(Request({5}, 500));
  Reader* const other = Start(Request({5}, 500));
  other->Finish();
  EXPECT_THAT(other->tokens(), SizeIs(500));
  slow->Finish();
  EXPECT_THAT(slow->tokens(), SizeIs(500));
}

TEST_F(EngineTest, AFailedStepEndsAllRequestsAndTheEngine) {
  model_.Hold();
  Reader* const first = Start(Request({5}, 500));
  Reader* const second = Start(Request({5}, 500));
  model_.Break(absl::InternalError("device on fire"));
  model_.Open();
  for (Reader* reader : {first, second}) {
    EXPECT_THAT(
        reader->Finish().status,
        StatusIs(absl::StatusCode::kUnavailable, HasSubstr("device on fire")));
  }
  EXPECT_THAT(engine().Join(), StatusIs(absl::StatusCode::kInternal));
  EXPECT_EQ(num_stopped_, 1);
  EXPECT_THAT(Refusal(Request({5}, 1)),
              StatusIs(absl::StatusCode::kUnavailable));
}

TEST_F(EngineTest, DrainFinishesWhatRuns) {
  model_.Hold();
  Reader* const reader = Start(Request({5}, 20));
  model_.AwaitHeldStep();
  engine().Drain();
  EXPECT_TRUE(board_.state().draining);
  EXPECT_THAT(Refusal(Request({5}, 1)),
              StatusIs(absl::StatusCode::kUnavailable));
  model_.Open();
  EXPECT_OK(reader->Finish().status);
  EXPECT_THAT(reader->tokens(), SizeIs(20));
  EXPECT_OK(engine().Join());
  EXPECT_EQ(num_stopped_, 1);
}

TEST_F(EngineTest, AbortEndsWhatRuns) {
  model_.Hold();
  Reader* const reader = Start(Request({5}, 500));
  model_.AwaitHeldStep();
  engine().Abort();
  model_.Open();
  EXPECT_THAT(reader->Finish().status,
              StatusIs(absl::StatusCode::kUnavailable));
  EXPECT_OK(engine().Join());
}

TEST_F(EngineTest, RefusesMoreThanItsQueueHolds) {
  model_.Hold();
  Start(Request({5}, 1));
  model_.AwaitHeldStep();
  for (int i = 0; i < options_.scheduler.max_waiting; ++i) {
    Start(Request({5}, 1));
  }
  EXPECT_THAT(
      Refusal(Request({5}, 1)),
      StatusIs(absl::StatusCode::kResourceExhausted, HasSubstr("queue")));
}

TEST_F(EngineTest, RefusesMoreTokensThanItsQueueHolds) {
  model_.Hold();
  Start(Request({5}, 1));
  model_.AwaitHeldStep();
  Start(Request(std::vector<TokenId>(9'000, 1), 1));
  EXPECT_THAT(Refusal(Request(std::vector<TokenId>(2'000, 1), 1)),
              StatusIs(absl::StatusCode::kResourceExhausted,
                       HasSubstr("2000 prompt tokens")));
}

TEST_F(EngineTest, TellsARequestThatItCanNeverFit) {
  Reader* const reader = Start(Request(Count(0, 100), 100 * kPageTokens));
  EXPECT_THAT(reader->Finish().status,
              StatusIs(absl::StatusCode::kFailedPrecondition));
  EXPECT_EQ(metrics_.finished_cannot_fit.Value(), 1);
}

TEST_F(EngineTest, PreemptsAndGoesOnWithoutRepeating) {
  options_.cache.global_pages_per_rank = 8;
  model_.Hold();
  Reader* const first = Start(Request(Count(0, 100), 300));
  Reader* const second = Start(Request(Count(500, 100), 300));
  model_.Open();
  EXPECT_OK(first->Finish().status);
  EXPECT_OK(second->Finish().status);
  EXPECT_EQ(first->tokens(), Count(100, 300));
  EXPECT_EQ(second->tokens(), Count(600, 300));
  EXPECT_GT(metrics_.preemptions.Value(), 0);
}

TEST_F(EngineTest, CountsOutputOfAnEarlierRunForPenalties) {
  // The scripted model says 8 after 7; the penalty forbids it, as the output
  // had an 8 before.
  EngineRequest request = Request({8, 7}, 1);
  request.sampling.presence_penalty = 100;
  request.resumed_output_tokens = 2;
  Reader* const reader = Start(std::move(request));
  reader->Finish();
  EXPECT_THAT(reader->tokens(), ElementsAre(0));
}

TEST_F(EngineTest, ServesManyThreadsThatComeAndGo) {
  constexpr int kThreads = 4;
  constexpr int kRequests = 40;  // A thread.
  options_.scheduler.max_waiting = kThreads;
  options_.cache.global_pages_per_rank = 16;
  engine();
  // They live as long as the engine runs.
  std::vector<std::vector<std::unique_ptr<Reader>>> readers(kThreads);
  std::vector<std::thread> threads;
  for (int thread = 0; thread < kThreads; ++thread) {
    threads.emplace_back([this, thread, &mine = readers[thread]] {
      for (int i = 0; i < kRequests; ++i) {
        const int prompt_tokens = 1 + (i * 37 + thread * 11) % 300;
        Reader& reader = *mine.emplace_back(std::make_unique<Reader>(50));
        ASSERT_OK(engine().Submit(Request(Count(0, prompt_tokens), 50),
                                  reader.outbox()));
        const bool leaves_early = i % 3 == 0;
        if (leaves_early) {
          reader.Read();
          reader.outbox()->Cancel();
        }
        const absl::Status status = reader.Finish().status;
        if (leaves_early && absl::IsCancelled(status)) continue;
        EXPECT_OK(status);
        EXPECT_EQ(reader.tokens(), Count(prompt_tokens, 50));
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  engine().Drain();
  EXPECT_OK(engine().Join());
  EXPECT_EQ(board_.state().global_pages.used, 0);
  EXPECT_EQ(board_.state().window_pages.used, 0);
}

TEST_F(EngineTest, CountsWhatItDoes) {
  Reader* const reader = Start(Request(Count(0, 200), 10));
  reader->Finish();
  engine().Drain();
  EXPECT_OK(engine().Join());
  EXPECT_EQ(metrics_.prefill_tokens.Value(), 200);
  EXPECT_EQ(metrics_.decode_tokens.Value(), 9);
  EXPECT_EQ(metrics_.finished_length.Value(), 1);
  EXPECT_EQ(metrics_.running_requests.Value(), 0);
  EXPECT_EQ(metrics_.global_pages.free.Value(), 100);
}

}  // namespace
}  // namespace lapidary
