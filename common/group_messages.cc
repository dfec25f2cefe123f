#include "common/group_messages.h"

namespace lapidary {

PageUse FromMessage(const v1::PageFamilyStatus& message) {
  return {.total = static_cast<int64_t>(message.total()),
          .used = static_cast<int64_t>(message.used()),
          .bytes_per_page = static_cast<int64_t>(message.bytes_per_page())};
}

RankStatus FromMessage(const v1::RankStatus& message) {
  return {
      .rank = static_cast<int>(message.rank()),
      .host = message.host(),
      .device = message.device(),
      .global_pages = FromMessage(message.global_pages()),
      .window_pages = FromMessage(message.window_pages()),
      .replica_bytes = static_cast<int64_t>(message.replica_bytes()),
      .used_replica_bytes = static_cast<int64_t>(message.used_replica_bytes()),
      .gather_bytes = static_cast<int64_t>(message.gather_bytes())};
}

PromptSplit FromMessage(const v1::PromptSplit& message) {
  return {.prompt_tokens = static_cast<int>(message.prompt_tokens()),
          .computed_tokens = static_cast<int>(message.computed_tokens()),
          .token_split_rounds = static_cast<int>(message.token_split_rounds()),
          .head_split_steps = static_cast<int>(message.head_split_steps()),
          .token_split_tokens = static_cast<int>(message.token_split_tokens()),
          .range_tokens = {message.range_tokens().begin(),
                           message.range_tokens().end()},
          .received_bytes = {message.received_bytes().begin(),
                             message.received_bytes().end()},
          .seconds = message.seconds(),
          .transfer_seconds = message.transfer_seconds(),
          .measured_balance = message.measured_balance(),
          .rounds_over_limit = static_cast<int>(message.rounds_over_limit())};
}

v1::PageFamilyStatus ToMessage(const PageUse& pages) {
  v1::PageFamilyStatus message;
  message.set_total(static_cast<uint64_t>(pages.total));
  message.set_used(static_cast<uint64_t>(pages.used));
  message.set_bytes_per_page(static_cast<uint64_t>(pages.bytes_per_page));
  return message;
}

v1::RankStatus ToMessage(const RankStatus& rank) {
  v1::RankStatus message;
  message.set_rank(static_cast<uint32_t>(rank.rank));
  message.set_host(rank.host);
  message.set_device(rank.device);
  *message.mutable_global_pages() = ToMessage(rank.global_pages);
  *message.mutable_window_pages() = ToMessage(rank.window_pages);
  message.set_replica_bytes(static_cast<uint64_t>(rank.replica_bytes));
  message.set_used_replica_bytes(
      static_cast<uint64_t>(rank.used_replica_bytes));
  message.set_gather_bytes(static_cast<uint64_t>(rank.gather_bytes));
  return message;
}

v1::PromptSplit ToMessage(const PromptSplit& split) {
  v1::PromptSplit message;
  message.set_prompt_tokens(static_cast<uint32_t>(split.prompt_tokens));
  message.set_computed_tokens(static_cast<uint32_t>(split.computed_tokens));
  message.set_token_split_rounds(
      static_cast<uint32_t>(split.token_split_rounds));
  message.set_head_split_steps(static_cast<uint32_t>(split.head_split_steps));
  message.set_token_split_tokens(
      static_cast<uint32_t>(split.token_split_tokens));
  message.mutable_range_tokens()->Add(split.range_tokens.begin(),
                                      split.range_tokens.end());
  message.mutable_received_bytes()->Add(split.received_bytes.begin(),
                                        split.received_bytes.end());
  message.set_seconds(split.seconds);
  message.set_transfer_seconds(split.transfer_seconds);
  message.set_measured_balance(split.measured_balance);
  message.set_rounds_over_limit(static_cast<uint32_t>(split.rounds_over_limit));
  return message;
}

}  // namespace lapidary
