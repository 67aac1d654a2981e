#!/usr/bin/env bash
# The paper suites in their smoke profile: small networks, orderings only, every hard row must hold.
# They need the plug-in robeval-train, and to be run the full MNIST files (ROBEVAL_DATA).
set -uo pipefail
cd "$(dirname "$0")/.."

if [[ "$(robeval plugins)" != *robeval-train* ]]; then
  echo "robeval-train is not installed: the paper suites are left out" >&2
  exit 0
fi
export ROBEVAL_THREADS=${ROBEVAL_THREADS:-1}  # networks so small gain nothing from more
for profile in smoke cpu full; do
  robeval validate suites/goodfellow2015.yaml --set "vars.profile=$profile" || exit 1
done
if [ ! -d "${ROBEVAL_DATA:-/nowhere}/mnist" ]; then
  echo "ROBEVAL_DATA names no folder with mnist/: the paper suites are only validated" >&2
  exit 0
fi
out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT
XDG_CACHE_HOME="$out/cache" robeval run suites/goodfellow2015.yaml \
  --set vars.profile=smoke -o "$out/goodfellow2015" || exit 1
