// Runs the stories of this folder: commands to a scheduler and what it answers.
//
//   # A comment tells the story.
//   config pages=8 windows=8 window=100 budget=64
//   ----
//
//   add id=1 prompt=130 max=4
//   ----
//   ok
//
// A command's output stands between its `----` and the next empty line.
//
//   config    pages windows window ranks, budget sequences waiting
//             waiting_tokens; starts anew.  range (tokens of a rank in a
//             round): a group that knows its costs; replica (pages), gap
//             (milliseconds, inter-token deadline)
//   add       id prompt max, priority, deadline (seconds)
//   step [n]  plans, prints and commits n steps (1)
//   plan      plans and prints a step
//   commit    commits it; stop=ID: the token drawn for ID ends it
//   skip n    n steps of which only events are printed
//   run       skips until nothing is left; prints what was emitted
//   cancel    id
//   tick      seconds: time passes
//   status    a line a sequence, then load and pages
//   tables    id: its page tables in the last plan
//
// The model of the stories draws token 1000 * id + n as the n-th output token
// of a sequence; prompt tokens are 0.
//
// A group that knows its costs (testing/small_costs.h) prints rounds with where
// the ranks' ranges end:
//
//   round 3: 1[0+384] to 128 256 384, replica 0, 140 ms
//
// To write the outputs anew: bazel run //tests/schedule:schedule_story_test
// with REWRITE_STORIES set to this folder.

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <map>
#include <memory>
#include <sstream>
#include <string>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "absl/time/time.h"
#include "gtest/gtest.h"
#include "worker/cache/kv_cache.h"
#include "worker/schedule/scheduler.h"
#include "worker/schedule/step_plan.h"
#include "worker/schedule/testing/small_costs.h"

namespace lapidary {
namespace {

using Event = Scheduler::Event;

// A command line: a word, then name=value pairs and plain numbers.
struct Command {
  std::string name;
  std::map<std::string, int> arguments;

  int Get(const std::string& key, int otherwise) const {
    const auto found = arguments.find(key);
    return found == arguments.end() ? otherwise : found->second;
  }
};

Command ParseCommand(const std::string& line) {
  const std::vector<std::string> words =
      absl::StrSplit(line, ' ', absl::SkipEmpty());
  Command command{.name = words.front(), .arguments = {}};
  for (size_t i = 1; i < words.size(); ++i) {
    const std::pair<std::string, std::string> pair =
        absl::StrSplit(words[i], absl::MaxSplits('=', 1));
    const bool named = words[i].find('=') != std::string::npos;
    int value = 0;
    EXPECT_TRUE(absl::SimpleAtoi(named ? pair.second : words[i], &value))
        << line;
    command.arguments[named ? pair.first : "count"] = value;
  }
  return command;
}

std::string FinishName(Scheduler::Finish finish) {
  switch (finish) {
    case Scheduler::Finish::kStop:
      return "stop";
    case Scheduler::Finish::kLength:
      return "length";
    case Scheduler::Finish::kDeadline:
      return "deadline";
  }
  return "";
}

std::string EventText(const Event& event) {
  switch (event.kind) {
    case Event::Kind::kAdmitted:
      return absl::StrCat("admitted ", event.sequence);
    case Event::Kind::kPrefilled:
      return absl::StrCat("prefilled ", event.sequence);
    case Event::Kind::kPreempted:
      return absl::StrCat("preempted ", event.sequence);
    case Event::Kind::kFinished:
      return absl::StrCat("finished ", event.sequence, " ",
                          FinishName(event.finish));
  }
  return "";
}

std::string PagesText(const std::vector<PageId>& pages, int first, int count) {
  std::vector<std::string> texts;
  for (int i = first; i < first + count; ++i) {
    texts.push_back(pages[i] == kNoPage ? "-" : absl::StrCat(pages[i]));
  }
  return absl::StrJoin(texts, " ");
}

// A scheduler that a story drives.
class Stage {
 public:
  std::string Run(const Command& command) {
    out_.clear();
    if (command.name == "config") {
      Config(command);
    } else if (command.name == "add") {
      Add(command);
    } else if (command.name == "step") {
      for (int i = 0; i < command.Get("count", 1); ++i) {
        Plan();
        Commit(command);
      }
    } else if (command.name == "plan") {
      Plan();
    } else if (command.name == "commit") {
      Commit(command);
    } else if (command.name == "skip") {
      Skip(command.Get("count", 1));
    } else if (command.name == "run") {
      RunToTheEnd();
    } else if (command.name == "cancel") {
      scheduler_->Cancel(command.Get("id", 0));
      sequences_.erase(command.Get("id", 0));
    } else if (command.name == "tick") {
      now_ += absl::Seconds(command.Get("seconds", 1));
    } else if (command.name == "status") {
      Status();
    } else if (command.name == "tables") {
      Tables(command);
    } else {
      absl::StrAppend(&out_, "unknown command ", command.name, "\n");
    }
    return out_;
  }

