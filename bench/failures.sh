#!/usr/bin/env bash
# Runs every failure in full once and writes a record: bench/failures.sh [--quick]
#
# The tests of failures (tests/failures, with SOTTO_FAILURES=full; shard files in tests/epochs.rs;
# devices in tests/gpu_faults.rs; the builder in tests/build.rs; a database on several hosts in
# tests/hosts.rs, at full size ten thousand shards, which take 16 GB of disk and ten minutes to
# build), one by one, each with a time limit. Takes what is installed: libfaketime for clocks that jump (Debian's `faketime`), and a
# Vulkan driver named by SOTTO_TEST_GPU for a device that is lost (llvmpipe). Prints what is not
# there. Writes to bench/record/<date>-<machine>-failures/: what each printed, machine.txt, and
# README.md with what was done, how long it took to come back, wrong answers and panics. Exit code 1
# where one failed. It takes some 40 minutes; --quick does as little as CI.
set -euo pipefail
cd "$(dirname "$0")/.."
. bench/common.sh

out=$(record)-failures
export SOTTO_FAILURES=full
if [ "${1:-}" = "--quick" ]; then
    SOTTO_FAILURES=small
    out=$(mktemp -d "${TMPDIR:-/tmp}/sotto-failures-record.XXXXXX")
fi
mkdir -p "$out"
machine >"$out/machine.txt"

# Runs a program's tests one by one, and keeps what each printed and how it ended.
tests() {
    local program=$1 name file code
    shift
    [ -e "tests/$program.rs" ] || [ -e "tests/$program" ] || { echo "$program: not here"; return; }
    for name in $(cargo test --quiet --features store --test "$program" -- --list "$@" 2>/dev/null |
        sed -n 's/: test$//p'); do
        file=$out/$program-$(slug "$name").txt code=0
        timeout --kill-after=10 1800 cargo test --quiet --features store --test "$program" -- \
            --exact "$name" --nocapture >"$file" 2>&1 || code=$?
        echo "ended: $code" >>"$file"
        grep -E '^(record|skipped): |^skipped' "$file" || true
        echo "$program $name: ended $code"
    done
}

tests failures
tests epochs
tests gpu_faults
tests build killed
tests build disk
tests hosts

{
    echo "# Failures"
    echo
    echo "The machine: \`machine.txt\`. Every look-up of every test was compared with its record and"
    echo "every admitted query was accounted for, or the test had failed."
    echo
    echo "| test | what was seen | panics | passed |"
    echo "|---|---|---|---|"
} >"$out/README.md"
failed=""
for file in "$out"/*.txt; do
    name=$(basename "$file" .txt) passed=yes
    ended=$(sed -n 's/^ended: //p' "$file")
    [ -n "$ended" ] || continue
    skipped=$(grep '^skipped' "$file" | paste -sd ';' || true)
    seen=$(sed -nE 's/^(test .*)?record: //p' "$file" | paste -sd ';' || true)
    panics=$(grep -c "^thread '.*panicked" "$file" || true)
    [ -z "$skipped" ] || [ -n "$seen" ] || passed=skipped
    [ "$ended" = 0 ] || { passed="**NO**" failed="$failed $name"; }
    seen=${skipped:+$skipped }$seen
    echo "| \`$name\` | ${seen:-as its name says} | $panics | $passed |" >>"$out/README.md"
done
printf '\nFailed:%s.\n' "${failed:- none}" >>"$out/README.md"
cat "$out/README.md"
echo "record: $out"
[ -z "$failed" ]
