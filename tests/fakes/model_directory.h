// A model's directory without weights, for tests of the router.

#ifndef TESTS_FAKES_MODEL_DIRECTORY_H_
#define TESTS_FAKES_MODEL_DIRECTORY_H_

#include <string>

#include "absl/strings/string_view.h"

namespace lapidary {

// The recall model's configuration with the 8192-entry tokenizer.  A target
// that uses it names //tests/testdata:recall and :tokenizer_mini as data.
//
// Thread-compatible.
class ModelDirectory {
 public:
  // Writes it into the test's temporary folder.
  ModelDirectory();

  const std::string& path() const { return path_; }

  void Write(absl::string_view name, absl::string_view contents) const;

 private:
  std::string path_;
};

}  // namespace lapidary

#endif  // TESTS_FAKES_MODEL_DIRECTORY_H_
