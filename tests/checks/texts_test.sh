#!/bin/bash
#
# What the texts of the tree may and must say: no path of somebody's machine,
# no work left for later, every message of the API explained, every path that
# a page names there.

set -euo pipefail
# shellcheck source=tests/checks/sources.sh
source "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/sources.sh"

texts() {
  sources '*.h' '*.cc' '*.cu' '*.cuh' '*.sh' '*.md' '*.proto' '*.bzl' '*.bazel' \
    '*.BUILD' '*.py' '*.yaml' run WORKSPACE .bazelrc | grep -v '^tests/checks/texts_test.sh$'
}

check_outside_paths() {
  texts | xargs grep -nE '(^|[^[:alnum:]_.])/(home|root|work|workspace|Users|mnt)/[[:alnum:]]' |
    sed 's/$/   <- a path of one machine/'
}

check_left_work() {
  texts | xargs grep -nE '\b(TODO|FIXME|XXX|HACK)\b' |
    sed 's/$/   <- work left for later/'
}

# A message or service needs a comment above it or on its fields; a field whose
# comment would repeat its name may go without.
check_protos() {
  # shellcheck disable=SC2016
  sources '*.proto' | grep '^proto/' | xargs awk '
    FNR == 1 { comment = 0; depth = 0 }
    /^ *\/\// { comment = 1; next }
    /^(message|service|enum) / {
      name = $2; explained = comment || /}$/ || name ~ /(Request|Response)$/
    }
    /^ +rpc / && !comment { print FILENAME ":" FNR ": " $2 " has no comment" }
    /\/\// { explained = 1 }
    /^ +.*\/\// || comment { if (name != "") explained = 1 }
    /^}/ {
      if (name != "" && !explained) print FILENAME ": " name " has no comment"
      name = ""
    }
    { comment = 0 }
  '
}

# Paths in `back quotes` that look like the project's, in README and docs/.
check_paths() {
  local page path
  for page in README.md CONTRIBUTING.md docs/*.md; do
    [[ -f $page ]] || continue
    # shellcheck disable=SC2016
    { grep -oE '`[[:alnum:]_./-]+`' "$page" || true; } | tr -d '`' | sort -u |
      while read -r path; do
        case $path in
          client/* | common/* | deploy/* | docs/* | kernels/* | proto/* | router/* | \
            tests/* | third_party/* | tools/* | worker/*) ;;
          *) continue ;;
        esac
        compgen -G "$path*" >/dev/null || echo "$page names $path, which is not there"
      done
  done
}

report "$(check_outside_paths || true; check_left_work || true; check_protos; check_paths)"
