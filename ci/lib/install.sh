#!/usr/bin/env bash
# Installs what the tests need on Debian 12: Xen's headers for the bindings, compilers for the library for C, tools
# for the TAP test. The lab installs its own. As root, or with sudo.
set -eu
sudo=()
[ "$(id -u)" = 0 ] || sudo=(sudo)
export DEBIAN_FRONTEND=noninteractive
"${sudo[@]}" apt-get update -qq
"${sudo[@]}" apt-get install -y -qq --no-install-recommends \
  gcc g++ pkg-config libc6-dev libxen-dev libclang-dev iproute2 iputils-ping tcpdump procps shellcheck \
  man-db zsh mmdebstrap systemd systemd-container binutils xz-utils
