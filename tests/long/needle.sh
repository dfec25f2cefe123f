#!/bin/bash
#
# The needle ladder beyond what the tests run: hides a fact at every depth of
# documents up to 256K tokens and asks groups of 1, 2 and 4 ranks for it.  A row
# is appended to docs/needle.csv after each run; runs that have a row are not
# repeated, so it can be stopped and started again.

set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
readonly root
readonly rows=$root/docs/needle.csv

usage() {
  cat <<'END'
needle.sh [--ranks "1 2 4"] [--contexts "4096 16384 65536 131072 262144"]
          [--depths "0 10 20 30 40 50 60 70 80 90 100"] [--table]

At 262144 tokens depths 0, 50 and 100 are run, whatever --depths says.
--table runs nothing and prints what there is.
END
}

ranks="1 2 4"
contexts="4096 16384 65536 131072 262144"
depths="0 10 20 30 40 50 60 70 80 90 100"

# Right answers of all, and the least seconds to the first token, by ranks and
# context: the least, because other programs may have run beside the rest.
print_table() {
  echo "| ranks | context | right | depths | seconds to the first token, at least |"
  echo "|---|---|---|---|---|"
  tail -n +2 "$rows" | sort -t , -k1n -k2n -k3n | awk -F , '
    function flush() {
      if (n) printf "| %d | %d | %d of %d | %s | %s |\n", ranks, context, right,
                    n, depths, least
    }
    $1 != ranks || $2 != context {
      flush(); ranks = $1; context = $2; n = right = 0; depths = ""
    }
    {
      if (!n++ || $5 < least) least = $5
      right += ($4 == "right")
      depths = depths (depths == "" ? "" : " ") $3
    }
    END { flush() }'
}

# run RANKS CONTEXT DEPTH: one demo, one row.
run() {
  local log result=wrong seconds
  log=$(mktemp)
  if "$root/deploy/local/demo.sh" --ranks "$1" --context "$2" --depth "$3" \
    >"$log" 2>&1; then
    result=right
  fi
  seconds=$(sed -n 's/.*first token *after \([0-9.]*\) s.*/\1/p' "$log" | head -n 1)
  if [[ -z $seconds ]]; then
    echo "needle.sh: no answer with $1 ranks, $2 tokens, depth $3:" >&2
    tail -n 5 "$log" >&2
    rm -f "$log"
    exit 1
  fi
  rm -f "$log"
  echo "$1,$2,$3,$result,$seconds,$(date +%F),$(nproc)" >>"$rows"
  echo "ranks $1, context $2, depth $3: $result, first token after $seconds s"
  [[ $result == right ]]
}

main() {
  local n context depth wrong=0
  while (($# > 0)); do
    case $1 in
      --ranks) ranks=$2; shift ;;
      --contexts) contexts=$2; shift ;;
      --depths) depths=$2; shift ;;
      --table) print_table; exit 0 ;;
      --help | -h) usage; exit 0 ;;
      *) echo "needle.sh: unknown option $1; see --help" >&2; exit 1 ;;
    esac
    shift
  done
  [[ -f $rows ]] || echo "ranks,context,depth,result,seconds,date,cores" >"$rows"
  for context in $contexts; do
    for n in $ranks; do
      for depth in $depths; do
        [[ $context -lt 262144 || $depth =~ ^(0|50|100)$ ]] || continue
        grep -q "^$n,$context,$depth," "$rows" && continue
        run "$n" "$context" "$depth" || wrong=$((wrong + 1))
      done
    done
  done
  print_table
  ((wrong == 0)) || { echo "needle.sh: $wrong wrong answers" >&2; exit 1; }
}

main "$@"
