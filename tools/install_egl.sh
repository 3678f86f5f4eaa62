#!/usr/bin/env bash
# Headless rendering needs EGL from the system. Install it where we may; else print the one command and go on.
set -eu
need=(libegl1 libgl1-mesa-dri)
have() { ldconfig -p 2>/dev/null | grep -q 'libEGL\.so\.1'; }
have && exit 0
command -v apt-get >/dev/null || { echo "install: no EGL found; install your system's EGL and Mesa packages"; exit 0; }
if [ "$(id -u)" = 0 ]; then
    apt-get update -q && DEBIAN_FRONTEND=noninteractive apt-get install -qy "${need[@]}"
elif sudo -n true 2>/dev/null; then
    sudo apt-get update -q && sudo DEBIAN_FRONTEND=noninteractive apt-get install -qy "${need[@]}"
else
    echo "install: no EGL found; run: sudo apt-get install ${need[*]}"
fi
