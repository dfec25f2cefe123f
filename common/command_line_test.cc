#include "common/command_line.h"

#include <cstdlib>
#include <iostream>
#include <string>
#include <utility>
#include <vector>

#include "absl/flags/flag.h"
#include "absl/strings/str_cat.h"
#include "common/version.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

ABSL_FLAG(int, some_count, 3, "another");
ABSL_FLAG(std::string, some_file, "",
          "a flag of the test that has so much to say about itself that it "
          "goes over two lines");

namespace lapidary {
namespace {

// absl takes the usage once a process, so each test parses in one of its own.
[[noreturn]] void Parse(std::vector<std::string> arguments) {
  arguments.insert(arguments.begin(), "/usr/bin/program");
  std::vector<char*> argv;
  for (std::string& argument : arguments) argv.push_back(argument.data());
  ParseFlags("does this", static_cast<int>(argv.size()), argv.data());
  std::cerr << "file [" << absl::GetFlag(FLAGS_some_file) << "]" << std::endl;
  std::exit(0);
}

TEST(CommandLineDeathTest, TakesHyphensForUnderscores) {
  EXPECT_EXIT(Parse({"--some-file=a-b"}), testing::ExitedWithCode(0),
              "file \\[a-b\\]");
}

TEST(CommandLineDeathTest, TakesAHyphenAsAValueWithoutAWarning) {
  EXPECT_EXIT(Parse({"--some-file", "-"}), testing::ExitedWithCode(0),
              "^file \\[-\\]");
}

// A death test matches stderr.
[[noreturn]] void ParseWithOutputToStderr(std::vector<std::string> arguments) {
  std::cout.rdbuf(std::cerr.rdbuf());
  Parse(std::move(arguments));
}

TEST(CommandLineDeathTest, HelpPrintsUsageAndFlagsAndIsNoFailure) {
  EXPECT_EXIT(
      ParseWithOutputToStderr({"--other", "--help"}),
      testing::ExitedWithCode(0),
      "^program: does this\n\nFlags:\n  --some-count \\(another\\); default: "
      "3\n  --some-file \\(a flag of the test that .*\n"
      "      .*over two lines\\)\n$");
}

TEST(CommandLineDeathTest, TakesEverySpellingOfHelp) {
  for (const char* spelling :
       {"-help", "--help=true", "--help=prompt", "--helpfull", "--helpshort"}) {
    EXPECT_EXIT(ParseWithOutputToStderr({spelling}), testing::ExitedWithCode(0),
                "^program: does this\n")
        << spelling;
  }
}

TEST(CommandLineDeathTest, VersionPrintsTheProjectsAndIsNoFailure) {
  EXPECT_EXIT(ParseWithOutputToStderr({"--version"}),
              testing::ExitedWithCode(0),
              testing::Eq(absl::StrCat("program ", kVersion, "\n")));
}

TEST(CommandLineDeathTest, HelpBehindTwoHyphensIsAnArgument) {
  EXPECT_EXIT(Parse({"--", "--help"}), testing::ExitedWithCode(1),
              "got '--help'");
}

TEST(CommandLineDeathTest, RefusesAnUnknownFlag) {
  EXPECT_EXIT(Parse({"--other"}), testing::ExitedWithCode(1), "'other'");
}

TEST(CommandLineDeathTest, RefusesAnArgumentWhereThereAreFlagsOnly) {
  EXPECT_EXIT(Parse({"some-file=a"}), testing::ExitedWithCode(1),
              "needs flags only, got 'some-file=a'");
}

}  // namespace
}  // namespace lapidary
