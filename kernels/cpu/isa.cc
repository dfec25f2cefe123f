#include "kernels/cpu/isa.h"

#include <string>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"

namespace lapidary {
namespace {

constexpr Isa kAll[] = {Isa::kAuto, Isa::kPortable, Isa::kAvx2, Isa::kAvx512,
                        Isa::kAvx512Bf16};

std::string Names(const std::vector<Isa>& isas) {
  return absl::StrJoin(isas, ", ", [](std::string* out, Isa isa) {
    absl::StrAppend(out, IsaName(isa));
  });
}

bool HasAvx2() {
  return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
}

bool HasAvx512() {
  return HasAvx2() && __builtin_cpu_supports("avx512f") &&
         __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512dq") &&
         __builtin_cpu_supports("avx512vl");
}

}  // namespace

absl::string_view IsaName(Isa isa) {
  switch (isa) {
    case Isa::kAuto:
      return "auto";
    case Isa::kPortable:
      return "portable";
    case Isa::kAvx2:
      return "avx2";
    case Isa::kAvx512:
      return "avx512";
    case Isa::kAvx512Bf16:
      return "avx512_bf16";
  }
  return "unknown";
}

absl::StatusOr<Isa> ParseIsa(absl::string_view name) {
  for (const Isa isa : kAll) {
    if (IsaName(isa) == name) return isa;
  }
  return absl::InvalidArgumentError(absl::StrCat(
      "instruction set must be one of ",
      Names({std::begin(kAll), std::end(kAll)}), ", got '", name, "'"));
}

std::vector<Isa> SupportedIsas() {
  std::vector<Isa> isas = {Isa::kPortable};
  if (HasAvx2()) isas.push_back(Isa::kAvx2);
  if (HasAvx512()) isas.push_back(Isa::kAvx512);
  if (HasAvx512() && __builtin_cpu_supports("avx512bf16")) {
    isas.push_back(Isa::kAvx512Bf16);
  }
  return isas;
}

absl::StatusOr<Isa> ResolveIsa(Isa isa) {
  const std::vector<Isa> supported = SupportedIsas();
  if (isa == Isa::kAuto) return supported.back();
  for (const Isa have : supported) {
    if (have == isa) return isa;
  }
  return absl::FailedPreconditionError(
      absl::StrCat("needs a machine with ", IsaName(isa), ", this one has ",
                   Names(supported)));
}

}  // namespace lapidary
