// Runs the stories in tests/router/*.txt: commands to a RouterCore, and what it
// decides.
//
//   # A comment tells the story.
//   submit 1 prompt=1000
//   ----
//   start 1 at a:1, max_tokens=3096
//
// A block is commands, a line "----", and the output up to a blank line.  With
// REWRITE_STORIES set to a folder, the stories are written there as they should
// read.

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <map>
#include <memory>
#include <sstream>
#include <string>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "absl/time/time.h"
#include "gtest/gtest.h"
#include "router/core/router_core.h"

namespace lapidary {
namespace {

constexpr absl::Duration kTick = absl::Milliseconds(100);

// A command's line: a name, words, and key=value pairs.
struct Command {
  explicit Command(const std::string& line) {
    for (const absl::string_view part :
         absl::StrSplit(line, ' ', absl::SkipEmpty())) {
      const std::pair<std::string, std::string> pair =
          absl::StrSplit(part, absl::MaxSplits('=', 1));
      if (absl::StrContains(part, "=")) {
        values[pair.first] = pair.second;
      } else {
        words.emplace_back(part);
      }
    }
    name = words.at(0);
    words.erase(words.begin());
  }

  int64_t Int(const std::string& key, int64_t fallback) const {
    int64_t value = fallback;
    if (values.count(key)) {
      EXPECT_TRUE(absl::SimpleAtoi(values.at(key), &value)) << key;
    }
    return value;
  }

  std::string String(const std::string& key, std::string fallback) const {
    return values.count(key) ? values.at(key) : fallback;
  }

  static absl::Duration ToDuration(const std::string& text) {
    absl::Duration duration;
    EXPECT_TRUE(absl::ParseDuration(text, &duration)) << text;
    return duration;
  }

  std::string name;
  std::vector<std::string> words;
  std::map<std::string, std::string> values;
};

// A core and its shell, played by the commands.
class Stage {
 public:
  // Runs one command and returns what it prints.
  std::string Run(const std::string& line) {
    const Command command(line);
    output_.clear();
    actions_ = {};
    if (command.name == "router") {
      StartRouter(command);
    } else if (command.name == "wait") {
      Wait(Command::ToDuration(command.words.at(0)));
    } else if (command.name == "status") {
      PrintStatus();
    } else if (!RunRequestCommand(command) && !RunGroupCommand(command)) {
      ADD_FAILURE() << "unknown command: " << line;
    }
    PrintActions();
    return output_;
  }

 private:
  void StartRouter(const Command& command) {
    RouterCore::Options options;
    options.registry.addresses = command.words;
    options.registry.config_digest = "c1";
    options.registry.tokenizer_digest = "t1";
    options.admission.max_queued_tokens =
        command.Int("max-queued-tokens", options.admission.max_queued_tokens);
    options.admission.max_waiting_requests = static_cast<int>(
        command.Int("max-waiting", options.admission.max_waiting_requests));
    core_ = std::make_unique<RouterCore>(options, now_);
    attempts_.assign(command.words.size(), 0);
    core_->Tick(now_, actions_);
  }

  void Wait(absl::Duration duration) {
    for (absl::Duration d = kTick; d <= duration; d += kTick) {
      now_ += kTick;
      core_->Tick(now_, actions_);
      PrintActions();
    }
  }

  bool RunRequestCommand(const Command& command) {
    if (command.name == "drain") {
      core_->Drain();
      return true;
    }
    if (command.name == "submit") {
      Submit(command);
      return true;
    }
    if (command.words.empty()) return false;
    RequestKey key = 0;
    if (!absl::SimpleAtoi(command.words[0], &key)) return false;
    if (command.name == "prefilled") {
      core_->OnPrefilled(key, static_cast<int>(command.Int("tokens", 0)));
    } else if (command.name == "first-token") {
      core_->OnFirstToken(key);
    } else if (command.name == "run-lost") {
      core_->OnRunLost(key, absl::UnavailableError("connection reset"), now_,
                       actions_);
    } else if (command.name == "run-refused") {
      core_->OnRunRefused(
          key, absl::ResourceExhaustedError("the queue is full"),
          Command::ToDuration(command.String("retry", "1s")), actions_);
    } else if (command.name == "done") {
      core_->Remove(key);
    } else {
      return false;
    }
    return true;
  }

  void Submit(const Command& command) {
    RouterCore::NewRequest request;
    EXPECT_TRUE(absl::SimpleAtoi(command.words.at(0), &request.key));
    request.prompt_tokens = static_cast<int>(command.Int("prompt", 100));
    request.max_tokens = static_cast<int>(command.Int("max", 0));
    request.priority = static_cast<int>(command.Int("priority", 0));
    if (command.values.count("deadline")) {
      request.deadline =
          now_ + Command::ToDuration(command.values.at("deadline"));
    }
    core_->Submit(request, now_, actions_);
  }

