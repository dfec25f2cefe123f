// The command line client of a Lapidary router.

#include <unistd.h>

#include <cstdint>
#include <cstdlib>
#include <iostream>
#include <optional>
#include <string>
#include <vector>

#include "absl/flags/flag.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "client/commands.h"
#include "client/connection.h"
#include "client/document.h"
#include "client/error_text.h"
#include "client/generation_printer.h"
#include "client/interrupt.h"
#include "client/request.h"
#include "common/address.h"
#include "common/command_line.h"
#include "common/status_macros.h"
#include "glog/logging.h"
#include "google/protobuf/stubs/logging.h"

ABSL_FLAG(std::string, router, "",
          "HOST:PORT of the router; default: the environment variable "
          "LAPIDARY_ROUTER, then 127.0.0.1:8470");
ABSL_FLAG(absl::Duration, deadline, absl::InfiniteDuration(),
          "what a call may take, such as 90s or 1h");
ABSL_FLAG(std::string, request_id, "",
          "id of the request in logs and errors; default: the router's choice");
ABSL_FLAG(std::string, prompt, "", "the question, or the text to continue");
ABSL_FLAG(std::string, file, "",
          "a file with a document, - for stdin; --prompt follows it after a "
          "blank line");
ABSL_FLAG(bool, raw, false, "continue the text as it stands, without template");
ABSL_FLAG(bool, parse_control_tokens, false,
          "with --raw: control tokens in the text are control tokens");
ABSL_FLAG(std::string, system, "", "the system message");
ABSL_FLAG(bool, think, false, "let the model think before it answers");
ABSL_FLAG(std::optional<float>, temperature, std::nullopt,
          "0 = greedy; default: the model's");
ABSL_FLAG(std::optional<uint32_t>, top_k, std::nullopt,
          "keep the k likeliest tokens; 0 = all");
ABSL_FLAG(std::optional<float>, top_p, std::nullopt,
          "keep the likeliest tokens up to this probability");
ABSL_FLAG(std::optional<float>, min_p, std::nullopt,
          "drop tokens less likely than this times the likeliest");
ABSL_FLAG(std::optional<float>, repetition_penalty, std::nullopt,
          "above 1: fewer tokens that occurred in prompt or output");
ABSL_FLAG(std::optional<float>, presence_penalty, std::nullopt,
          "subtracted once from tokens that occurred in the output");
ABSL_FLAG(std::optional<float>, frequency_penalty, std::nullopt,
          "subtracted per occurrence in the output");
ABSL_FLAG(std::string, logit_bias, "", "ID:VALUE,ID:VALUE added to the logits");
ABSL_FLAG(std::optional<uint64_t>, seed, std::nullopt,
          "equal seeds give equal output");
ABSL_FLAG(std::optional<uint32_t>, logprobs, std::nullopt,
          "log-probabilities of the output and of this many alternatives");
ABSL_FLAG(uint32_t, max_tokens, 0,
          "at most this many tokens; 0 = as many as the context allows");
ABSL_FLAG(std::string, stop, "",
          "strings that end the output, separated by commas; \\n, \\t, \\, and "
          "\\\\ are escapes");
ABSL_FLAG(std::string, stop_token_ids, "", "token ids that end the output");
ABSL_FLAG(int32_t, priority, 0, "-10 to 10, higher is served first");
ABSL_FLAG(bool, ignore_eos, false, "go on after the model's end of turn");
ABSL_FLAG(bool, stream, isatty(STDOUT_FILENO) == 1,
          "print the output as it comes; default: if stdout is a terminal");
ABSL_FLAG(std::string, output, "",
          "generate: also write the answer to this file");
ABSL_FLAG(bool, json, false,
          "JSON; with --stream one object a message, else one at the end");
ABSL_FLAG(bool, progress, isatty(STDERR_FILENO) == 1,
          "a progress bar on stderr; default: if stderr is a terminal");
ABSL_FLAG(bool, timings, false, "print token counts and speeds to stderr");
ABSL_FLAG(absl::Duration, watch, absl::ZeroDuration(),
          "status: print again after this time, such as 1s");

namespace lapidary {
namespace {

constexpr char kUsage[] =
    R"(talks to a Lapidary router.

