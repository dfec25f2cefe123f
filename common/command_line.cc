#include "common/command_line.h"

#include <algorithm>
#include <cstdlib>
#include <iostream>

#include "absl/flags/parse.h"
#include "absl/flags/usage.h"
#include "absl/flags/usage_config.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"

namespace lapidary {
namespace {

// "--kv-memory=8GiB" becomes "--kv_memory=8GiB"; other arguments stay.
std::string WithUnderscores(std::string argument) {
  if (!absl::StartsWith(argument, "--")) return argument;
  const auto end = std::find(argument.begin(), argument.end(), '=');
  std::replace(argument.begin() + 2, end, '-', '_');
  return argument;
}

// Joins "--file" and "-" to "--file=-": absl warns of values that begin with a
// hyphen.
std::vector<std::string> JoinHyphens(const std::vector<std::string>& from) {
  std::vector<std::string> arguments;
  for (const std::string& argument : from) {
    if (argument == "-" && !arguments.empty() &&
        absl::StartsWith(arguments.back(), "--") &&
        !absl::StrContains(arguments.back(), '=')) {
      arguments.back() += "=-";
    } else {
      arguments.push_back(argument);
    }
  }
  return arguments;
}

}  // namespace

std::vector<std::string> ParseCommandLine(absl::string_view usage, int argc,
                                          char** argv) {
  absl::SetProgramUsageMessage(usage);
  absl::FlagsUsageConfig config;
  // Only the project's own flags: they are defined in files with main().
  config.contains_help_flags = [](absl::string_view file) {
    return absl::StrContains(file, "_main.cc") ||
           absl::StartsWith(file, "tools/");
  };
  absl::SetFlagsUsageConfig(config);

  std::vector<std::string> arguments =
      JoinHyphens(std::vector<std::string>(argv, argv + argc));
  for (auto it = arguments.begin(); it != arguments.end() && *it != "--"; ++it)
    *it = WithUnderscores(*it);
  std::vector<char*> pointers;
  for (std::string& argument : arguments) pointers.push_back(argument.data());

  const std::vector<char*> left = absl::ParseCommandLine(
      static_cast<int>(pointers.size()), pointers.data());
  return std::vector<std::string>(left.begin() + 1, left.end());
}

void ParseFlags(absl::string_view usage, int argc, char** argv) {
  const std::vector<std::string> left = ParseCommandLine(usage, argc, argv);
  if (left.empty()) return;
  std::cerr << "ERROR: needs flags only, got '" << left[0] << "'; see --help"
            << std::endl;
  std::exit(EXIT_FAILURE);
}

}  // namespace lapidary