  bool RunGroupCommand(const Command& command) {
    const GroupId id = FindGroup(command.words.at(0));
    const uint64_t attempt = attempts_[id];
    if (command.name == "described") {
      core_->OnDescribed(id, attempt, Description(command), now_, actions_);
    } else if (command.name == "unreachable") {
      core_->OnDescribed(id, attempt,
                         absl::UnavailableError("connection refused"), now_,
                         actions_);
    } else if (command.name == "news") {
      core_->OnLoad(id, attempt, Load(command), now_, actions_);
    } else if (command.name == "watch-ended") {
      core_->OnWatchEnded(id, attempt, absl::UnavailableError("broken pipe"),
                          now_, actions_);
    } else {
      return false;
    }
    return true;
  }

  static GroupDescription Description(const Command& command) {
    GroupDescription description;
    description.protocol_version = static_cast<int>(command.Int("protocol", 1));
    description.epoch = static_cast<uint64_t>(command.Int("epoch", 1));
    description.config_digest = command.String("config", "c1");
    description.tokenizer_digest = command.String("tokenizer", "t1");
    description.max_context_tokens =
        static_cast<int>(command.Int("context", 8192));
    return description;
  }

  static GroupLoad Load(const Command& command) {
    GroupLoad load;
    load.draining = command.Int("draining", 0) != 0;
    load.queued_tokens = command.Int("queued", 0);
    load.running_requests = static_cast<int>(command.Int("running", 0));
    load.prefill_tokens_per_second =
        static_cast<double>(command.Int("rate", 0));
    return load;
  }

  GroupId FindGroup(const std::string& address) const {
    for (const Group& group : core_->groups()) {
      if (group.address == address) return group.id;
    }
    ADD_FAILURE() << "no group " << address;
    return 0;
  }

  void PrintStatus() {
    for (const Group& group : core_->groups()) {
      absl::StrAppend(&output_, group.address, " ", GroupStateName(group.state),
                      " queued=", group.queued_tokens());
      if (!group.reason.empty())
        absl::StrAppend(&output_, " (", group.reason, ")");
      absl::StrAppend(&output_, "\n");
    }
    const RouterCore::Load load = core_->load();
    absl::StrAppend(&output_, "running ", load.running_requests, ", waiting ",
                    load.backlog.waiting_requests, " with ",
                    load.backlog.waiting_tokens, " tokens\n");
  }

  void PrintActions() {
    static constexpr const char* kNames[] = {"describe", "watch", "stop-watch",
                                             "gone"};
    const std::string time =
        absl::FormatDuration(now_ - absl::UnixEpoch()) + " ";
    for (const Registry::Action& action : actions_.groups) {
      if (action.kind == Registry::Action::Kind::kDescribe)
        attempts_[action.group] = action.attempt;
      absl::StrAppend(&output_, time, kNames[static_cast<int>(action.kind)],
                      " ", core_->groups()[action.group].address, "\n");
    }
    for (const RouterCore::Start& start : actions_.starts) {
      absl::StrAppend(&output_, time, "start ", start.request, " at ",
                      core_->groups()[start.group].address,
                      " max_tokens=", start.max_tokens, "\n");
    }
    for (const RouterCore::Failure& failure : actions_.failures) {
      absl::StrAppend(&output_, time, "fail ", failure.request, " ",
                      RefusalCauseName(failure.refusal.cause), ": ",
                      failure.refusal.status.ToString());
      if (failure.refusal.retry_after.has_value()) {
        absl::StrAppend(&output_, "; retry after ",
                        absl::FormatDuration(*failure.refusal.retry_after));
      }
      absl::StrAppend(&output_, "\n");
    }
    actions_ = {};
  }

  absl::Time now_ = absl::UnixEpoch();
  std::unique_ptr<RouterCore> core_;
  std::vector<uint64_t> attempts_;  // By group.
  RouterCore::Actions actions_;
  std::string output_;
};

// The story of `text` as it should read.
std::string Play(const std::string& text) {
  Stage stage;
  std::string played;
  std::string block_output;
  bool in_output = false;
  const std::vector<std::string> lines = absl::StrSplit(text, '\n');
  for (const std::string& line : lines) {
    if (in_output) {
      if (!line.empty()) continue;
      in_output = false;
    } else if (line == "----") {
      absl::StrAppend(&played, "----\n",
                      block_output.empty() ? "ok\n" : block_output);
      block_output.clear();
      in_output = true;
      continue;
    } else if (!line.empty() && line[0] != '#') {
      absl::StrAppend(&block_output, stage.Run(line));
    }
    absl::StrAppend(&played, line, "\n");
  }
  return std::string(absl::StripSuffix(played, "\n"));
}

TEST(RouterStories, ReadAsTheCoreDecides) {
  const char* rewrite = std::getenv("REWRITE_STORIES");
  int num_stories = 0;
  for (const auto& entry :
       std::filesystem::directory_iterator("tests/router")) {
    if (entry.path().extension() != ".txt") continue;
    ++num_stories;
    std::stringstream text;
    text << std::ifstream(entry.path()).rdbuf();
    SCOPED_TRACE(entry.path().string());
    const std::string played = Play(text.str());
    if (rewrite != nullptr) {
      std::ofstream(std::filesystem::path(rewrite) / entry.path().filename())
          << played;
    } else {
      EXPECT_EQ(played, text.str());
    }
  }
  EXPECT_GT(num_stories, 0);
}

}  // namespace
}  // namespace lapidary
