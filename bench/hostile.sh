#!/usr/bin/env bash
# Attacks the program for an hour and writes a record: bench/hostile.sh [--seconds S] [--quick]
#
# tests/hostile: mutated frames, half-open handshakes, noise, unread replies, idle connections and
# slow admin sockets, all at once and on this machine alone, beside honest clients. Writes to
# bench/record/<date>-<machine>-hostile/: what it printed (hostile.txt), machine.txt, and README.md
# with what was seen. Exit code 1 where the server took too much memory, panicked, answered wrong or
# failed honest clients. --quick takes seconds and
# writes elsewhere, to show that it works.
set -euo pipefail
cd "$(dirname "$0")/.."
. bench/common.sh

seconds=3600
out=$(record)-hostile
while [ $# -gt 0 ]; do
    case $1 in
    --seconds) seconds=$2 && shift ;;
    --quick) seconds=5 out=$(mktemp -d "${TMPDIR:-/tmp}/sotto-hostile-record.XXXXXX") ;;
    *) echo "found $1, expected --seconds or --quick" >&2 && exit 2 ;;
    esac
    shift
done

mkdir -p "$out"
machine >"$out/machine.txt"
code=0
SOTTO_HOSTILE_SECONDS=$seconds cargo test --quiet --test hostile -- --nocapture 2>&1 |
    grep -vE '^(failed|refused): ' >"$out/hostile.txt" || code=1
{
    echo "# Attacks, for $seconds s"
    echo
    echo "\`bash bench/hostile.sh --seconds $seconds\`; the machine: \`machine.txt\`. The server has"
    echo "\`--memory 256\` and one thread; attackers and honest clients share the machine with it."
    echo
    sed -n 's/^.*record: /- /p' "$out/hostile.txt"
    echo
    if [ $code = 0 ]; then echo "Passed: no panic, no answer wrong."; else
        echo "**FAILED**: the end of \`hostile.txt\` says where."
    fi
} >"$out/README.md"
cat "$out/README.md"
echo "record: $out"
exit $code
