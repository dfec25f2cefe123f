# Sourced by the checks: goes to the root of the source tree and lists files.
#
# The checks run in the tree itself (they are tagged "local"), because they look
# at all of it, new files included, and not at what a BUILD file names.
# shellcheck shell=bash

cd "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/../.." || exit 1

# sources PATTERN...: the project's files with such names, as ./-less paths.
sources() {
  local -a names=()
  local pattern
  for pattern; do names+=(-o -name "$pattern"); done
  find . \( -name .git -o -path './bazel-*' -o -path ./build \) -prune -o \
    -type f \( "${names[@]:1}" \) -print | sed 's#^\./##' | sort
}

# report FINDINGS: fails if there are any.
report() {
  if [[ -n $1 ]]; then
    printf '%s\n' "$1"
    exit 1
  fi
  echo "nothing found"
}