  lapidary generate --prompt TEXT [--file FILE]   answer a question
  lapidary generate --raw --prompt TEXT           continue a text
  lapidary chat                                   talk; /help there
  lapidary count --prompt TEXT [--file FILE]      tokens of a prompt
  lapidary status [--watch 1s]                    router, groups, load, pages

Exit codes: 0 done, 1 failed or unknown flag, 2 wrong request, 3 no room or
nobody there now (try again), 4 deadline passed, 130 interrupted.)";

absl::StatusOr<std::string> RouterAddress() {
  const char* name = "--router";
  std::string address = absl::GetFlag(FLAGS_router);
  if (address.empty()) {
    name = "LAPIDARY_ROUTER";
    const char* environment = std::getenv(name);
    if (environment != nullptr) address = environment;
  }
  if (address.empty()) address = "127.0.0.1:8470";
  RETURN_IF_ERROR(CheckAddress(name, address));
  return address;
}

SamplingOptions SamplingFromFlags() {
  return {
      .temperature = absl::GetFlag(FLAGS_temperature),
      .top_k = absl::GetFlag(FLAGS_top_k),
      .top_p = absl::GetFlag(FLAGS_top_p),
      .min_p = absl::GetFlag(FLAGS_min_p),
      .repetition_penalty = absl::GetFlag(FLAGS_repetition_penalty),
      .presence_penalty = absl::GetFlag(FLAGS_presence_penalty),
      .frequency_penalty = absl::GetFlag(FLAGS_frequency_penalty),
      .logit_bias = absl::GetFlag(FLAGS_logit_bias),
      .seed = absl::GetFlag(FLAGS_seed),
      .logprobs = absl::GetFlag(FLAGS_logprobs),
  };
}

absl::StatusOr<RequestOptions> RequestFromFlags() {
  RequestOptions options;
  if (absl::GetFlag(FLAGS_parse_control_tokens) && !absl::GetFlag(FLAGS_raw)) {
    return absl::InvalidArgumentError("--parse-control-tokens needs --raw");
  }
  if (absl::GetFlag(FLAGS_raw)) {
    options.form = absl::GetFlag(FLAGS_parse_control_tokens)
                       ? PromptForm::kTextControls
                       : PromptForm::kText;
  }
  if (const std::string file = absl::GetFlag(FLAGS_file); !file.empty()) {
    ASSIGN_OR_RETURN(options.document, ReadDocument(file));
  }
  options.prompt = absl::GetFlag(FLAGS_prompt);
  options.system = absl::GetFlag(FLAGS_system);
  options.think = absl::GetFlag(FLAGS_think);
  options.sampling = SamplingFromFlags();
  options.max_tokens = absl::GetFlag(FLAGS_max_tokens);
  options.stop = absl::GetFlag(FLAGS_stop);
  options.stop_token_ids = absl::GetFlag(FLAGS_stop_token_ids);
  options.priority = absl::GetFlag(FLAGS_priority);
  options.ignore_eos = absl::GetFlag(FLAGS_ignore_eos);
  return options;
}

PrinterOptions PrinterFromFlags() {
  const bool stream = absl::GetFlag(FLAGS_stream);
  PrinterOptions options;
  if (absl::GetFlag(FLAGS_json)) {
    options.form = stream ? OutputForm::kJsonStream : OutputForm::kJson;
  } else {
    options.form = stream ? OutputForm::kTextStream : OutputForm::kText;
  }
  options.progress = absl::GetFlag(FLAGS_progress);
  options.logprobs = absl::GetFlag(FLAGS_logprobs).has_value();
  options.timings = absl::GetFlag(FLAGS_timings);
  return options;
}

absl::Status Run(const std::vector<std::string>& arguments,
                 Interrupt& interrupt) {
  if (arguments.size() != 1) {
    return absl::InvalidArgumentError(
        "needs one command: generate, chat, count or status (see --help)");
  }
  const std::string& command = arguments[0];
  const auto form =
      absl::GetFlag(FLAGS_json) ? ReportForm::kJson : ReportForm::kText;
  ASSIGN_OR_RETURN(const std::string router, RouterAddress());
  Connection connection({.router = router,
                         .deadline = absl::GetFlag(FLAGS_deadline),
                         .request_id = absl::GetFlag(FLAGS_request_id)},
                        interrupt);
  if (command == "status") {
    const absl::Duration interval = absl::GetFlag(FLAGS_watch);
    if (interval < absl::ZeroDuration()) {
      return absl::InvalidArgumentError(
          absl::StrCat("--watch needs a time such as 1s, found ",
                       absl::FormatDuration(interval)));
    }
    return RunStatus(connection, form, interval);
  }
  ASSIGN_OR_RETURN(const RequestOptions request, RequestFromFlags());
  if (command == "generate") {
    return RunGenerate(connection, request, PrinterFromFlags(),
                       absl::GetFlag(FLAGS_output));
  }
  if (command == "chat") {
    return RunChat(connection, request, PrinterFromFlags());
  }
  if (command == "count") return RunCount(connection, request, form);
  return absl::InvalidArgumentError(absl::StrCat(
      "needs the command generate, chat, count or status, found ", command));
}

}  // namespace
}  // namespace lapidary

int main(int argc, char** argv) {
  google::InitGoogleLogging(argv[0]);
  // It would complain of text that is not UTF-8; the router names the field.
  google::protobuf::SetLogHandler(nullptr);
  const std::vector<std::string> arguments =
      lapidary::ParseCommandLine(lapidary::kUsage, argc, argv);
  lapidary::Interrupt interrupt;
  const absl::Status status = lapidary::Run(arguments, interrupt);
  if (!status.ok()) {
    std::cerr << "lapidary: " << lapidary::ErrorText(status) << std::endl;
  }
  return lapidary::ExitCode(status);
}