 private:
  struct Known {
    int num_prompt = 0;
    int num_emitted = 0;
  };

  void Config(const Command& command) {
    scheduler_.reset();
    sequences_.clear();
    cache_ = std::make_unique<KvCache>(
        KvCache::Options{.num_ranks = command.Get("ranks", 1),
                         .global_pages_per_rank = command.Get("pages", 100),
                         .window_pages = command.Get("windows", 100),
                         .window = command.Get("window", 100)});
    Scheduler::Options options = {
        .max_step_tokens = command.Get("budget", 128),
        .max_sequences = command.Get("sequences", 64),
        .max_waiting = command.Get("waiting", 1024),
        .max_waiting_tokens = command.Get("waiting_tokens", 1 << 20)};
    knows_costs_ = command.arguments.contains("range");
    if (knows_costs_) {
      options.cost_model =
          SmallCosts(command.Get("ranks", 1), command.Get("window", 100));
      options.max_range_tokens = command.Get("range", 0);
      options.replica_pages = command.Get("replica", 0);
      options.inter_token_deadline =
          absl::Milliseconds(command.Get("gap", 1000));
    }
    scheduler_ = std::make_unique<Scheduler>(options, *cache_);
  }

  void Add(const Command& command) {
    const int id = command.Get("id", 0);
    const int num_prompt = command.Get("prompt", 1);
    const int seconds = command.Get("deadline", 0);
    const absl::Status status = scheduler_->Add(
        {.id = id,
         .prompt = std::vector<TokenId>(num_prompt),
         .max_tokens = command.Get("max", 1),
         .priority = command.Get("priority", 0),
         .deadline = seconds == 0 ? absl::InfiniteFuture()
                                  : now_ + absl::Seconds(seconds)},
        now_);
    if (status.ok()) sequences_[id] = {.num_prompt = num_prompt};
    absl::StrAppend(&out_, status.ok() ? "ok" : status.ToString(), "\n");
  }

  // step 3: 1[130+1]* 2[0+64]
  void Plan() {
    std::vector<Event> events;
    plan_ = &scheduler_->Plan(now_, events);
    Print(events);
    if (plan_->empty()) {
      absl::StrAppend(&out_, "idle\n");
      return;
    }
    const bool is_round = plan_->layout == Layout::kTokenSplit;
    absl::StrAppend(&out_, is_round ? "round " : "step ", plan_->step, ":");
    for (const SequenceStep& step : plan_->sequences) {
      absl::StrAppend(&out_, " ", step.sequence, "[", step.start, "+",
                      step.num_tokens, "]", HasLogits(step) ? "*" : "");
    }
    if (is_round) {
      absl::StrAppend(&out_, " to ", absl::StrJoin(plan_->range_ends, " "),
                      ", replica ",
                      plan_->replica_tokens == kNoReplica
                          ? "-"
                          : absl::StrCat(plan_->replica_tokens));
    }
    if (knows_costs_) {
      absl::StrAppendFormat(&out_, ", %.0f ms",
                            absl::ToDoubleMilliseconds(plan_->planned_time));
    }
    absl::StrAppend(&out_, "\n");
  }

  bool HasLogits(const SequenceStep& step) const {
    return std::binary_search(plan_->logit_rows.begin(),
                              plan_->logit_rows.end(),
                              step.first_token + step.num_tokens - 1);
  }

  void Commit(const Command& command) {
    if (plan_->empty()) return;
    std::vector<Scheduler::Sampled> sampled;
    for (const SequenceStep& step : plan_->sequences) {
      if (!HasLogits(step)) continue;
      const auto id = static_cast<int>(step.sequence);
      Scheduler::Sampled drawn = {
          .sequence = id, .token = 0, .stop = command.Get("stop", 0) == id};
      if (sequences_.contains(id)) {
        drawn.token = 1000 * id + ++sequences_[id].num_emitted;
        emitted_[id].push_back(drawn.token);
      }
      sampled.push_back(drawn);
    }
    std::vector<Event> events;
    scheduler_->Commit(sampled, events);
    Print(events);
  }

  // Returns how many steps there were to run.
  int Skip(int most) {
    std::string events;
    int steps = 0;
    for (; steps < most; ++steps) {
      out_.clear();
      Plan();
      Commit({});
      for (absl::string_view line : absl::StrSplit(out_, '\n')) {
        if (line.substr(0, 2) == "  ") absl::StrAppend(&events, line, "\n");
      }
      if (plan_->empty()) break;
    }
    out_ = events;
    return steps;
  }

