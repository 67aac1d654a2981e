#!/usr/bin/env bash
# The quickstart must pass (exit 0) and the same gates must fail the undefended model (exit 1).
set -uo pipefail
cd "$(dirname "$0")/.."
out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT

expect() {
  local wanted=$1 suite=$2
  robeval run "suites/$suite.yaml" -o "$out/$suite"
  local code=$?
  if [ "$code" -ne "$wanted" ]; then
    echo "suites/$suite.yaml: exit $code, expected $wanted" >&2
    exit 1
  fi
}

robeval validate suites/quickstart*.yaml suites/corruptions.yaml || exit 1
expect 0 quickstart
expect 1 quickstart-undefended
