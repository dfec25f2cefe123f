#!/bin/bash
# Breaks the split over ranks on purpose, one patch at a time, and expects the
# tests that the patch names to fail: tests that cannot fail prove nothing.
#
#   tests/mutations/run.sh [NAME ...]
#
# NAME is a patch of this folder without .patch; without any, all run.  A patch
# begins with lines that say what it breaks and what must notice:
#
#   Breaks: a halo is one token short
#   Test: //tests/parity:group_test
#   Filter: Mini/GroupTest.*Of2
#
# Works on a copy of the tracked files in ${TMPDIR:-/tmp}/lapidary_mutations,
# with a Bazel output base of its own there, both kept for the next run.
# Exit code 1 if a test did not notice, 2 if something did not build or apply.

set -u -o pipefail

SOURCE=$(cd "$(dirname "$0")/../.." && pwd)
readonly SOURCE
readonly WORK=${TMPDIR:-/tmp}/lapidary_mutations
readonly LOG=$WORK/log
readonly TESTS_FAILED=3  # Bazel's exit code: built, but a test is red.

field() {  # FIELD PATCH
  sed -n "s/^$1: //p" "$2"
}

copy_tree() {
  rm -rf "$WORK/tree"
  mkdir -p "$WORK/tree"
  (cd "$SOURCE" && git ls-files -z | tar c --null -T -) |
    tar x -C "$WORK/tree" || exit 2
  if [ -e "$SOURCE/user.bazelrc" ]; then
    cp "$SOURCE/user.bazelrc" "$WORK/tree"
  fi
}

run_test() {  # PATCH; leaves Bazel's output in $LOG
  (cd "$WORK/tree" && bazel --output_base="$WORK/output" test \
    --symlink_prefix="$WORK/links/" --test_output=all \
    --test_filter="$(field Filter "$1")" "$(field Test "$1")") \
    >"$LOG" 2>&1
}

# The number of tests that failed, or that the program died in one.
seen_by() {
  sed -n 's/^\[  FAILED  \] \([0-9]*\) tests\?, listed below:$/\1 red/p' "$LOG" |
    grep . || echo "a crash"
}

fail() {
  echo "$1; see $LOG" >&2
  exit 2
}

patches=("$SOURCE"/tests/mutations/*.patch)
if [ $# -gt 0 ]; then
  patches=("${@/#/$SOURCE/tests/mutations/}")
  patches=("${patches[@]/%/.patch}")
fi

copy_tree
missed=0
for patch in "${patches[@]}"; do
  name=$(basename "$patch" .patch)
  run_test "$patch" || fail "$name: its tests fail without it"
  patch -d "$WORK/tree" -p1 -s -i "$patch" || fail "$name does not apply"
  run_test "$patch"
  case $? in
    0) result="NOT NOTICED"; missed=1 ;;
    "$TESTS_FAILED") result="noticed, $(seen_by)" ;;
    *) fail "$name does not build" ;;
  esac
  printf '%-24s %s: %s\n' "$name" "$(field Breaks "$patch")" "$result"
  patch -d "$WORK/tree" -p1 -s -R -i "$patch" || fail "$name does not come off"
done
exit $missed
