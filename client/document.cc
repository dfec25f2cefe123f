#include "client/document.h"

#include <unistd.h>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "common/read_file.h"

namespace lapidary {

absl::StatusOr<std::string> ReadDocument(const std::string& path) {
  absl::StatusOr<std::string> text =
      path == "-" ? ReadToEnd(STDIN_FILENO, "standard input", kMaxDocumentBytes)
                  : ReadFile(path, kMaxDocumentBytes);
  if (!text.ok()) {
    return absl::InvalidArgumentError(
        absl::StrCat("--file ", text.status().message()));
  }
  if (text->empty()) {
    return absl::InvalidArgumentError(
        absl::StrCat("--file ", path, ": needs a text, it is empty"));
  }
  return text;
}

}  // namespace lapidary
