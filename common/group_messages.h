// How a group stands, from group.proto's messages and back.

#ifndef COMMON_GROUP_MESSAGES_H_
#define COMMON_GROUP_MESSAGES_H_

#include "common/group_status.h"
#include "proto/lapidary/v1/group.pb.h"

namespace lapidary {

PageUse FromMessage(const v1::PageFamilyStatus& message);
RankStatus FromMessage(const v1::RankStatus& message);
PromptSplit FromMessage(const v1::PromptSplit& message);

v1::PageFamilyStatus ToMessage(const PageUse& pages);
v1::RankStatus ToMessage(const RankStatus& rank);
v1::PromptSplit ToMessage(const PromptSplit& split);

}  // namespace lapidary

#endif  // COMMON_GROUP_MESSAGES_H_
