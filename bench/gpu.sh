#!/usr/bin/env bash
# Measures a GPU and writes a dated record: bench/gpu.sh [--quick] [--gpu NAME] [--out DIR]
#
# One command, at most 8 minutes and nothing else running beside it: `sotto devices`, the tests of engines
# on the GPU (bit for bit), and `sotto-bench gpu` for the standard shard, which targets are for, and for
# those of 4 and of 16 packs.
# Builds them first where there is cargo; elsewhere takes what bench/gpu-pack.sh packed. Without --gpu it
# takes the first real GPU; --quick is for a processor that plays one (--gpu llvmpipe).
# Writes to DIR/<date>-<device>-gpu/, bench/record unless told otherwise: raw output a step, gpu.json,
# gpu-4-packs.json and gpu-16-packs.json (not with --quick), machine.txt with commit and driver, and a
# summary, README.md. A step that fails or takes too long is said there and makes this command fail at
# the end; the others are run.
set -euo pipefail
cd "$(dirname "$0")/.."
. bench/common.sh

gpu="" quick="" out=bench/record
while [ $# -gt 0 ]; do
    case $1 in
    --quick) quick=--quick ;;
    --gpu) gpu=$2 && shift ;;
    --out) out=$2 && shift ;;
    *) echo "found $1, expected --quick, --gpu NAME or --out DIR" >&2 && exit 2 ;;
    esac
    shift
done

if command -v cargo >/dev/null; then
    bash bench/gpu-pack.sh
elif [ ! -f target/gpu-pack/pack.tar.gz ]; then
    echo "no cargo and no target/gpu-pack: run bench/gpu-pack.sh where there is one, carry it" >&2
    exit 2
fi
scratch=$(mktemp -d "${TMPDIR:-/tmp}/sotto-gpu.XXXXXX")
trap 'rm -rf "$scratch"' EXIT
tar -xzf target/gpu-pack/pack.tar.gz -C "$scratch"
begin=$SECONDS

# The loader and the driver, where the system does not know of them.
if ! ldconfig -p | grep -q 'libvulkan\.so\.1'; then
    export LD_LIBRARY_PATH=$scratch/lib${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}
fi
nvidia=/usr/local/nvidia/share/vulkan/icd.d/nvidia_icd.json
if [ -z "${VK_DRIVER_FILES:-}" ] && [ -f $nvidia ] &&
    ! ls /usr/share/vulkan/icd.d/nvidia* /etc/vulkan/icd.d/nvidia* >/dev/null 2>&1; then
    export VK_DRIVER_FILES=$nvidia
fi

devices=$scratch/devices.txt
timeout 60 "$scratch/sotto-bench" sotto devices 2>&1 | tee "$devices" || true
name=$(awk -v wanted="${gpu,,}" '
    /^[0-9]+: / {
        number = substr($0, 1, index($0, ":") - 1)
        name = substr($0, index($0, ":") + 2)
        if (wanted != "" && (number == wanted || index(tolower(name), wanted))) { print name; exit }
    }
    wanted == "" && /^ +hardware/ { print name; exit }' "$devices")
if [ -z "$name" ]; then
    echo "found no ${gpu:-real GPU} above; a software one is to be named: --gpu" >&2
    exit 1
fi
out=$out/$(date -u +%F)-$(slug "$name")-gpu
mkdir -p "$out"
cp "$devices" "$out/devices.txt"

{
    cat "$scratch/built"
    echo "date     $(date -u +%FT%TZ)"
    echo "device   $name"
    echo "kernel   $(uname -sr)"
    echo "load     $(cut -d' ' -f1-3 /proc/loadavg) before"
    lscpu | grep -E '^(Model name|CPU\(s\)|Thread|L3|Hypervisor)' || true
    free -h | sed -n 2p || true
    for tool in nvidia-smi "vulkaninfo --summary"; do
        if command -v ${tool%% *} >/dev/null; then
            timeout 10 $tool 2>&1 || true
        else
            echo "${tool%% *} is not here"
        fi
    done
} >"$out/machine.txt"

# Runs a step for so many seconds at most, keeps what it printed, and says how it ended.
failed=""
step() {
    local step=$1 seconds=$2 start=$SECONDS code=0
    shift 2
    timeout --kill-after=5 "$seconds" "$@" 2>&1 | tee "$out/$step.txt" || code=$?
    [ $code = 0 ] || failed="$failed $step"
    [ $code != 124 ] || echo "stopped after $seconds s" | tee -a "$out/$step.txt"
    echo "$step ended $code after $((SECONDS - start)) s" >>"$out/machine.txt"
}

SOTTO_COMMIT=$(sed -n 's/^commit *//p' "$scratch/built")
export SOTTO_COMMIT
# Measures the GPU for so many seconds at most: measure NAME SECONDS ARGUMENTS
measure() {
    local name=$1 seconds=$2
    shift 2
    step "$name" "$seconds" "$scratch/sotto-bench" gpu "$@" --json "$scratch/$name.json"
    # What it printed is here by the step already, also where it was cut short.
    [ ! -f "$scratch/$name.json" ] || cp "$scratch/$name.json" "$out/"
}
# shellcheck disable=SC2086 # no --quick, no argument
measure gpu 150 "$name" $quick
# On hardware, where there is time.
if [ -z "$quick" ]; then
    for packs in 4 16; do
        measure gpu-$packs-packs 110 "$name" --packs $packs
    done
fi
# What is left of 8 minutes.
step parity $((460 - SECONDS + begin)) env SOTTO_TEST_ENGINES=gpu SOTTO_TEST_GPU="$name" "$scratch/engines"
echo "load     $(cut -d' ' -f1-3 /proc/loadavg) after $((SECONDS - begin)) s" >>"$out/machine.txt"

"$scratch/sotto-bench" report --summary "$out"
echo "written to $out"
[ -z "$failed" ] || { echo "failed:$failed" >&2 && exit 1; }
