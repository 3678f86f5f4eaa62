#!/usr/bin/env bash
# What pip can't bring: EGL for headless rendering, `ip` for the tests that cut a network, and a browser for those of the
# operator's page. Install them where we may; else print the one command and go on.
set -eu
need=()
has() { PATH="$PATH:/sbin:/usr/sbin" command -v "$1" >/dev/null; }
ldconfig -p 2>/dev/null | grep -q 'libEGL\.so\.1' || need+=(libegl1 libgl1-mesa-dri)
has ip || need+=(iproute2)
browser=chromium # Debian's; Ubuntu has a snap alone, which a container can't run
has chromium || has chromium-browser || has google-chrome || need+=("$browser")
[ ${#need[@]} = 0 ] && exit 0
has apt-get || { echo "install: install your system's EGL, Mesa, iproute2 and Chromium packages"; exit 0; }
root() { if [ "$(id -u)" = 0 ]; then "$@"; else sudo -n "$@"; fi; }
if ! root true 2>/dev/null; then
    echo "install: run: sudo apt-get install ${need[*]}"
    exit 0
fi
root apt-get update -q
for package in "${need[@]}"; do
    if [ "$package" = "$browser" ] && ! apt-cache show "$browser" >/dev/null 2>&1; then
        echo "install: the tests of the operator's page want a browser: install Chromium or Google Chrome"
    else
        root env DEBIAN_FRONTEND=noninteractive apt-get install -qy "$package"
    fi
done
