// The version of this build.

#ifndef COMMON_VERSION_H_
#define COMMON_VERSION_H_

namespace lapidary {

inline constexpr char kVersion[] = "0.1.0";

}  // namespace lapidary

#endif  // COMMON_VERSION_H_
