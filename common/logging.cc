#include "common/logging.h"

#include "absl/strings/str_cat.h"
#include "glog/logging.h"

namespace lapidary {

void StartLogging(const char* program) {
  FLAGS_logtostderr = true;
  google::InitGoogleLogging(program);
}

std::string RequestTag(absl::string_view request_id) {
  return absl::StrCat("request=", request_id, " ");
}

}  // namespace lapidary
