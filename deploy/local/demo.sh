#!/bin/bash
#
# From nothing to an answer out of a long document: installs, builds, starts a
# group of workers and a router, asks for a fact that is hidden in the document,
# checks the answer, and stops everything.

set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
readonly root
readonly state=$root/build/demo
# shellcheck source=deploy/local/setup.sh
source "$root/deploy/local/setup.sh"

readonly fact="The access code of the north gate is 71-KESTREL-94."
readonly code="71-KESTREL-94"

usage() {
  cat <<'END'
demo.sh: serves a model on this machine and asks it about a long document.

  --context N       length of the request in tokens, 4096 to 262144 (16384)
  --depth PERCENT   where in the document the fact stands, 0 to 100 (50)
  --question TEXT   what to ask. The built-in model continues a line of the
                    document: TEXT is the beginning of one, 7 tokens or more, such
                    as "The contents of the NOTICE file are for informational"
  --model DIR       serve this Hugging Face directory instead; its answer is
                    shown and not checked
  --ranks N         split the work over N worker processes: 1, 2 or 4 (1); the
                    cores are divided among them
  --kv-memory SIZE  key/value memory of each worker, such as 4GiB
  --keep            leave workers and router running, say how to use them

The document is made of the licence texts in /usr/share/common-licenses.
END
}

context=16384
depth=50
question=
model=
kv_memory=
ranks=1
keep=no
run=     # The folder of this run: document, answer, logs.
pids=()  # Of the servers.

parse_arguments() {
  while (($# > 0)); do
    case $1 in
      --help | -h)
        usage
        exit 0
        ;;
      --keep)
        keep=yes
        shift
        continue
        ;;
      --*=*)
        set -- "${1%%=*}" "${1#*=}" "${@:2}"
        ;;
    esac
    case $1 in
      --context | --depth | --question | --model | --kv-memory | --ranks) ;;
      *) fail "unknown option $1; see --help" ;;
    esac
    (($# > 1)) || fail "needs a value after $1; see --help"
    case $1 in
      --context) context=$2 ;;
      --depth) depth=$2 ;;
      --question) question=$2 ;;
      --model) model=$2 ;;
      --kv-memory) kv_memory=$2 ;;
      --ranks) ranks=$2 ;;
    esac
    shift 2
  done
  [[ $context =~ ^[1-9][0-9]{3,5}$ && $context -ge 4096 && $context -le 262144 ]] ||
    fail "--context needs a number from 4096 to 262144, found $context"
  [[ $depth =~ ^(0|[1-9][0-9]?|100)$ ]] ||
    fail "--depth needs a number from 0 to 100, found $depth"
  [[ $ranks =~ ^[124]$ ]] || fail "--ranks needs 1, 2 or 4, found $ranks"
  [[ -z $model || (-f $model/config.json && -f $model/tokenizer.json) ]] ||
    fail "--model needs a directory with config.json and tokenizer.json, found not both in $model"
}

