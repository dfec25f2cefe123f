#!/bin/sh
# Code for a higher instruction set must not stand in for anyone else's: an
# inline function that several objects define may be taken from any of them.
# So what the objects of the instruction sets share with others (weak and unique
# symbols) must be named after their own vectors.
set -eu
status=0
for library in "$@"; do
  found=$(nm -C --defined-only "$library" | grep ' [WVu] ' |
    grep -v -E 'lapidary::cpu::(Avx2|Avx512|Avx512Bf16)\b|DW\.ref' || true)
  if [ -n "$found" ]; then
    echo "$library defines what other objects may define as well:"
    echo "$found"
    status=1
  fi
done
exit $status
