#!/bin/bash
#
# What a change has to pass, for a person and for CI alike.  Stops at the first
# failure and says what fixes it.
#
#   tools/check.sh           format, checks of the tree, build, tests
#   tools/check.sh --all     also the tests under all three sanitizers

set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$root"

# step FIX COMMAND...
step() {
  local fix=$1
  shift
  echo "== $*"
  "$@" || {
    echo "failed: $*"
    echo "to fix it: $fix"
    exit 1
  }
}

for tool in clang-format shellcheck; do
  step "apt-get install $tool" command -v "$tool"
done
step "clang-format -i on the files above; shellcheck says what is wrong with scripts" \
  tests/checks/format_test.sh
step "the table is tests/checks/includes.txt" tests/checks/includes_test.sh
step "the check is tests/checks/texts_test.sh" tests/checks/texts_test.sh
step "the output of the failed tests stands above" tests/run.sh
if [[ ${1:-} == --all ]]; then
  for sanitizer in --asan --ubsan --tsan; do
    step "the sanitizer's report stands above" tests/run.sh "$sanitizer"
  done
fi
echo "everything passed"
