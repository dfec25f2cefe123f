// How a router is set up: one field a flag of router_main.

#ifndef ROUTER_ROUTER_OPTIONS_H_
#define ROUTER_ROUTER_OPTIONS_H_

#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "absl/time/time.h"

namespace lapidary {

struct RouterOptions {
  // Directory with config.json, tokenizer.json and generation_config.json.
  std::string model;
  // Leaders of the groups: "host:port,host:port".
  std::string groups;

  // HOST:PORT; port 0 takes a free one.
  std::string listen = "127.0.0.1:8470";
  std::string metrics_listen = "127.0.0.1:0";
  // If set, written when the router listens: "rpc HOST:PORT" and
  // "metrics HOST:PORT", a line each.
  std::string port_file;

  // Threads that render and tokenize prompts, one of them for short ones only.
  int tokenize_threads = 2;

  // Prompt tokens that are queued here and in the groups; more are refused.
  int64_t max_queued_tokens = 4 << 20;
  // Requests that wait for a group to be ready, and how long they do.
  int max_waiting_requests = 1024;
  absl::Duration max_wait_for_group = absl::Seconds(10);

  // The largest request.
  int64_t max_message_bytes = 64 << 20;
  // Pings to clients and groups, so that idle proxies do not cut long prefills.
  // At least 5 s: groups end connections that ping more often.
  absl::Duration keepalive_interval = absl::Seconds(20);
  absl::Duration keepalive_timeout = absl::Seconds(10);

  // After SIGTERM, requests have this long to end.
  absl::Duration drain_timeout = absl::Seconds(30);

  // Errors: INVALID_ARGUMENT, naming the flag.
  absl::Status Validate() const;
};

}  // namespace lapidary

#endif  // ROUTER_ROUTER_OPTIONS_H_
