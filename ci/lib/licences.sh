#!/usr/bin/env bash
# Licences, bans and sources of every crate (deny.toml). cargo-deny is built once and kept.
set -eu
version=0.20.2
have=$(cargo deny --version 2>/dev/null || true)
[ "$have" = "cargo-deny $version" ] || cargo install -q cargo-deny --version "$version" --locked
cargo deny --all-features check licenses bans sources
