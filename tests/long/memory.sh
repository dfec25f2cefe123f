#!/bin/bash
#
# What each rank of a group holds while it answers out of a long document, next
# to its share of the plan: runs the demo, asks twice a second for the pages in
# use, and prints a table of the most that was seen.  Resident memory is the
# peak that the system counts, the weights in it, which the ranks of a host share.

set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
readonly root

usage() { echo 'memory.sh [--ranks "1 2 4"] [--context 262144]'; }

ranks="1 2 4"
context=262144
work=$(mktemp -d)
readonly work
demo=    # While it runs.
servers= # That it has left running.

# Ends the demo and the servers that it leaves running, with this script.
stop() {
  [[ -z $demo ]] || { kill "$demo" 2>/dev/null && wait "$demo"; } || true
  # shellcheck disable=SC2086 # Two process ids.
  [[ -z $servers ]] || kill $servers 2>/dev/null || true
  rm -rf "$work"
}

# sample ROUTER: lines "RANK GLOBAL-PAGES WINDOW-PAGES REPLICA".
sample() {
  "$root/bazel-bin/client/lapidary" --router "$1" status 2>/dev/null | awk '
    function count(pattern) {
      return match($0, pattern) ? substr($0, RSTART, RLENGTH) + 0 : 0
    }
    { gsub(",", "") }
    $1 == "global" { global = $2 }
    $1 == "window" { window = $2 }
    $1 == "rank" {
      split($0, parts, "; replica ")
      print $2, count("[0-9]+ global"), count("[0-9]+ window"), parts[2]
      ++ranks
    }
    END { if (!ranks) print 0, global + 0, window + 0, "none" }' || true
}

# print_row RANKS RANK RUN: the most that was sampled of a rank.
print_row() {
  local log=$3/worker-$2.log pid peak
  # Of the ranks that the supervisor says it started.
  pid=$(sed -n 's/.*started .* ranks: //p' "$3/worker.log" | tail -n 1 | cut -d ' ' -f $(($2 + 1)))
  peak=$(awk '/^VmHWM/ { printf "%.0f MiB", $2 / 1024 }' "/proc/$pid/status")
  awk -v ranks="$1" -v rank="$2" -v context="$context" -v peak="$peak" \
    -v workspace="$(sed -n 's/.*; workspace \(.*\)/\1/p' "$log")" '
    $1 == rank {
      if ($2 > global) global = $2
      if ($3 > window) window = $3
      if ($2 > 0) {
        replica = $4
        for (i = 5; i <= NF; ++i) replica = replica " " $i
      }
    }
    END {
      share = int((context / 64 + ranks - 1) / ranks)
      printf "| %d | %d | %d of %d | %d | %s | %s | %s |\n", ranks, rank,
             global, share, window, replica, workspace == "" ? "" : workspace, peak
    }' "$work/samples"
}

# measure RANKS: one demo, a row a rank.
measure() {
  local run='' router='' rank tries
  touch "$work/begin"
  "$root/deploy/local/demo.sh" --ranks "$1" --context "$context" --keep \
    >"$work/demo.log" 2>&1 &
  demo=$!
  : >"$work/samples"
  while kill -0 "$demo" 2>/dev/null; do
    [[ -n $run ]] || run=$(find "$root/build/demo" -maxdepth 1 -name 'run.*' -newer "$work/begin" | head -n 1)
    router=$(awk '$1 == "rpc" { print $2 }' "$run/router.ports" 2>/dev/null || true)
    [[ -z $router ]] || sample "$router" >>"$work/samples"
    sleep 0.5
  done
  wait "$demo" || {
    demo=
    tail -n 5 "$work/demo.log" >&2
    exit 1
  }
  demo=
  servers=$(sed -n 's/^To stop them: kill //p' "$work/demo.log")
  for ((rank = 0; rank < $1; ++rank)); do print_row "$1" "$rank" "$run"; done
  # shellcheck disable=SC2086 # Two process ids.
  kill $servers
  servers=
  for ((tries = 0; tries < 100; ++tries)); do
    pgrep -f "$run" >/dev/null || break
    sleep 0.2
  done
  rm -rf "$run"
}

main() {
  local n
  while (($# > 0)); do
    case $1 in
      --ranks | --context)
        (($# > 1)) || { echo "memory.sh: needs a value after $1" >&2; exit 1; }
        ;;&
      --ranks) ranks=$2; shift ;;
      --context) context=$2; shift ;;
      --help | -h) usage; exit 0 ;;
      *) echo "memory.sh: unknown option $1; see --help" >&2; exit 1 ;;
    esac
    shift
  done
  trap stop EXIT
  trap 'exit 130' INT TERM
  echo "| ranks | rank | global pages, of its share | window pages | replica | workspace | peak resident |"
  echo "|---|---|---|---|---|---|---|"
  for n in $ranks; do measure "$n"; done
}

main "$@"
