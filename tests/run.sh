#!/bin/bash
#
# Installs what is missing, builds everything and runs all tests.  The last line
# is "N passed, N failed"; the exit code is 0 if nothing failed.

set -uo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
readonly root
readonly state=$root/build/tests
# shellcheck source=deploy/local/setup.sh
source "$root/deploy/local/setup.sh"

usage() {
  cat <<'END'
run.sh [--asan | --ubsan | --tsan] [TARGET...]

Runs the tests of TARGET (//...), plainly or under one of the sanitizers.
Targets that a sanitizer cannot judge carry a tag no-asan, no-ubsan or no-tsan
and the reason.  CUDA sources are compiled where nvcc is installed.
END
}

passed=0
failed=0
skipped=0
options=()
targets=()

parse_arguments() {
  while (($# > 0)); do
    case $1 in
      --asan | --ubsan | --tsan)
        # Outputs of their own, so that switching rebuilds nothing.
        options=("--config=${1#--}" "--platform_suffix=${1#--}")
        ;;
      --help | -h)
        usage
        exit 0
        ;;
      -*) fail "unknown option $1; see --help" ;;
      *) targets+=("$1") ;;
    esac
    shift
  done
  ((${#targets[@]} > 0)) || targets=(//...)
}

# field NAME: the first string value of "NAME" in the JSON on stdin.
field() { sed -n "s/.*\"$1\":\"\([^\"]*\)\".*/\1/p" | head -n 1; }

# read_cases FILE: lines "passed NAME", "failed NAME" and "skipped NAME: REASON",
# one for each test case of a test.xml.
read_cases() {
  awk -v RS='<' '
    function attribute(name,   text) {
      if (!match($0, name "=\"[^\"]*\"")) return ""
      text = substr($0, RSTART + length(name) + 2)
      return substr(text, 1, RLENGTH - length(name) - 3)
    }
    function flush() { if (name != "") print state, name reason }
    /^testcase / {
      flush()
      suite = attribute("classname")
      name = (suite == "" ? "" : suite ".") attribute(" name")
      state = "passed"; reason = ""
    }
    /^(failure|error)[ >]/ { state = "failed"; reason = "" }
    /^skipped[ >\/]/ {
      state = "skipped"; reason = ": " attribute("message")
      gsub(/&#x0A;/, " ", reason); gsub(/&quot;/, "\"", reason)
      gsub(/&lt;/, "<", reason); gsub(/&gt;/, ">", reason)
      gsub(/&amp;/, "\\&", reason)
    }
    END { flush() }
  ' "$1"
}

# count_result EVENT: counts the test cases of one testResult event of Bazel.
count_result() {
  local event=$1 label status xml outcome rest before=$failed
  label=$(field label <<<"$event")
  status=$(field status <<<"$event")
  xml=$(sed -n 's/.*"name":"test.xml","uri":"file:\/\/\([^"]*\)".*/\1/p' <<<"$event")
  if [[ -n $xml && -f $xml ]]; then
    while read -r outcome rest; do
      case $outcome in
        passed) ((++passed)) ;;
        failed)
          ((++failed))
          say "FAILED  $label $rest"
          ;;
        skipped)
          ((++skipped))
          say "SKIPPED $label $rest"
          ;;
      esac
    done < <(read_cases "$xml")
  fi
  if [[ $status != PASSED ]] && ((failed == before)); then
    ((++failed))
    say "FAILED  $label ($status)"
  fi
}

run_tests() {
  local events=$state/events.json event code
  rm -f "$events"
  (cd "$root" && run_bazel test --keep_going "${options[@]}" \
    --build_event_json_file="$events" -- "${targets[@]}")
  code=$?
  while read -r event; do
    case $event in
      '{"id":{"testResult"'*) count_result "$event" ;;
      '{"id":{"targetCompleted"'*'"success":true'*) ;;
      '{"id":{"targetCompleted"'*)
        ((++failed))
        say "FAILED  $(field label <<<"$event") (does not build)"
        ;;
    esac
  done < <(cat "$events" 2>/dev/null)
  if ((code != 0 && failed == 0)); then
    ((++failed))
    say "FAILED  bazel ended with exit code $code"
  fi
}

# Compiles each CUDA source for both architectures, if there is a compiler.
compile_cuda() {
  local source
  command -v nvcc >/dev/null || return 0
  while read -r source; do
    if (cd "$root" && nvcc -std=c++20 -I. -c "$source" -o /dev/null \
      -gencode=arch=compute_80,code=sm_80 \
      -gencode=arch=compute_90a,code=sm_90a); then
      ((++passed))
    else
      ((++failed))
      say "FAILED  $source (nvcc)"
    fi
  done < <(cd "$root" && find . -name '*.cu' -not -path './bazel-*' -not -path './build/*')
}

main() {
  parse_arguments "$@"
  mkdir -p "$state"
  install_packages "$root/deploy/local/packages.txt" "$state/packages.log"
  if [[ -z ${LAPIDARY_GOLDEN:-} && -d $root/../shared/golden ]]; then
    LAPIDARY_GOLDEN=$(cd "$root/../shared/golden" && pwd)
    export LAPIDARY_GOLDEN
  fi
  run_tests
  ((${#options[@]} > 0)) || compile_cuda
  ((skipped == 0)) || say "$skipped skipped, for the reasons above"
  say "$passed passed, $failed failed"
  ((failed == 0))
}

main "$@"
