// The worker program with the recall checkpoint, from token ids to token ids.

#include <signal.h>

#include <filesystem>
#include <map>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "common/grpc_status.h"
#include "common/testing/status_matchers.h"
#include "common/tokens.h"
#include "gmock/gmock.h"
#include "grpcpp/create_channel.h"
#include "gtest/gtest.h"
#include "proto/lapidary/v1/worker.grpc.pb.h"
#include "tests/integration/process.h"

namespace lapidary {
namespace {

using ::testing::HasSubstr;
using Tokens = std::vector<uint32_t>;

// Ids of the small tokenizer.
constexpr uint32_t kBos = 2;
constexpr uint32_t kEndOfTurn = 106;
constexpr uint32_t kNewline = 107;
constexpr uint32_t kFirstWord = 1000;
constexpr uint32_t kLastWord = 8000;

// As much as the model needs to recognise a place.
constexpr int kQuestionTokens = 8;

constexpr absl::Duration kPatience = absl::Seconds(60);

std::string Temporary(const std::string& name) {
  return absl::StrCat(testing::TempDir(), "/", getpid(), "_", name);
}

// A document of random words, a line hidden in it, and the line's beginning as
// the question.
struct RecallPrompt {
  RecallPrompt(int num_tokens, uint32_t seed) {
    std::mt19937 random(seed);
    std::uniform_int_distribution<uint32_t> word(kFirstWord, kLastWord);
    Tokens line(20);
    for (uint32_t& token : line) token = word(random);
    prompt.push_back(kBos);
    for (int i = 0; i < num_tokens; ++i) {
      if (i == num_tokens / 2) {
        prompt.insert(prompt.end(), line.begin(), line.end());
        prompt.push_back(kNewline);
      }
      prompt.push_back(word(random));
    }
    prompt.push_back(kNewline);
    prompt.insert(prompt.end(), line.begin(), line.begin() + kQuestionTokens);
    answer.assign(line.begin() + kQuestionTokens, line.end());
    answer.push_back(kEndOfTurn);
  }

  Tokens prompt;
  Tokens answer;
};

v1::RunRequest ToRequest(const Tokens& prompt, int max_tokens) {
  v1::RunRequest request;
  request.mutable_prompt_token_ids()->Add(prompt.begin(), prompt.end());
  request.set_max_tokens(max_tokens);
  v1::Sampling& sampling = *request.mutable_sampling();
  sampling.set_temperature(0);
  sampling.set_top_k(0);
  sampling.set_top_p(1);
  sampling.set_min_p(0);
  sampling.set_repetition_penalty(1);
  sampling.set_presence_penalty(0);
  sampling.set_frequency_penalty(0);
  sampling.set_seed(1);
  return request;
}

// One Run().
class Call {
 public:
  Call(v1::Worker::Stub& stub, const v1::RunRequest& request)
      : stream_(stub.Run(&context_, request)) {}

  bool Read() {
    v1::RunResponse message;
    if (!stream_->Read(&message)) return false;
    const auto& ids = message.tokens().token_ids();
    tokens_.insert(tokens_.end(), ids.begin(), ids.end());
    return true;
  }

  absl::Status Finish() {
    while (Read()) {
    }
    return FromGrpcStatus(stream_->Finish());
  }

  const Tokens& tokens() const { return tokens_; }

 private:
  grpc::ClientContext context_;
  std::unique_ptr<grpc::ClientReader<v1::RunResponse>> stream_;
  Tokens tokens_;
};

class WorkerProcessTest : public ::testing::Test {
 protected:
  static void SetUpTestSuite() {
    const auto maker = Process::Start(
        {"tools/make_checkpoint", "--recall", "--tokenizer",
         "tests/testdata/tokenizer/mini/tokenizer.json", "--output", Model()},
        Temporary("make_checkpoint.log"));
    ASSERT_EQ(maker->Wait(kPatience), 0) << maker->Output();
  }

  static std::string Model() { return Temporary("recall"); }

  // Runs the worker; later flags win.
  static std::unique_ptr<Process> StartWorker(
      const std::vector<std::string>& flags, const std::string& log) {
    std::vector<std::string> arguments = {
        "worker/worker_main", "--model",     Model(), "--image-dir",
        Temporary("images"),  "--kv-memory", "256MiB"};
    arguments.insert(arguments.end(), flags.begin(), flags.end());
    return Process::Start(arguments, Temporary(log));
  }

  // Runs the worker and waits until it serves.
  void Serve(std::vector<std::string> flags = {}) {
    const std::string ports = Temporary("ports");
    std::filesystem::remove(ports);
    flags.insert(flags.end(), {"--port-file", ports});
    worker_ = StartWorker(flags, "worker.log");
    const absl::Time deadline = absl::Now() + kPatience;
    while (!std::filesystem::exists(ports)) {
      ASSERT_LT(absl::Now(), deadline) << worker_->Output();
      ASSERT_EQ(worker_->Wait(absl::Milliseconds(20)), std::nullopt)
          << worker_->Output();
    }
    for (const auto line : absl::StrSplit(FileText(ports), '\n')) {
      const std::pair<std::string, std::string> words =
          absl::StrSplit(line, absl::MaxSplits(' ', 1));
      addresses_[words.first] = words.second;
    }
    stub_ = v1::Worker::NewStub(grpc::CreateChannel(
        addresses_["rpc"], grpc::InsecureChannelCredentials()));
  }

  void ExpectRecall(const RecallPrompt& example) {
    v1::RunRequest request = ToRequest(example.prompt, 100);
    request.add_stop_token_ids(kEndOfTurn);
    Call call(*stub_, request);
    EXPECT_OK(call.Finish());
    EXPECT_EQ(call.tokens(), example.answer);
  }