build() {
  say "Building (the first time takes a while) ..."
  (cd "$root" && run_bazel build //client:lapidary //router:router_main \
    //worker:worker_main //tools:make_checkpoint //tools:make_document) \
    >"$state/build.log" 2>&1 ||
    fail "the build failed: $(grep -m 3 -i error "$state/build.log")
The whole output is in $state/build.log"
}

# Writes the recall checkpoint, unless the one that is there is as new as the
# tool that writes it.
write_checkpoint() {
  local tool=$root/bazel-bin/tools/make_checkpoint
  local stamp
  stamp=$(sha256sum "$tool" | cut -d ' ' -f 1)
  [[ $(cat "$model.stamp" 2>/dev/null) == "$stamp" && -d $model ]] && return
  say "Writing the recall checkpoint ..."
  rm -rf "$model"
  "$tool" --recall --tokenizer "$root/tests/testdata/tokenizer/mini/tokenizer.json" \
    --output "$model" >"$state/checkpoint.log" 2>&1 ||
    fail "the checkpoint could not be written: $(tail -n 1 "$state/checkpoint.log")"
  echo "$stamp" >"$model.stamp"
}

# Makes the document; with the recall model, also the answer to expect.
make_document() {
  local -a check=()
  local hint=
  if [[ $recall == yes ]]; then
    check=(--question "$question")
    hint="
--question needs the beginning of a line of $run/document.txt"
  fi
  say "Making a document of about $context tokens with a fact at $depth % ..."
  "$root/bazel-bin/tools/make_document" --tokenizer "$model/tokenizer.json" \
    --tokens $((context - 128 - ${#question})) --depth "$depth" \
    --fact "$fact" --output "$run/document.txt" "${check[@]}" \
    >"$run/expected.txt" 2>"$run/make_document.log" ||
    fail "$(tail -n 1 "$run/make_document.log")$hint"
}

# start NAME COMMAND...: starts a server and waits for its port file.  In a
# session of its own, so that Ctrl-C reaches this script first.
start() {
  local name=$1
  shift
  setsid "$@" >"$run/$name.log" 2>&1 </dev/null &
  pids+=($!)
  until [[ -s $run/$name.ports ]]; do
    kill -0 "${pids[-1]}" 2>/dev/null ||
      fail "the $name did not start: $(tail -q -n 1 "$run/$name"*.log | grep -m 1 _main: || tail -n 1 "$run/$name.log")
Its whole log is in $run"
    sleep 0.05
  done
}

# port NAME KIND: HOST:PORT of a server's rpc or metrics port.
port() { awk -v kind="$2" '$1 == kind { print $2 }' "$run/$1.ports"; }

lapidary() {
  "$root/bazel-bin/client/lapidary" --router "$(port router rpc)" "$@"
}

start_servers() {
  local threads=$(($(nproc) / ranks))
  say "Starting a router and a group of $ranks $( ((ranks == 1)) && echo worker || echo workers) ..."
  start worker "$root/deploy/local/run_group.sh" "$ranks" "$run" \
    "$root/bazel-bin/worker/worker_main" --model "$model" \
    --kv-memory "$kv_memory" --image-dir "$state/images" \
    --threads $((threads > 0 ? threads : 1))
  start router "$root/bazel-bin/router/router_main" --model "$model" \
    --groups "$(port worker rpc)" --port-file "$run/router.ports" \
    --listen 127.0.0.1:0 --metrics-listen 127.0.0.1:0
  local tries
  for ((tries = 0; tries < 600; ++tries)); do
    if lapidary status --json 2>/dev/null | grep -q '"state":"ready"'; then
      return
    fi
    kill -0 "${pids[@]}" 2>/dev/null || break
    sleep 0.05
  done
  fail "the router found no group that is ready:
$(lapidary status 2>&1)
The logs are in $run"
}

ask() {
  local tokens
  tokens=$(lapidary count --file "$run/document.txt" --prompt "$question") ||
    fail "the router could not count the tokens; its log is in $run/router.log"
  say "Asking, after $tokens tokens of prompt: $question"
  local attempt result
  for ((attempt = 1; ; ++attempt)); do
    result=0
    lapidary generate --file "$run/document.txt" --prompt "$question" \
      --max-tokens 64 --temperature 0 --stream --timings \
      --output "$run/answer.txt" || result=$?
    ((result != 0)) || return 0
    # 3: nobody is there now.  The group may have ended, and come back.
    ((result == 3 && attempt < 3)) || fail "no answer; the logs are in $run"
    say "Asking again ..."
    sleep 5
  done
}

check_answer() {
  local answer
  answer=$(<"$run/answer.txt")
  answer=${answer#"${answer%%[![:space:]]*}"}
  if [[ $recall == no ]]; then
    say "The answer of this model cannot be checked; the document says: $fact"
    [[ $answer != *"$code"* ]] || say "The answer names the code $code."
    return
  fi
  [[ $answer == "$(<"$run/expected.txt")" ]] ||
    fail "the answer is wrong; the document says: $(<"$run/expected.txt")
Document, answer and logs are in $run"
  say "The answer is right."
}

show_commands() {
  local client=bazel-bin/client/lapidary
  cat <<END
Workers and router go on running, and a worker that ends is started again. In
$root:
  export LAPIDARY_ROUTER=$(port router rpc)
  $client status
  $client chat
  $client generate --file $run/document.txt --prompt "$question"
END
  [[ $recall == no ]] || say "The built-in model only continues lines that it has read. In chat, say first
  The key of the old iron door is under the mat.
and then
  The key of the old iron door is"
  say "To stop them: kill ${pids[*]}
Their logs are in $run"
}

# Stops what was started: a group that drains takes 15 seconds at most.
stop() {
  local -a running=("${pids[@]}")
  local tries pid
  pids=()
  ((${#running[@]} > 0)) || return 0
  kill -TERM "${running[@]}" 2>/dev/null || true
  for ((tries = 0; tries < 360; ++tries)); do
    kill -0 "${running[@]}" 2>/dev/null || break
    sleep 0.05
  done
  for pid in "${running[@]}"; do
    kill -KILL -- "-$pid" 2>/dev/null || true # With all that it started.
    wait "$pid" 2>/dev/null || true
  done
}

# interrupted EXIT_CODE: ends after a signal; nothing of this run stays.
interrupted() {
  trap - EXIT INT TERM
  stop
  [[ -z $run ]] || rm -rf "$run"
  say "Interrupted; nothing is left running."
  exit "$1"
}

main() {
  parse_arguments "$@"
  trap stop EXIT
  trap 'interrupted 130' INT
  trap 'interrupted 143' TERM
  mkdir -p "$state"
  [[ -d /usr/share/common-licenses ]] ||
    fail "needs the texts in /usr/share/common-licenses (Debian package base-files)"
  recall=no
  if [[ -z $model ]]; then
    recall=yes
    model=$state/recall
  fi
  if [[ -z $question ]]; then
    question="What is the access code of the north gate?"
    [[ $recall == no ]] || question=${fact%% "$code"*}
  fi
  # What the 12B stores for such a context, and its windows, divided among the
  # ranks; plenty for recall.
  kv_memory=${kv_memory:-$(((1024 + context / 64) / ranks))MiB}

  install_packages "$root/deploy/local/packages.txt" "$state/packages.log"
  build
  [[ $recall == no ]] || write_checkpoint
  run=$(mktemp -d "$state/run.XXXXXX")
  make_document
  start_servers
  ask
  if ((ranks > 1)); then
    say "How the work was split (lapidary status):"
    lapidary status
  fi
  say "Metrics: worker http://$(port worker metrics)/metrics"
  say "         router http://$(port router metrics)/metrics"
  check_answer
  if [[ $keep == yes ]]; then
    show_commands
    trap - EXIT
    return
  fi
  stop
  rm -rf "$run"
  say "Stopped workers and router."
}

main "$@"
