// Shows a generation on the terminal while it runs.

#ifndef CLIENT_GENERATION_PRINTER_H_
#define CLIENT_GENERATION_PRINTER_H_

#include <ostream>
#include <string>

#include "absl/time/time.h"
#include "client/progress_bar.h"
#include "proto/lapidary/v1/inference.pb.h"

namespace lapidary {

enum class OutputForm {
  kText,        // The answer, when it is complete.
  kTextStream,  // The answer as it comes.
  kJson,        // One JSON object when it is complete.
  kJsonStream,  // Every message of the stream as one JSON object a line.
};

struct PrinterOptions {
  OutputForm form = OutputForm::kText;
  bool progress = false;  // A progress bar on `notes`.
  bool logprobs = false;  // Text forms: a line a token on `notes`, at the end.
  bool timings = false;  // Text forms: lines with counts and speeds on `notes`.
};

// JSON objects have the fields of inference.proto under their own names, as
// protobuf's JSON form writes them (64-bit numbers are strings); kJson merges
// the stream into {"text", "thinking", "token_ids", "logprobs", "completed"}.
//
// Thread-compatible.
class GenerationPrinter {
 public:
  // `answer` and `notes` are stdout and stderr; they must outlive it.
  GenerationPrinter(const PrinterOptions& options, absl::Time start,
                    std::ostream& answer, std::ostream& notes);

  // Takes the next message of the stream, which came at `now`.
  void Show(const v1::GenerateResponse& response, absl::Time now);

  // The stream is over, well or not.
  void Finish();

  // All of the answer so far, and of the thoughts.
  const std::string& text() const { return text_; }
  const std::string& thinking() const { return thinking_; }

 private:
  void ShowDelta(const v1::Delta& delta);
  void ShowLogprobs();
  void ShowJson();
  void ClearProgress();

  const PrinterOptions options_;
  std::ostream& answer_;
  std::ostream& notes_;
  ProgressBar progress_bar_;
  size_t progress_columns_ = 0;  // Of the line that stands there now.
  bool in_thinking_ = false;
  std::string text_;
  std::string thinking_;
  v1::Delta tokens_;  // Ids and logprobs of the whole output.
  v1::Completed completed_;
  bool has_completed_ = false;
};

// Four lines:
//
//   first token  after 3.15 s (queued 0.00 s, tokenizing 0.04 s)
//   prefill      16,201 tokens in 3.11 s (5,209 tokens/s), 0 cached
//   decode       8 tokens in 0.05 s (160.0 tokens/s)
//   total        16,210 tokens in 3.20 s, ended by stop
std::string TimingsText(const v1::Completed& completed);

// The lower-case name: "stop", "length", "stop_string", "cancelled".
std::string FinishReasonName(v1::FinishReason reason);

// `message` in protobuf's JSON form, on one line, with the names of its .proto.
std::string ToJson(const google::protobuf::Message& message);

}  // namespace lapidary

#endif  // CLIENT_GENERATION_PRINTER_H_
