#!/bin/bash
#
# Runs the ranks of a group as processes of this machine and keeps them running.
#
#   run_group.sh RANKS DIRECTORY WORKER [FLAGS]...
#
# WORKER is the worker_main program, FLAGS are the same for all ranks.  DIRECTORY
# gets a log a rank (worker-R.log) and, once the group serves, the leader's port
# file (worker.ports).  A group is crash-only: when a rank ends, the others end by
# themselves, and all are started again, with the same rpc address.  SIGTERM
# drains the group and ends this script.
#
# Exit codes: 0 drained; 1 the group could not start, or failed again and again.

set -uo pipefail

# What a group gets to drain.
readonly drain_seconds=15
# What the other ranks get to end by themselves once one has failed: they know
# of it as soon, and one that hangs would keep the group away.
readonly failure_seconds=3
# Groups in a row that failed within so many seconds of their start.
readonly most_failures=5
readonly short_life_seconds=30

readonly ranks=$1 directory=$2 worker=$3
shift 3
readonly -a flags=("$@")

pids=()
stopping=no
served=no # By any group so far.
listen=127.0.0.1:0

say() { echo "$(date +%T) $*"; }

# A port of this machine that nobody listens on now.
free_port() {
  local port
  while :; do
    port=$((20000 + RANDOM % 12000))
    (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null || break
  done
  echo "$port"
}

start_ranks() {
  local rank rendezvous
  rendezvous=127.0.0.1:$(free_port)
  rm -f "$directory/worker.ports"
  pids=()
  for ((rank = 0; rank < ranks; ++rank)); do
    local -a own=(--rank "$rank" --ranks "$ranks" --rendezvous "$rendezvous")
    ((rank > 0)) || own+=(--listen "$listen" --port-file "$directory/worker.ports")
    "$worker" "${flags[@]}" "${own[@]}" >>"$directory/worker-$rank.log" 2>&1 </dev/null &
    pids+=($!)
  done
  say "started $ranks ranks: ${pids[*]}"
}

signal_ranks() { kill "-$1" "${pids[@]}" 2>/dev/null; }

any_runs() {
  local pid
  for pid in "${pids[@]}"; do
    kill -0 "$pid" 2>/dev/null && return 0
  done
  return 1
}

# await_ranks SECONDS: waits until all have ended; what still runs then is killed.
await_ranks() {
  local seconds=$1 tries
  for ((tries = 0; tries < seconds * 10; ++tries)); do
    any_runs || return
    sleep 0.1
  done
  say "killing what did not end within $seconds s"
  signal_ranks KILL
}

# Keeps the rpc address for the next start.
remember_address() {
  local address
  address=$(awk '$1 == "rpc" { print $2 }' "$directory/worker.ports" 2>/dev/null)
  [[ -n $address ]] || return
  listen=$address
  served=yes
}

on_stop() {
  stopping=yes
  signal_ranks TERM
}

main() {
  local failures=0 code status pid
  trap on_stop TERM INT
  while :; do
    SECONDS=0
    start_ranks
    wait -n "${pids[@]}"
    code=$?
    remember_address
    if ((code == 0)) || [[ $stopping == yes ]]; then
      await_ranks "$drain_seconds"
    else
      await_ranks "$failure_seconds"
    fi
    status=0
    for pid in "${pids[@]}"; do
      wait "$pid"
      code=$?
      ((code == 0)) || status=$code
    done
    if ((status == 0)) || [[ $stopping == yes ]]; then
      say "stopped"
      exit 0
    fi
    ((SECONDS >= short_life_seconds)) && failures=0
    ((failures += 1))
    if [[ $served == no ]] || ((failures >= most_failures)); then
      say "the group could not serve (exit code $status, failure $failures in a row)"
      exit 1
    fi
    say "a rank ended with $status; starting the group again"
    sleep 1
  done
}

main
