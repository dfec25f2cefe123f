#!/bin/bash
#
# clang-format on our C++ and shellcheck on our scripts, each where installed.

set -euo pipefail
# shellcheck source=tests/checks/sources.sh
source "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/sources.sh"

check_cpp() {
  if ! command -v clang-format >/dev/null; then
    echo "C++ not checked: clang-format is not installed" >&2
    return
  fi
  sources '*.h' '*.cc' '*.cu' '*.cuh' |
    xargs -n 20 -P 2 clang-format --dry-run -Werror 2>&1 |
    sed -nE 's/^([^:]+):[0-9].*Wclang-format-violations.*/\1: needs clang-format -i/p' | sort -u
}

check_shell() {
  if ! command -v shellcheck >/dev/null; then
    echo "scripts not checked: shellcheck is not installed" >&2
    return
  fi
  { sources '*.sh'; echo .ci/run; } | xargs shellcheck -x -P . -f gcc || true
}

report "$(check_cpp; check_shell)"
