# Sourced by demo.sh and tests/run.sh: what they say, the packages, Bazel.
# shellcheck shell=bash

say() { printf '%s\n' "$*"; }

fail() {
  printf 'error: %s\n' "$*" >&2
  exit 1
}

# as_root COMMAND...: runs it as root.
as_root() {
  if [[ $(id -u) -eq 0 ]]; then
    "$@"
  elif command -v sudo >/dev/null; then
    sudo "$@"
  else
    fail "needs root or sudo to run: $*"
  fi
}

# install_packages LIST LOG: installs what of the file LIST is missing.
install_packages() {
  local list=$1 log=$2 package
  local -a missing=()
  command -v dpkg-query >/dev/null ||
    fail "needs Debian 12: there is no dpkg here; the packages are in $list"
  while read -r package; do
    [[ -z $package || $package == \#* ]] && continue
    [[ $(dpkg-query -W -f='${db:Status-Status}' "$package" 2>/dev/null) == installed ]] ||
      missing+=("$package")
  done <"$list"
  if ((${#missing[@]} == 0)); then
    return
  fi
  say "Installing ${#missing[@]} Debian packages: ${missing[*]}"
  if ! {
    as_root apt-get update &&
      as_root env DEBIAN_FRONTEND=noninteractive \
        apt-get install -y --no-install-recommends "${missing[@]}"
  } >"$log" 2>&1; then
    fail "the packages could not be installed: $(tail -n 3 "$log" | tr '\n' ' ')
The whole output is in $log. Try: apt-get install ${missing[*]}"
  fi
}

# run_bazel COMMAND ARGUMENTS...: Bazel, without its sandbox where the kernel
# does not let it make namespaces (a container without them).
run_bazel() {
  local command=$1
  shift
  local -a options=()
  if ! unshare --user --map-root-user --mount --pid --fork true 2>/dev/null; then
    options=(--spawn_strategy=local)
  fi
  bazel "$command" "${options[@]}" "$@"
}
