#!/usr/bin/env bash
# What pip can't bring: EGL for headless rendering, and `ip` for the tests that cut a network. Install them where we may;
# else print the one command and go on.
set -eu
need=()
ldconfig -p 2>/dev/null | grep -q 'libEGL\.so\.1' || need+=(libegl1 libgl1-mesa-dri)
PATH="$PATH:/sbin:/usr/sbin" command -v ip >/dev/null || need+=(iproute2)
[ ${#need[@]} = 0 ] && exit 0
command -v apt-get >/dev/null || { echo "install: install your system's EGL, Mesa and iproute2 packages"; exit 0; }
if [ "$(id -u)" = 0 ]; then
    apt-get update -q && DEBIAN_FRONTEND=noninteractive apt-get install -qy "${need[@]}"
elif sudo -n true 2>/dev/null; then
    sudo apt-get update -q && sudo DEBIAN_FRONTEND=noninteractive apt-get install -qy "${need[@]}"
else
    echo "install: run: sudo apt-get install ${need[*]}"
fi
