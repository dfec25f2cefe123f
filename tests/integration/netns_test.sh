#!/bin/bash
#
# A group over two hosts: network namespaces with a cable between them, a rank
# in each, the router beside rank 0.  Nothing but the cable joins them, so
# addresses have to be right.  Skipped where namespaces are not allowed.
#
#      north 10.77.x.1                          south 10.77.x.2
#      router, rank 0 (leader)  ── cable ──     rank 1

set -euo pipefail

readonly ns_north=lapidary-north-$$ ns_south=lapidary-south-$$
readonly net=10.77.$(($$ % 250))
readonly dir=${TEST_TMPDIR:?needs a directory}
readonly fact="The access code of the north gate is 71-KESTREL-94."
readonly question="The access code of the north gate is"
readonly patience=120 # Seconds, of each wait.

skip() {
  echo "SKIPPED: $*"
  exit 0
}

fail() {
  echo "FAILED: $*"
  tail -n 20 "$dir"/*.log || true
  exit 1
}

cleanup() {
  local -a running
  mapfile -t running < <(jobs -p)
  ((${#running[@]} == 0)) || kill -KILL "${running[@]}" 2>/dev/null || true
  ip netns del "$ns_north" 2>/dev/null || true
  ip netns del "$ns_south" 2>/dev/null || true
}

north() { ip netns exec "$ns_north" "$@"; }
south() { ip netns exec "$ns_south" "$@"; }

# await FILE PID: until FILE is there, or PID has ended.
await() {
  local deadline=$((SECONDS + patience))
  until [[ -s $1 ]]; do
    kill -0 "$2" 2>/dev/null || fail "a process ended before it wrote $1"
    ((SECONDS < deadline)) || fail "no $1 within $patience s"
    sleep 0.1
  done
}

# await_end PID: its exit code, in `code`.
await_end() {
  local deadline=$((SECONDS + patience))
  while kill -0 "$1" 2>/dev/null; do
    ((SECONDS < deadline)) || fail "process $1 did not end within $patience s"
    sleep 0.1
  done
  code=0
  wait "$1" || code=$?
}

lay_cable() {
  command -v ip >/dev/null || skip "needs ip (Debian package iproute2)"
  ip netns add "$ns_north" 2>"$dir/netns.txt" ||
    skip "network namespaces are not allowed here: $(<"$dir/netns.txt")"
  trap cleanup EXIT
  ip netns add "$ns_south"
  ip link add lp-n$$ type veth peer name lp-s$$ 2>"$dir/netns.txt" ||
    skip "no virtual cable can be laid here: $(<"$dir/netns.txt")"
  ip link set lp-n$$ netns "$ns_north"
  ip link set lp-s$$ netns "$ns_south"
  north ip address add "$net.1/24" dev lp-n$$
  south ip address add "$net.2/24" dev lp-s$$
  north ip link set lp-n$$ up
  south ip link set lp-s$$ up
  north ip link set lo up
  south ip link set lo up
}

write_model() {
  tools/make_checkpoint --recall --output "$dir/recall" \
    --tokenizer tests/testdata/tokenizer/mini/tokenizer.json
  tools/make_document --tokenizer "$dir/recall/tokenizer.json" --tokens 3900 \
    --depth 40 --fact "$fact" --output "$dir/document.txt" \
    --question "$question" >"$dir/expected.txt"
}

start() {
  local -a flags=(--model "$dir/recall" --image-dir "$dir/images"
    --kv-memory 256MiB --threads 1 --ranks 2 --rendezvous "$net.1:29500"
    --round-tokens 512 --metrics-listen 127.0.0.1:0)
  # The follower first: it waits for the leader.
  ip netns exec "$ns_south" worker/worker_main "${flags[@]}" --rank 1 \
    --port-file "$dir/follower.ports" >"$dir/follower.log" 2>&1 &
  follower=$!
  ip netns exec "$ns_north" worker/worker_main "${flags[@]}" --rank 0 --listen "$net.1:0" \
    --port-file "$dir/leader.ports" >"$dir/leader.log" 2>&1 &
  leader=$!
  await "$dir/leader.ports" "$leader"
  await "$dir/follower.ports" "$follower"
  ip netns exec "$ns_north" router/router_main --model "$dir/recall" --listen "$net.1:0" \
    --groups "$(awk '$1 == "rpc" { print $2 }' "$dir/leader.ports")" \
    --port-file "$dir/router.ports" >"$dir/router.log" 2>&1 &
  await "$dir/router.ports" "$!"
  router=$(awk '$1 == "rpc" { print $2 }' "$dir/router.ports")
}

# The client comes from the other host.
ask() {
  local answer
  south client/lapidary --router "$router" generate --file "$dir/document.txt" \
    --prompt "$question" --max-tokens 64 --temperature 0 \
    --output "$dir/answer.txt" >"$dir/client.log" 2>&1 || fail "no answer"
  answer=$(<"$dir/answer.txt")
  [[ ${answer# } == "$(<"$dir/expected.txt")" ]] ||
    fail "the answer is $answer, expected $(<"$dir/expected.txt")"
}

# A cable that is cut: both sides notice, and end.
cut_cable() {
  north ip link set lp-n$$ down
  await_end "$leader"
  ((code == 3)) || fail "the leader ended with $code, expected 3"
  await_end "$follower"
  ((code == 3)) || fail "the follower ended with $code, expected 3"
  grep -q 'worker_main: the group failed: rank 1' "$dir/leader.log" ||
    fail "the leader does not name rank 1"
  grep -q 'worker_main: the group failed: rank 0' "$dir/follower.log" ||
    fail "the follower does not name rank 0"
}

lay_cable
write_model
start
ask
cut_cable
echo "PASSED"
