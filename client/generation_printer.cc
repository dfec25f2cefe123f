#include "client/generation_printer.h"

#include <algorithm>
#include <cmath>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/strip.h"
#include "glog/logging.h"
#include "google/protobuf/util/json_util.h"
#include "nlohmann/json.hpp"

namespace lapidary {
namespace {

using Json = nlohmann::ordered_json;

std::string Rate(double tokens, double seconds) {
  if (seconds <= 0) return "";
  const double rate = tokens / seconds;
  return rate < 1000 ? absl::StrFormat(" (%.1f tokens/s)", rate)
                     : absl::StrCat(" (", WithThousands(std::llround(rate)),
                                    " tokens/s)");
}

}  // namespace

GenerationPrinter::GenerationPrinter(const PrinterOptions& options,
                                     absl::Time start, std::ostream& answer,
                                     std::ostream& notes)
    : options_(options), answer_(answer), notes_(notes), progress_bar_(start) {}

void GenerationPrinter::Show(const v1::GenerateResponse& response,
                             absl::Time now) {
  if (options_.form == OutputForm::kJsonStream) {
    answer_ << ToJson(response) << std::endl;
  }
  if (response.has_progress()) {
    if (!options_.progress) return;
    const std::string line = progress_bar_.Line(response.progress(), now);
    const size_t columns = line.size();
    const size_t blanks =
        columns < progress_columns_ ? progress_columns_ - columns : 0;
    notes_ << '\r' << line << std::string(blanks, ' ') << std::flush;
    progress_columns_ = columns;
    return;
  }
  ClearProgress();
  if (response.has_delta()) ShowDelta(response.delta());
  if (response.has_completed()) {
    completed_ = response.completed();
    has_completed_ = true;
  }
}

void GenerationPrinter::ShowDelta(const v1::Delta& delta) {
  absl::StrAppend(&text_, delta.text());
  absl::StrAppend(&thinking_, delta.thinking());
  tokens_.mutable_token_ids()->MergeFrom(delta.token_ids());
  tokens_.mutable_logprobs()->MergeFrom(delta.logprobs());
  if (options_.form != OutputForm::kTextStream) return;
  // Thoughts are notes: what stdout gets is the answer and nothing else.
  if (!delta.thinking().empty()) {
    if (!in_thinking_) notes_ << "[thinking] ";
    in_thinking_ = true;
    notes_ << delta.thinking() << std::flush;
  }
  if (delta.text().empty()) return;
  if (in_thinking_) notes_ << "\n[answer]" << std::endl;
  in_thinking_ = false;
  answer_ << delta.text() << std::flush;
}

void GenerationPrinter::Finish() {
  ClearProgress();
  switch (options_.form) {
    case OutputForm::kJsonStream:
      return;
    case OutputForm::kJson:
      if (has_completed_) ShowJson();
      return;
    case OutputForm::kText:
      if (!thinking_.empty()) notes_ << "[thinking] " << thinking_ << "\n";
      answer_ << text_;
      break;
    case OutputForm::kTextStream:
      break;
  }
  if (!text_.empty() && text_.back() != '\n') answer_ << '\n';
  answer_.flush();
  if (text_.empty() && has_completed_) {
    notes_ << "(no text: ended by "
           << FinishReasonName(completed_.finish_reason()) << ", "
           << Counted(completed_.usage().output_tokens(), "output token")
           << ")\n";
  }
  if (options_.logprobs) ShowLogprobs();
  if (options_.timings && has_completed_) {
    notes_ << TimingsText(completed_);
  }
  notes_.flush();
}

void GenerationPrinter::ShowLogprobs() {
  for (int i = 0; i < tokens_.logprobs_size(); ++i) {
    const v1::PositionLogprobs& position = tokens_.logprobs(i);
    notes_ << absl::StrFormat("logprob %d: token %u %.4f", i,
                              position.chosen().token_id(),
                              position.chosen().logprob());
    for (const v1::TokenLogprob& top : position.top()) {
      notes_ << absl::StrFormat(", %u %.4f", top.token_id(), top.logprob());
    }
    notes_ << '\n';
  }
}

void GenerationPrinter::ShowJson() {
  Json object;
  object["text"] = text_;
  if (!thinking_.empty()) object["thinking"] = thinking_;
  object["token_ids"] = Json(std::vector<uint32_t>(tokens_.token_ids().begin(),
                                                   tokens_.token_ids().end()));
  if (tokens_.logprobs_size() > 0) {
    v1::Delta logprobs;
    *logprobs.mutable_logprobs() = tokens_.logprobs();
    object["logprobs"] =
        Json::parse(ToJson(logprobs), nullptr, false)["logprobs"];
  }
  object["completed"] = Json::parse(ToJson(completed_), nullptr, false);
  answer_ << object.dump(-1, ' ', false, Json::error_handler_t::replace)
          << std::endl;
}

void GenerationPrinter::ClearProgress() {
  if (progress_columns_ == 0) return;
  notes_ << '\r' << std::string(progress_columns_, ' ') << '\r' << std::flush;
  progress_columns_ = 0;
}

std::string TimingsText(const v1::Completed& completed) {
  const v1::Usage& usage = completed.usage();
  const v1::Timings& timings = completed.timings();
  const uint32_t computed = usage.prompt_tokens() - usage.cached_tokens();
  // The first token comes out of the prefill.
  const uint32_t decoded = std::max(usage.output_tokens(), 1u) - 1;
  return absl::StrFormat(
      "first token  after %.2f s (queued %.2f s, tokenizing %.2f s)\n"
      "prefill      %s in %.2f s%s, %s cached\n"
      "decode       %s in %.2f s%s\n"
      "total        %s in %.2f s, ended by %s\n",
      std::max(0.0, timings.total_seconds() - timings.decode_seconds()),
      timings.queue_seconds(), timings.tokenize_seconds(),
      Counted(computed, "token"), timings.prefill_seconds(),
      Rate(computed, timings.prefill_seconds()),
      WithThousands(usage.cached_tokens()), Counted(decoded, "token"),
      timings.decode_seconds(), Rate(decoded, timings.decode_seconds()),
      Counted(uint64_t{usage.prompt_tokens()} + usage.output_tokens(), "token"),
      timings.total_seconds(), FinishReasonName(completed.finish_reason()));
}

std::string FinishReasonName(v1::FinishReason reason) {
  const std::string name = v1::FinishReason_Name(reason);
  return absl::AsciiStrToLower(absl::StripPrefix(name, "FINISH_REASON_"));
}

std::string ToJson(const google::protobuf::Message& message) {
  google::protobuf::util::JsonPrintOptions options;
  options.preserve_proto_field_names = true;
  std::string json;
  // The messages here hold no Any, so there is nothing it could fail to print.
  CHECK(google::protobuf::util::MessageToJsonString(message, &json, options)
            .ok());
  return json;
}

}  // namespace lapidary
