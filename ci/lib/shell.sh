#!/usr/bin/env bash
# Shellcheck says nothing of any script of the project.
set -eu
cd "$(dirname "$0")/../.."
mapfile -t scripts < <(git ls-files ci .ci netfront/package | while read -r file; do
  head -n 1 "$file" | grep -qE '^#!.*sh$|^# shellcheck shell' && printf '%s\n' "$file"
done)
shellcheck -x -P ci/xen-lab "${scripts[@]}"
printf '%d scripts\n' "${#scripts[@]}"
