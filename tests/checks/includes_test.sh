#!/bin/bash
#
# The include table of the architecture: who may include whom, which folders
# are pure, and who may speak gRPC and CUDA.

set -euo pipefail
# shellcheck source=tests/checks/sources.sh
source "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/sources.sh"

# Lines "FILE INCLUDED", quotes and brackets removed.
includes() {
  sources '*.h' '*.cc' '*.cu' '*.cuh' | xargs grep -H '^#include ' |
    sed -E 's/^([^:]+):#include [<"]([^>"]+)[>"].*/\1 \2/'
}

# grpcpp and generated protos stay at the edges: rpc/ folders, programs and the
# one translation of errors and of a group's state.  The client, the tools,
# tests/ and the tests of a whole router or worker, which play its client, are
# edges themselves.
speaks_grpc='^(client|tests|tools)/|/rpc/|^common/(grpc_status|group_messages)|_main\.cc$|^(router|worker)/[^/]*_test\.cc$'
speaks_cuda='^kernels/cuda/|^worker/parallel/nccl_collective'
pure='^(worker/(cache|schedule)|router/(core|text))/|^worker/parallel/context_split'

check_table() {
  awk '
    FNR == NR {
      if ($0 ~ /^ *(#|$)/) next
      folder = $1; sub(/:$/, "", folder)
      for (i = 2; i <= NF; ++i) allowed[folder] = allowed[folder] " " $i
      known[folder] = 1
      next
    }
    # The longest folder of the table that holds `path`.
    function owner(path,   at) {
      while (match(path, /\/[^\/]*$/)) {
        path = substr(path, 1, RSTART - 1)
        if (path in known) return path
      }
      return ""
    }
    function may(folder, header,   i, n, list, prefix) {
      if (index(header, folder "/") == 1) return 1
      n = split(allowed[folder], list, " ")
      for (i = 1; i <= n; ++i) {
        prefix = list[i]
        if (prefix ~ /\/$/) {
          if (header ~ ("^" prefix "[^/]*$")) return 1
        } else if (index(header, prefix "/") == 1) return 1
      }
      return 0
    }
    $2 !~ /^(client|common|kernels|proto|router|third_party|tools|tests|worker)\// { next }
    {
      folder = owner($1)
      if (folder == "") next
      # Programs tie their component together and speak its protos.
      if ($1 ~ /(_main|^(router|worker)\/[^\/]*_test)\.cc$/ && $2 ~ ("^(proto|" folder ")/")) next
      # Tests use what is made for tests.
      if ($1 ~ /(_test\.cc|_benchmark\.cc)$|\/testing\// && $2 ~ /(^|\/)testing\/|^tests\//) next
      if (!may(folder, $2)) print $1 " includes " $2 ": " folder "/ may not"
    }
  ' tests/checks/includes.txt <(includes)
}

check_edges() {
  includes | grep -E ' (grpcpp/|grpc/|grpc\+\+/|.*\.pb\.h$)' |
    awk -v edges="$speaks_grpc" '$1 !~ edges {
      print $1 " includes " $2 ": only rpc/ folders, programs and the translations in common/ may"
    }'
  includes | grep -E ' (cuda|nccl|cublas|cub/)' |
    awk -v edges="$speaks_cuda" '$1 !~ edges {
      print $1 " includes " $2 ": only kernels/cuda and nccl_collective may"
    }'
}

check_purity() {
  includes | awk -v pure="$pure" '
    $1 ~ pure && $1 !~ /(_test|_benchmark)\.cc$/ &&
    $2 ~ /^(thread|mutex|condition_variable|future|chrono|ctime|random|sys\/socket\.h|absl\/(time\/clock|synchronization\/.*)\.?h?|common\/(mutex|bounded_queue|clock|logging|metrics)\.h|grpcpp\/.*)$/ {
      print $1 " includes " $2 ": this folder is pure"
    }'
  sources '*.h' '*.cc' | grep -E "$pure" | grep -vE '(_test|_benchmark)\.cc$' |
    xargs -r grep -nE '\b(LOG|VLOG|PLOG)\(|absl::Now\(|std::thread|getenv' |
    sed 's/$/: this folder is pure/' || true
}

report "$(check_table; check_edges || true; check_purity)"
