#include "common/command_line.h"

#include <algorithm>
#include <cstdlib>
#include <iostream>
#include <map>

#include "absl/flags/commandlineflag.h"
#include "absl/flags/parse.h"
#include "absl/flags/reflection.h"
#include "absl/flags/usage.h"
#include "absl/flags/usage_config.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "common/version.h"

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

// All flags but those that absl brings, such as --flagfile.
bool IsOurs(absl::string_view file) {
  return !absl::StrContains(file, "absl/flags/");
}

// Whether it is --help, or one of absl's ways to ask for more or less of it:
// -help, --help=WORD, --helpfull, --helpshort.
bool IsHelp(absl::string_view argument) {
  if (!absl::ConsumePrefix(&argument, "--") &&
      !absl::ConsumePrefix(&argument, "-")) {
    return false;
  }
  const absl::string_view name = argument.substr(0, argument.find('='));
  return name == "help" || name == "helpfull" || name == "helpshort";
}

bool AsksForHelp(const std::vector<std::string>& arguments) {
  const auto end = std::find(arguments.begin(), arguments.end(), "--");
  return std::any_of(arguments.begin(), end, IsHelp);
}

// "/usr/bin/lapidary" as "lapidary".
std::string NameOf(const std::string& program) {
  return program.substr(program.rfind('/') + 1);
}

// Adds words to `text`, in lines that are not too long.
void AppendWrapped(absl::string_view words, std::string& text) {
  constexpr size_t kLineLength = 80;
  std::string line = " ";
  for (const absl::string_view word : absl::StrSplit(words, ' ')) {
    if (line.size() + 1 + word.size() > kLineLength) {
      absl::StrAppend(&text, line, "\n");
      line = "     ";
    }
    absl::StrAppend(&line, " ", word);
  }
  absl::StrAppend(&text, line, "\n");
}

// What each flag is for, by name.
std::string FlagsText() {
  std::map<std::string, std::string> lines;
  for (const auto& [name, flag] : absl::GetAllFlags()) {
    if (!IsOurs(flag->Filename())) continue;
    const std::string hyphened =
        absl::StrReplaceAll(flag->Name(), {{"_", "-"}});
    std::string& line = lines[hyphened];
    line = absl::StrCat("--", hyphened, " (", flag->Help(), ")");
    if (const std::string value = flag->DefaultValue(); !value.empty()) {
      absl::StrAppend(&line, "; default: ", value);
    }
  }
  std::string text = lines.empty() ? "" : "\nFlags:\n";
  for (const auto& [name, line] : lines) AppendWrapped(line, text);
  return text;
}

}  // namespace

std::vector<std::string> ParseCommandLine(absl::string_view usage, int argc,
                                          char** argv) {
  const std::string name = NameOf(argv[0]);
  absl::SetProgramUsageMessage(usage);
  absl::FlagsUsageConfig config;
  config.contains_help_flags = IsOurs;
  config.version_string = [name] {
    return absl::StrCat(name, " ", kVersion, "\n");
  };
  absl::SetFlagsUsageConfig(config);

  std::vector<std::string> arguments =
      JoinHyphens(std::vector<std::string>(argv, argv + argc));
  for (auto it = arguments.begin(); it != arguments.end() && *it != "--"; ++it)
    *it = WithUnderscores(*it);
  if (AsksForHelp(arguments)) {  // absl would answer with exit code 1.
    std::cout << name << ": " << usage << "\n" << FlagsText() << std::flush;
    std::exit(EXIT_SUCCESS);
  }
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
