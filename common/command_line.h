// Command lines, alike for every program of the project.

#ifndef COMMON_COMMAND_LINE_H_
#define COMMON_COMMAND_LINE_H_

#include <string>
#include <vector>

#include "absl/strings/string_view.h"

namespace lapidary {

// Parses absl flags, spelled with hyphens or with underscores
// (--kv-memory = --kv_memory), and returns the positional arguments without the
// program's name.  --help prints "NAME: ", `usage` and all flags, --version
// prints NAME and the project's version; both end the program with exit code 0.
// An unknown flag or a bad value ends it with exit code 1 and a line that names
// it.  So `usage` begins with what the program does, in lower case.
//
// Call it first thing in main(), once.
std::vector<std::string> ParseCommandLine(absl::string_view usage, int argc,
                                          char** argv);

// As ParseCommandLine(), for a program that takes flags only: a positional
// argument ends it like an unknown flag.
void ParseFlags(absl::string_view usage, int argc, char** argv);

}  // namespace lapidary

#endif  // COMMON_COMMAND_LINE_H_
