#include "router/text/detokenizer.h"

#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "router/text/utf8.h"

namespace lapidary {

std::string Detokenizer::Push(TokenId id) {
  const absl::string_view bytes = tokenizer_.TokenBytes(id);
  if (tokenizer_.IsByte(id)) {
    absl::StrAppend(&held_bytes_, bytes);
    return "";
  }
  return absl::StrCat(Flush(), bytes);
}

std::string Detokenizer::Flush() {
  const std::string text = DecodeByteRun(held_bytes_);
  held_bytes_.clear();
  return text;
}

}  // namespace lapidary