  void RunToTheEnd() {
    absl::StrAppend(&out_, Skip(10000), " steps\n");
    for (const auto& [id, tokens] : emitted_) {
      absl::StrAppend(&out_, id, " emitted ", tokens.size(),
                      " tokens: ", tokens.front(), " … ", tokens.back(),
                      IsConsecutive(tokens) ? "\n" : ", NOT CONSECUTIVE\n");
    }
  }

  static bool IsConsecutive(const std::vector<TokenId>& tokens) {
    for (size_t i = 1; i < tokens.size(); ++i) {
      if (tokens[i] != tokens[i - 1] + 1) return false;
    }
    return true;
  }

  void Print(const std::vector<Event>& events) {
    for (const Event& event : events) {
      absl::StrAppend(&out_, "  ", EventText(event), "\n");
      if (event.kind == Event::Kind::kFinished) {
        sequences_.erase(static_cast<int>(event.sequence));
      }
    }
  }

  void Status() {
    for (const auto& [id, known] : sequences_) {
      const Scheduler::Progress progress = scheduler_->progress(id);
      absl::StrAppend(&out_, id, ": ", progress.queued ? "waiting" : "running",
                      ", prefilled ", progress.prefilled_tokens, "/",
                      known.num_prompt, ", emitted ", known.num_emitted, "\n");
    }
    const Scheduler::Load load = scheduler_->load();
    absl::StrAppendFormat(
        &out_, "load: %d running, %d waiting (%d tokens), %d to prefill\n",
        load.running, load.waiting, load.waiting_tokens,
        load.unprefilled_tokens);
    absl::StrAppendFormat(&out_, "pages: global %d/%d, window %d/%d\n",
                          cache_->global_use().used, cache_->global_use().total,
                          cache_->window_use().used,
                          cache_->window_use().total);
    if (!knows_costs_) return;
    absl::StrAppendFormat(&out_, "%d rounds, %d steps over the deadline\n",
                          scheduler_->counts().rounds,
                          scheduler_->counts().over_deadline);
  }

  void Tables(const Command& command) {
    for (const SequenceStep& step : plan_->sequences) {
      if (step.sequence != command.Get("id", 0)) continue;
      absl::StrAppend(&out_, "global ",
                      PagesText(plan_->global_pages, step.first_global_page,
                                step.num_global_pages),
                      "\nwindow from page ", step.window_base, ": ",
                      PagesText(plan_->window_pages, step.first_window_page,
                                step.num_window_pages),
                      "\n");
    }
  }

  std::unique_ptr<KvCache> cache_;
  std::unique_ptr<Scheduler> scheduler_;
  bool knows_costs_ = false;
  absl::Time now_ = absl::UnixEpoch();
  std::map<int, Known> sequences_;  // Live.
  std::map<int, std::vector<TokenId>> emitted_;
  const StepPlan* plan_ = nullptr;
  std::string out_;
};

// The story with the outputs that the scheduler gives today.
std::string Perform(const std::string& story) {
  Stage stage;
  std::string performed;
  bool in_output = false;
  std::string command;
  for (const std::string& line :
       std::vector<std::string>(absl::StrSplit(story, '\n'))) {
    if (in_output) {
      if (line.empty()) in_output = false;
      if (!line.empty()) continue;
    } else if (line == "----") {
      absl::StrAppend(&performed, line, "\n", stage.Run(ParseCommand(command)));
      in_output = true;
      continue;
    } else if (!line.empty() && line[0] != '#') {
      command = line;
    }
    absl::StrAppend(&performed, line, "\n");
  }
  performed.pop_back();  // The story's last line has its own end.
  return performed;
}

std::string Read(const std::filesystem::path& path) {
  std::ifstream file(path);
  std::stringstream text;
  text << file.rdbuf();
  return text.str();
}

std::vector<std::filesystem::path> Stories(const std::string& folder) {
  std::vector<std::filesystem::path> stories;
  for (const auto& entry : std::filesystem::directory_iterator(folder)) {
    if (entry.path().extension() == ".txt") stories.push_back(entry.path());
  }
  std::sort(stories.begin(), stories.end());
  return stories;
}

TEST(ScheduleStoryTest, GoesAsTold) {
  const char* rewrite = std::getenv("REWRITE_STORIES");
  const std::vector<std::filesystem::path> stories =
      Stories(rewrite != nullptr ? rewrite : "tests/schedule");
  EXPECT_GE(stories.size(), 15u);
  for (const std::filesystem::path& path : stories) {
    SCOPED_TRACE(path.filename().string());
    const std::string told = Read(path);
    const std::string performed = Perform(told);
    if (rewrite != nullptr) {
      std::ofstream(path) << performed;
    } else {
      EXPECT_EQ(told, performed);
    }
  }
}

}  // namespace
}  // namespace lapidary
