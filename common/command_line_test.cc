#include "common/command_line.h"

#include <cstdlib>
#include <iostream>
#include <string>
#include <vector>

#include "absl/flags/flag.h"
#include "gtest/gtest.h"

ABSL_FLAG(std::string, some_file, "", "a flag of the test");

namespace lapidary {
namespace {

// absl takes the usage once a process, so each test parses in one of its own.
[[noreturn]] void Parse(std::vector<std::string> arguments) {
  arguments.insert(arguments.begin(), "program");
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

TEST(CommandLineDeathTest, RefusesAnUnknownFlag) {
  EXPECT_EXIT(Parse({"--other"}), testing::ExitedWithCode(1), "'other'");
}

TEST(CommandLineDeathTest, RefusesAnArgumentWhereThereAreFlagsOnly) {
  EXPECT_EXIT(Parse({"some-file=a"}), testing::ExitedWithCode(1),
              "needs flags only, got 'some-file=a'");
}

}  // namespace
}  // namespace lapidary
