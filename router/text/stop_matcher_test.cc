#include "router/text/stop_matcher.h"

#include <algorithm>
#include <random>
#include <string>
#include <vector>

#include "gtest/gtest.h"

namespace lapidary {
namespace {

using Output = StopMatcher::Output;

StopMatcher Matcher(const std::vector<std::string>& stops) {
  return StopMatcher(stops);
}

TEST(StopMatcherTest, HoldsBackOnlyWhatMayBecomeAStopString) {
  StopMatcher matcher = Matcher({"\n\nUser:"});
  EXPECT_EQ(matcher.Push("Yes.\n").text, "Yes.");
  EXPECT_EQ(matcher.Push("\nUs").text, "");
  EXPECT_EQ(matcher.Push("e it.").text, "\n\nUse it.");
  EXPECT_EQ(matcher.Flush(), "");
}

TEST(StopMatcherTest, EndsBeforeAStopStringAcrossPieces) {
  StopMatcher matcher = Matcher({"zzz", "STOP"});
  EXPECT_EQ(matcher.Push("go ST").text, "go ");
  const Output output = matcher.Push("OP and more");
  EXPECT_EQ(output.text, "");
  EXPECT_EQ(output.stop, 1);
  EXPECT_EQ(matcher.Push("dropped").text, "");
  EXPECT_EQ(matcher.Flush(), "");
}

TEST(StopMatcherTest, FlushGivesWhatBecameNoStopString) {
  StopMatcher matcher = Matcher({"STOP"});
  EXPECT_EQ(matcher.Push("never STO").text, "never ");
  EXPECT_EQ(matcher.Flush(), "STO");
}

TEST(StopMatcherTest, TheStringThatEndsFirstWins) {
  StopMatcher matcher = Matcher({"bcde", "cd"});
  const Output output = matcher.Push("abcdef");
  EXPECT_EQ(output.text, "ab");
  EXPECT_EQ(output.stop, 1);
}

TEST(StopMatcherTest, OfTwoThatEndTogetherTheLongerWins) {
  StopMatcher matcher = Matcher({"c", "bc", "abc"});
  const Output output = matcher.Push("xxabc");
  EXPECT_EQ(output.text, "xx");
  EXPECT_EQ(output.stop, 2);
}

TEST(StopMatcherTest, OfTwoAlikeTheFirstWins) {
  EXPECT_EQ(Matcher({"ab", "ab"}).Push("ab").stop, 0);
}

TEST(StopMatcherTest, PassesEverythingWithoutStopStrings) {
  StopMatcher matcher = Matcher({});
  EXPECT_EQ(matcher.Push("all of it").text, "all of it");
}

// Against a search in the whole text, for random texts of two letters, cut at
// random.
TEST(StopMatcherTest, EqualsASearchInTheWholeText) {
  std::mt19937 random(1);
  const auto word = [&](int max_length) {
    std::string text(1 + random() % max_length, 'a');
    for (char& c : text) c += random() % 2;
    return text;
  };
  for (int round = 0; round < 20000; ++round) {
    std::vector<std::string> stops(1 + random() % 4);
    for (std::string& stop : stops) stop = word(6);
    const std::string text = word(40);

    size_t best_end = std::string::npos;
    size_t best_length = 0;
    for (const std::string& stop : stops) {
      const size_t begin = text.find(stop);
      if (begin == std::string::npos) continue;
      const size_t end = begin + stop.size();
      if (end < best_end || (end == best_end && stop.size() > best_length)) {
        best_end = end;
        best_length = stop.size();
      }
    }

    StopMatcher matcher = Matcher(stops);
    std::string shown;
    int stop = -1;
    for (size_t begin = 0; begin < text.size() && stop < 0;) {
      const size_t size = 1 + random() % 7;
      Output output = matcher.Push(text.substr(begin, size));
      shown += output.text;
      stop = output.stop;
      begin += size;
    }
    shown += matcher.Flush();

    if (best_end == std::string::npos) {
      ASSERT_EQ(stop, -1);
      ASSERT_EQ(shown, text);
    } else {
      ASSERT_GE(stop, 0) << text;
      ASSERT_EQ(shown, text.substr(0, best_end - best_length));
      ASSERT_EQ(stops[stop], text.substr(best_end - best_length, best_length));
    }
  }
}

TEST(StopMatcherTest, TakesManyStringsAndMuchText) {
  std::vector<std::string> stops;
  for (int i = 0; i < 1000; ++i) stops.push_back(std::string(i + 1, 'a') + "b");
  StopMatcher matcher(stops);
  std::string shown;
  for (int i = 0; i < 1000; ++i) {
    shown += matcher.Push(std::string(1000, 'a')).text;
  }
  EXPECT_EQ(shown.size() + matcher.Flush().size(), 1000000);
}

}  // namespace
}  // namespace lapidary
