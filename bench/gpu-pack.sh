#!/usr/bin/env bash
# Packs what bench/gpu.sh needs on a machine without Rust and without a network: bench/gpu-pack.sh
#
# Builds the program and the test of engines, and writes target/gpu-pack/pack.tar.gz
# (git-ignored, some 20 MB): them without debug information, the commit, and the Vulkan loader with what
# NVIDIA's driver wants beside it (Debian's and Ubuntu's packages; left out where there is no apt).
# Carry that folder and bench/, and run `bash bench/gpu.sh` there. Same kind of processor and a
# system library no older than here.
set -euo pipefail
cd "$(dirname "$0")/.."

pack=$PWD/target/gpu-pack
files=$pack/files
rm -rf "$pack"
mkdir -p "$files/lib"

# The executable of this kind (bin, test) that a cargo command makes.
made() {
    local kind=$1
    shift
    cargo "$@" --quiet --message-format=json |
        sed -n "/\"kind\":\[\"$kind\"\]/s/.*\"executable\":\"\([^\"]*\)\".*/\1/p"
}

install -m755 "$(made bin build --release --bin sotto-bench)" "$files/sotto-bench"
# Of the same profile, so that the library is built once.
install -m755 "$(made test test --release --no-run --test engines)" "$files/engines"
strip "$files/sotto-bench" "$files/engines"
{
    echo "commit   $(git describe --always --dirty)"
    echo "rustc    $(rustc --version)"
} >"$files/built"

if command -v apt-get dpkg >/dev/null; then
    loaders="libvulkan1 libegl1 libglvnd0 libopengl0 libgl1 libglx0 libgles2
        libx11-6 libxext6 libxcb1 libxau6 libxdmcp6 libbsd0 libmd0"
    # shellcheck disable=SC2086 # a list
    if (cd "$pack" && apt-get -qq download $loaders 2>/dev/null); then
        for package in "$pack"/*.deb; do
            dpkg -x "$package" "$pack/loaders"
        done
        cp -d "$pack"/loaders/usr/lib/*/*.so.* "$files/lib/"
    else
        echo "the Vulkan loader is not packed: apt-get downloaded nothing" >&2
    fi
    rm -rf "$pack"/*.deb "$pack/loaders"
fi
tar -C "$files" -czf "$pack/pack.tar.gz" .
rm -r "$files"
ls -l "$pack/pack.tar.gz"
