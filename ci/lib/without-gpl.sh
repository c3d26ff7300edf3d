#!/usr/bin/env bash
# The build whose binary is not under GPL-3.0: without the feature xenstore-rs. It must not contain that crate,
# and the driver must work with the native store client.
set -eu
features=(--no-default-features --features program)
if cargo tree -q -p netfront "${features[@]}" -e normal | grep -w xenstore-rs; then
  echo "xenstore-rs is in a build without its feature" >&2
  exit 1
fi
export CARGO_TARGET_DIR=target/without-gpl
cargo build -q -p netfront "${features[@]}" --locked
"$CARGO_TARGET_DIR/debug/netfront" demo --seconds 4
# And the library for production: no simulated Xen in it.
cargo check -q -p netfront --lib --no-default-features --locked
