#include "tests/fakes/model_directory.h"

#include <filesystem>
#include <fstream>

#include "absl/strings/str_cat.h"
#include "gtest/gtest.h"

namespace lapidary {
namespace {

namespace fs = std::filesystem;

}  // namespace

ModelDirectory::ModelDirectory() {
  std::string path_template = ::testing::TempDir() + "/modelXXXXXX";
  path_ = mkdtemp(path_template.data());
  for (const char* file : {"config.json", "generation_config.json"}) {
    fs::copy_file(absl::StrCat("tests/testdata/recall/", file),
                  absl::StrCat(path_, "/", file));
  }
  fs::copy_file("tests/testdata/tokenizer/mini/tokenizer.json",
                path_ + "/tokenizer.json");
}

void ModelDirectory::Write(absl::string_view name,
                           absl::string_view contents) const {
  std::ofstream(absl::StrCat(path_, "/", name)) << contents;
}

}  // namespace lapidary
