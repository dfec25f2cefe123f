// The router: text with clients, tokens with groups.

#include <cstdint>
#include <cstdlib>
#include <iostream>
#include <memory>
#include <string>

#include "absl/flags/flag.h"
#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "common/byte_size.h"
#include "common/command_line.h"
#include "common/logging.h"
#include "common/process.h"
#include "common/status_macros.h"
#include "glog/logging.h"
#include "router/router.h"
#include "router/router_options.h"

using lapidary::RouterOptions;

ABSL_FLAG(std::string, model, "",
          "Directory with config.json, tokenizer.json and "
          "generation_config.json.  Weights are not needed.");
ABSL_FLAG(std::string, groups, "",
          "Leaders of the groups: HOST:PORT,HOST:PORT.");
ABSL_FLAG(std::string, listen, RouterOptions().listen,
          "HOST:PORT for clients; port 0 takes a free one.");
ABSL_FLAG(std::string, metrics_listen, RouterOptions().metrics_listen,
          "HOST:PORT of the metrics page; port 0 takes a free one.");
ABSL_FLAG(std::string, port_file, "",
          "Written when the router listens: lines \"rpc HOST:PORT\" and "
          "\"metrics HOST:PORT\".");
ABSL_FLAG(int, tokenize_threads, RouterOptions().tokenize_threads,
          "Threads that render and tokenize prompts; one of them takes short "
          "prompts only.");
ABSL_FLAG(int64_t, max_queued_tokens, RouterOptions().max_queued_tokens,
          "Prompt tokens that may be queued here and in the groups; more are "
          "refused with RESOURCE_EXHAUSTED.");
ABSL_FLAG(int, max_waiting_requests, RouterOptions().max_waiting_requests,
          "Requests that may wait for a group to be ready.");
ABSL_FLAG(absl::Duration, max_wait_for_group,
          RouterOptions().max_wait_for_group,
          "How long a request waits for a group to be ready.");
ABSL_FLAG(std::string, max_message_bytes,
          lapidary::FormatByteSize(RouterOptions().max_message_bytes),
          "The largest request, such as 64MiB.");
ABSL_FLAG(absl::Duration, keepalive_interval,
          RouterOptions().keepalive_interval,
          "Pings to clients and groups come this often.");
ABSL_FLAG(absl::Duration, keepalive_timeout, RouterOptions().keepalive_timeout,
          "A ping that is not answered for this long ends the connection.");
ABSL_FLAG(absl::Duration, drain_timeout, RouterOptions().drain_timeout,
          "After SIGTERM, requests have this long to end.");

namespace lapidary {
namespace {

absl::StatusOr<RouterOptions> OptionsFromFlags() {
  RouterOptions options;
  options.model = absl::GetFlag(FLAGS_model);
  options.groups = absl::GetFlag(FLAGS_groups);
  options.listen = absl::GetFlag(FLAGS_listen);
  options.metrics_listen = absl::GetFlag(FLAGS_metrics_listen);
  options.port_file = absl::GetFlag(FLAGS_port_file);
  options.tokenize_threads = absl::GetFlag(FLAGS_tokenize_threads);
  options.max_queued_tokens = absl::GetFlag(FLAGS_max_queued_tokens);
  options.max_waiting_requests = absl::GetFlag(FLAGS_max_waiting_requests);
  options.max_wait_for_group = absl::GetFlag(FLAGS_max_wait_for_group);
  ASSIGN_OR_RETURN(options.max_message_bytes,
                   ParseByteSize(absl::GetFlag(FLAGS_max_message_bytes)));
  options.keepalive_interval = absl::GetFlag(FLAGS_keepalive_interval);
  options.keepalive_timeout = absl::GetFlag(FLAGS_keepalive_timeout);
  options.drain_timeout = absl::GetFlag(FLAGS_drain_timeout);
  return options;
}

absl::Status ServeUntilSignal() {
  ShutdownWaiter shutdown;  // Before any thread.
  ASSIGN_OR_RETURN(const RouterOptions options, OptionsFromFlags());
  ASSIGN_OR_RETURN(std::unique_ptr<Router> owned, Router::Start(options));
  // Left to the end of the process: the metrics page takes seconds to end.
  Router* const router = owned.release();
  LOG(INFO) << "serves " << router->model().name << " at " << router->address()
            << ", metrics at http://" << router->metrics_address()
            << "/metrics";
  if (!options.port_file.empty()) {
    RETURN_IF_ERROR(WriteFileAtomically(
        options.port_file, absl::StrCat("rpc ", router->address(), "\nmetrics ",
                                        router->metrics_address(), "\n")));
  }
  shutdown.Wait(absl::InfiniteDuration());
  router->Drain();
  router->Stop();
  return absl::OkStatus();
}

}  // namespace
}  // namespace lapidary

int main(int argc, char** argv) {
  // What gRPC has to say comes as a Status too.
  setenv("GRPC_VERBOSITY", "NONE", /*overwrite=*/0);
  lapidary::ParseFlags(
      "serves Gemma 4 over gRPC: text in front of groups.\n\n"
      "  router_main --model DIR --groups HOST:PORT,HOST:PORT",
      argc, argv);
  lapidary::StartLogging(argv[0]);
  const absl::Status status = lapidary::ServeUntilSignal();
  if (!status.ok()) std::cerr << "router: " << status.message() << std::endl;
  // Crash-only: nothing is left that an orderly exit would save.
  std::_Exit(status.ok() ? EXIT_SUCCESS : EXIT_FAILURE);
}
