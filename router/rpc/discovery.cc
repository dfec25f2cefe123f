#include "router/rpc/discovery.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "common/address.h"
#include "common/group_messages.h"
#include "common/status_macros.h"

namespace lapidary {
namespace {

constexpr absl::Duration kDescribeTimeout = absl::Seconds(5);

GroupDescription ToDescription(const v1::DescribeResponse& response) {
  GroupDescription description;
  description.protocol_version = static_cast<int>(response.protocol_version());
  description.epoch = response.epoch();
  description.model_name = response.model_name();
  description.config_digest = response.config_digest();
  description.tokenizer_digest = response.tokenizer_digest();
  description.vocab_size = static_cast<int>(response.vocab_size());
  description.max_context_tokens =
      static_cast<int>(response.max_context_tokens());
  description.ranks = static_cast<int>(response.ranks());
  description.compute = response.compute();
  description.device = response.device();
  return description;
}

GroupLoad ToLoad(const v1::GroupState& state) {
  GroupLoad load;
  load.epoch = state.epoch();
  load.draining = state.draining();
  load.running_requests = static_cast<int>(state.running_requests());
  load.waiting_requests = static_cast<int>(state.waiting_requests());
  load.queued_tokens = static_cast<int64_t>(state.queued_tokens());
  load.global_pages = {static_cast<int64_t>(state.total_global_pages()),
                       static_cast<int64_t>(state.used_global_pages()),
                       static_cast<int64_t>(state.global_page_bytes())};
  load.window_pages = {static_cast<int64_t>(state.total_window_pages()),
                       static_cast<int64_t>(state.used_window_pages()),
                       static_cast<int64_t>(state.window_page_bytes())};
  load.prefill_tokens_per_second = state.prefill_tokens_per_second();
  load.decode_tokens_per_second = state.decode_tokens_per_second();
  for (const v1::RankStatus& rank : state.ranks()) {
    load.ranks.push_back(FromMessage(rank));
  }
  load.last_split = FromMessage(state.last_split());
  load.failure = state.failure();
  load.failure_cause = state.failure_cause();
  return load;
}

}  // namespace

absl::StatusOr<std::vector<std::string>> ParseGroupList(
    absl::string_view list) {
  std::vector<std::string> addresses;
  for (const absl::string_view entry :
       absl::StrSplit(list, ',', absl::SkipWhitespace())) {
    std::string address(absl::StripAsciiWhitespace(entry));
    RETURN_IF_ERROR(CheckAddress("--groups", address));
    if (std::find(addresses.begin(), addresses.end(), address) !=
        addresses.end()) {
      return absl::InvalidArgumentError(
          absl::StrCat("--groups names ", address, " twice"));
    }
    addresses.push_back(std::move(address));
  }
  if (addresses.empty()) {
    return absl::InvalidArgumentError(
        "--groups needs at least one HOST:PORT, got none");
  }
  return addresses;
}

Discovery::Discovery(std::vector<WorkerClient*> clients, Events events)
    : clients_(std::move(clients)),
      events_(std::move(events)),
      watches_(clients_.size()) {}

void Discovery::Perform(const Registry::Action& action) {
  const GroupId id = action.group;
  const uint64_t attempt = action.attempt;
  switch (action.kind) {
    case Registry::Action::Kind::kDescribe:
      clients_[id]->Describe(
          kDescribeTimeout,
          [this, id,
           attempt](const absl::StatusOr<v1::DescribeResponse>& response) {
            if (response.ok()) {
              events_.on_described(id, attempt, ToDescription(*response));
            } else {
              events_.on_described(id, attempt, response.status());
            }
          });
      break;
    case Registry::Action::Kind::kWatch:
      Watch(id, attempt);
      break;
    case Registry::Action::Kind::kStopWatch: {
      MutexLock lock(mutex_);
      if (watches_[id] != nullptr) watches_[id]->Cancel();
      watches_[id].reset();
      break;
    }
    case Registry::Action::Kind::kGone:
      break;  // The core has dealt with it.
  }
}

void Discovery::Watch(GroupId id, uint64_t attempt) {
  // Set before the first ReadNext(), hence before the first message.
  auto stream = std::make_shared<std::weak_ptr<WorkerStream>>();
  std::shared_ptr<WorkerStream> watch = clients_[id]->Watch(
      {.on_message =
           [this, id, attempt, stream](v1::GroupState& state) {
             events_.on_load(id, attempt, ToLoad(state));
             if (const auto next = stream->lock()) next->ReadNext();
           },
       .on_done =
           [this, id, attempt](const absl::Status& status) {
             events_.on_watch_ended(id, attempt, status);
           }});
  *stream = watch;
  {
    MutexLock lock(mutex_);
    watches_[id] = watch;
  }
  watch->ReadNext();
}

}  // namespace lapidary
