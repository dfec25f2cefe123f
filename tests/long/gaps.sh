#!/bin/bash
#
# How long streams wait between two tokens while a long prompt prefills: four
# streams and a document, on a group of ranks.  Prints, from the worker's
# histogram, the buckets that the 99th percentile and the longest gap are in; the
# worker's default --inter-token-deadline is 2 s on CPUs, twice that is allowed.

set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
readonly root
readonly streams=4

usage() { echo 'gaps.sh [--ranks 2] [--context 65536]'; }

ranks=2
context=65536
work=$(mktemp -d)
readonly work
pids=() # Streams and servers.

stop() {
  ((${#pids[@]} == 0)) || kill "${pids[@]}" 2>/dev/null || true
  [[ -z ${run:-} ]] || rm -rf "$run"
  rm -rf "$work"
}

port() { awk -v kind="$2" '$1 == kind { print $2 }' "$run/$1.ports"; }

client() { "$root/bazel-bin/client/lapidary" --router "$(port router rpc)" "$@"; }

# buckets: lines "UPPER-BOUND COUNT" of the gaps so far, COUNT cumulative.
buckets() {
  curl -sf "http://$(port worker metrics)/metrics" |
    sed -n 's/^lapidary_worker_inter_token_seconds_bucket{.*le="\([^"]*\)".*} \(.*\)/\1 \2/p'
}

main() {
  while (($# > 0)); do
    case $1 in
      --ranks | --context)
        (($# > 1)) || { echo "gaps.sh: needs a value after $1" >&2; exit 1; }
        ;;&
      --ranks) ranks=$2; shift ;;
      --context) context=$2; shift ;;
      --help | -h) usage; exit 0 ;;
      *) echo "gaps.sh: unknown option $1; see --help" >&2; exit 1 ;;
    esac
    shift
  done
  trap stop EXIT
  trap 'exit 130' INT TERM
  "$root/deploy/local/demo.sh" --ranks "$ranks" --context 4096 --keep \
    --kv-memory 1GiB >"$work/demo.log" 2>&1 ||
    { tail -n 5 "$work/demo.log" >&2; exit 1; }
  read -ra pids <<<"$(sed -n 's/^To stop them: kill //p' "$work/demo.log")"
  run=$(sed -n 's/^Their logs are in //p' "$work/demo.log")

  "$root/bazel-bin/tools/make_document" --tokenizer "$root/build/demo/recall/tokenizer.json" \
    --tokens $((context - 128)) --depth 50 --fact "The code is 7." \
    --output "$work/document.txt" >"$work/make_document.log" 2>&1
  local i
  for ((i = 0; i < streams; ++i)); do
    client generate --prompt "The door is red and the lamp is green. Stream $i: the door is" \
      --max-tokens 100000 --ignore-eos --stream >"$work/stream.$i" 2>&1 &
    pids+=($!)
  done
  for ((i = 0; i < streams; ++i)); do
    until [[ $(wc -c <"$work/stream.$i") -gt 400 ]]; do
      kill -0 "${pids[@]}" || { cat "$work/stream.$i" >&2; exit 1; }
      sleep 0.1
    done
  done

  buckets >"$work/before"
  client generate --file "$work/document.txt" --prompt "The code is" \
    --max-tokens 1 --timings >"$work/answer" 2>"$work/timings"
  buckets >"$work/after"
  sed 's/^/  /' "$work/timings"
  paste "$work/before" "$work/after" | awk -v streams="$streams" '
    { bound[NR] = $1; count[NR] = $4 - $2 }
    END {
      all = count[NR]
      for (i = NR; i >= 1; --i) {
        if (count[i] >= 0.99 * all) p99 = bound[i]
        if (count[i] == all) longest = bound[i]
      }
      printf "%d streams, %d gaps: 99 of 100 are %s s or less, all %s s or less\n",
             streams, all, p99, longest
    }'
}

main "$@"
