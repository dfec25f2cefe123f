#include "client/commands.h"

#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <fstream>
#include <iostream>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "client/chat_session.h"
#include "client/error_text.h"
#include "client/status_text.h"
#include "common/status_macros.h"

namespace lapidary {
namespace {

// Sends the session's question and prints the answer.
absl::Status Answer(Connection& connection, const PrinterOptions& options,
                    ChatSession& session) {
  GenerationPrinter printer(options, absl::Now(), std::cout, std::cerr);
  const absl::Status status = connection.Generate(
      session.request(), [&printer](const v1::GenerateResponse& response) {
        printer.Show(response, absl::Now());
      });
  printer.Finish();
  if (status.ok()) {
    session.AddAnswer(printer.text(), printer.thinking());
  } else {
    session.DropQuestion();
  }
  return status;
}

absl::Status CannotWrite(const std::string& path) {
  return absl::InvalidArgumentError(
      absl::StrCat("cannot write ", path, ": ", std::strerror(errno)));
}

// Leaves what is in the file, makes one that is not there.
absl::Status CheckWritable(const std::string& path) {
  if (!std::ofstream(path, std::ios::app)) return CannotWrite(path);
  return absl::OkStatus();
}

absl::Status WriteFile(const std::string& path, const std::string& text) {
  std::ofstream file(path, std::ios::binary);
  file << text << std::flush;
  if (!file) return CannotWrite(path);
  return absl::OkStatus();
}

absl::Status CheckChatSettings(const RequestOptions& settings) {
  if (settings.prompt.empty() && settings.document.empty() &&
      settings.form == PromptForm::kChat) {
    return absl::OkStatus();
  }
  return absl::InvalidArgumentError(
      "chat reads its questions from stdin; --prompt, --file and --raw belong "
      "to generate");
}

absl::Status Save(const ChatSession& session) {
  RETURN_IF_ERROR(WriteFile(session.reply(), session.Transcript()));
  std::cerr << "saved to " << session.reply() << std::endl;
  return absl::OkStatus();
}

}  // namespace

absl::Status RunGenerate(Connection& connection, const RequestOptions& options,
                         const PrinterOptions& printer_options,
                         const std::string& output) {
  ASSIGN_OR_RETURN(const v1::GenerateRequest request, MakeRequest(options));
  // Before the question: an answer may take minutes.
  if (!output.empty()) RETURN_IF_ERROR(CheckWritable(output));
  GenerationPrinter printer(printer_options, absl::Now(), std::cout, std::cerr);
  const absl::Status status = connection.Generate(
      request, [&printer](const v1::GenerateResponse& response) {
        printer.Show(response, absl::Now());
      });
  printer.Finish();
  RETURN_IF_ERROR(status);
  return output.empty() ? absl::OkStatus() : WriteFile(output, printer.text());
}

absl::Status RunChat(Connection& connection, const RequestOptions& settings,
                     const PrinterOptions& printer) {
  RETURN_IF_ERROR(CheckChatSettings(settings));
  ASSIGN_OR_RETURN(const v1::GenerateRequest request,
                   MakeRequestSettings(settings));
  ChatSession session(request,
                      {.system = settings.system, .think = settings.think});
  const bool interactive = isatty(STDIN_FILENO) == 1;
  if (interactive) {
    ASSIGN_OR_RETURN(const v1::GetModelResponse model, connection.GetModel());
    std::cerr << model.name() << ", context " << model.max_context_tokens()
              << " tokens.  /help lists the commands." << std::endl;
  }
  std::string line;
  for (;;) {
    if (interactive) std::cerr << "> " << std::flush;
    if (!std::getline(std::cin, line)) return absl::OkStatus();
    absl::Status status;
    switch (session.Read(line)) {
      case ChatSession::Action::kNothing:
        break;
      case ChatSession::Action::kAsk:
        status = Answer(connection, printer, session);
        break;
      case ChatSession::Action::kShow:
        std::cerr << session.reply() << std::flush;
        break;
      case ChatSession::Action::kSave:
        status = Save(session);
        break;
      case ChatSession::Action::kQuit:
        return absl::OkStatus();
    }
    if (status.ok()) continue;
    if (!interactive) return status;
    std::cerr << ErrorText(status) << std::endl;
  }
}

absl::Status RunCount(Connection& connection, const RequestOptions& options,
                      ReportForm form) {
  ASSIGN_OR_RETURN(const v1::GenerateRequest request, MakeRequest(options));
  ASSIGN_OR_RETURN(const v1::CountTokensResponse count,
                   connection.CountTokens(request));
  if (form == ReportForm::kJson) {
    std::cout << ToJson(count) << std::endl;
  } else {
    std::cout << count.prompt_tokens() << std::endl;
  }
  return absl::OkStatus();
}

absl::Status RunStatus(Connection& connection, ReportForm form,
                       absl::Duration interval) {
  for (;;) {
    ASSIGN_OR_RETURN(const v1::GetStatusResponse status,
                     connection.GetStatus());
    if (form == ReportForm::kJson) {
      std::cout << ToJson(status) << std::endl;
    } else {
      // Home and clear: the text stands still while its numbers change.
      if (interval > absl::ZeroDuration() && isatty(STDOUT_FILENO) == 1) {
        std::cout << "\033[H\033[2J";
      }
      std::cout << StatusText(connection.router(), status) << std::flush;
    }
    if (interval <= absl::ZeroDuration()) return absl::OkStatus();
    absl::SleepFor(interval);
  }
}

}  // namespace lapidary