  std::unique_ptr<Process> worker_;
  std::map<std::string, std::string> addresses_;  // "rpc", "metrics".
  std::unique_ptr<v1::Worker::Stub> stub_;
};

TEST_F(WorkerProcessTest, FindsALineInALongContext) {
  Serve();
  for (const int num_tokens : {100, 1000, 16'000}) {
    SCOPED_TRACE(num_tokens);
    ExpectRecall(RecallPrompt(num_tokens, /*seed=*/num_tokens));
  }
}

TEST_F(WorkerProcessTest, FindsItInFp32AsWell) {
  Serve({"--compute", "fp32"});
  ExpectRecall(RecallPrompt(1000, /*seed=*/1));
}

TEST_F(WorkerProcessTest, ServesManyAtOnceFromLittleMemory) {
  // Four of these contexts do not fit together: some are preempted or wait.
  Serve({"--kv-memory", "2600KiB", "--max-sequences", "4"});
  std::vector<RecallPrompt> examples;
  std::vector<std::unique_ptr<Call>> calls;
  for (int i = 0; i < 8; ++i) {
    v1::RunRequest request =
        ToRequest(examples.emplace_back(2000, /*seed=*/i).prompt, 100);
    request.add_stop_token_ids(kEndOfTurn);
    calls.push_back(std::make_unique<Call>(*stub_, request));
  }
  for (int i = 0; i < 8; ++i) {
    EXPECT_OK(calls[i]->Finish());
    EXPECT_EQ(calls[i]->tokens(), examples[i].answer) << i;
  }
}

TEST_F(WorkerProcessTest, FinishesWhatRunsWhenItIsTerminated) {
  Serve();
  Call call(*stub_, ToRequest(RecallPrompt(100, 1).prompt, 300));
  while (call.tokens().empty()) ASSERT_TRUE(call.Read());
  worker_->Signal(SIGTERM);
  EXPECT_OK(call.Finish());
  EXPECT_EQ(call.tokens().size(), 300u);
  EXPECT_EQ(worker_->Wait(kPatience), 0) << worker_->Output();
}

TEST_F(WorkerProcessTest, ASecondSignalCancelsWhatRuns) {
  Serve({"--drain-timeout", "1h"});
  Call call(*stub_, ToRequest(RecallPrompt(100, 1).prompt, 200'000));
  while (call.tokens().empty()) ASSERT_TRUE(call.Read());
  worker_->Signal(SIGTERM);
  // Signals that wait together are one: the first has to be seen.
  while (worker_->Output().find("draining") == std::string::npos) {
    ASSERT_TRUE(call.Read());
  }
  worker_->Signal(SIGTERM);
  EXPECT_THAT(call.Finish(), StatusIs(absl::StatusCode::kUnavailable));
  EXPECT_EQ(worker_->Wait(kPatience), 0) << worker_->Output();
}

TEST_F(WorkerProcessTest, ExitsOnceItIsDrained) {
  Serve();
  grpc::ClientContext context;
  v1::DrainResponse response;
  ASSERT_TRUE(stub_->Drain(&context, {}, &response).ok());
  EXPECT_EQ(worker_->Wait(kPatience), 0) << worker_->Output();
}

TEST_F(WorkerProcessTest, SaysWhatItFoundAndPlanned) {
  Serve();
  const std::string log = worker_->Output();
  for (const char* what :
       {"model ", "available", "gemma4_unified: 6 layers", "weights: ",
        "plan: ", "tokens of context", "digests: ", "peak resident memory",
        "rpc at 127.0.0.1:", "metrics at http://127.0.0.1:"}) {
    EXPECT_THAT(log, HasSubstr(what));
  }
}

TEST_F(WorkerProcessTest, APortInUseIsOneClearLine) {
  Serve();
  for (const std::string flag : {"rpc", "metrics"}) {
    const auto second = StartWorker(
        {flag == "rpc" ? "--listen" : "--metrics-listen", addresses_[flag]},
        "second.log");
    EXPECT_EQ(second->Wait(kPatience), 1);
    EXPECT_THAT(second->Output(),
                HasSubstr(absl::StrCat("worker_main: cannot listen on ",
                                       addresses_[flag])));
  }
}

TEST_F(WorkerProcessTest, SaysHowMuchMemoryItLacks) {
  const auto worker = StartWorker({"--kv-memory", "4000GiB"}, "memory.log");
  EXPECT_EQ(worker->Wait(kPatience), 1);
  EXPECT_THAT(worker->Output(), HasSubstr("worker_main: "));
  EXPECT_THAT(worker->Output(), HasSubstr("3.91 TiB"));
}

TEST_F(WorkerProcessTest, RefusesWrongFlagsByName) {
  const std::map<std::string, std::vector<std::string>> cases = {
      {"--compute", {"--compute", "fp16"}},
      {"--kv-memory", {"--kv-memory", "much"}},
      {"--max-sequences", {"--max-sequences", "0"}},
      {"sse9", {"--isa", "sse9"}},
      {"/nowhere/config.json", {"--model", "/nowhere"}},
  };
  for (const auto& [what, flags] : cases) {
    const auto worker = StartWorker(flags, "flags.log");
    EXPECT_EQ(worker->Wait(kPatience), 1) << what;
    EXPECT_THAT(worker->Output(), HasSubstr("worker_main: "));
    EXPECT_THAT(worker->Output(), HasSubstr(what));
  }
}

}  // namespace
}  // namespace lapidary
