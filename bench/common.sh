# What the scripts here share; sourced by them from the repository's root, never run.

# Words as a part of a file's name.
slug() { echo "$*" | tr -cs 'A-Za-z0-9' '-' | tr 'A-Z' 'a-z' | sed 's/^-//; s/-$//'; }

# Where this machine's records of today begin: bench/record/<date>-<machine>
record() {
    local model
    model=$(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -1)
    echo "$PWD/bench/record/$(date -u +%F)-$(slug "$model $(nproc) cores")"
}

# What a record says of its machine.
machine() {
    echo "commit   $(git describe --always --dirty)"
    echo "date     $(date -u +%FT%TZ)"
    echo "rustc    $(rustc --version)"
    echo "kernel   $(uname -sr)"
    echo "load     $(cut -d' ' -f1-3 /proc/loadavg) before"
    lscpu | grep -E '^(Model name|CPU\(s\)|Thread|L1d|L2|L3|Hypervisor)'
    free -h | sed -n 2p
}

# Builds both programs and sets `sotto` and `bench` to them; or takes those in the folder that
# SOTTO_PROGRAMS names.
programs() {
    local folder=${SOTTO_PROGRAMS:-${CARGO_TARGET_DIR:-$PWD/target}/release}
    [ -n "${SOTTO_PROGRAMS:-}" ] || cargo build --release --quiet
    sotto=$folder/sotto bench=$folder/sotto-bench
}

# A folder that goes when the script does, and with it the server: scratch NAME
scratch() {
    scratch=$(mktemp -d "${TMPDIR:-/tmp}/sotto-$1.XXXXXX")
    server=
    trap 'stop || true; rm -rf "$scratch"' EXIT
}

# Ends the server; says how it ended.
stop() {
    local code=0
    if [ -n "${server:-}" ]; then
        kill "$server" 2>/dev/null || true
        wait "$server" || code=$?
    fi
    server=
    return $code
}

# Makes a database of so many records: build NAME RECORDS SHARDS
build() {
    [ -d "$scratch/certs" ] || "$sotto" cert --out "$scratch/certs" >/dev/null
    "$sotto" sample --records "$2" >"$scratch/records.csv"
    "$sotto" build --input "$scratch/records.csv" --out "$scratch/$1" --shards "$3" \
        --value-bytes 120 2>/dev/null >"$out/$1-build.txt"
}

# Starts a server of it on the first core, one thread, and sets `server` to its process and
# `target` to what a generator on the second needs: serve NAME [ARGUMENTS]
serve() {
    local name=$1 log=$out/$1-server.txt admin=
    shift
    rm -f "$scratch/listening"
    taskset -c 0 "$sotto" serve --db "$scratch/$name" --listen 127.0.0.1:0 --threads 1 \
        --admin 127.0.0.1:0 --engine cpu --cert "$scratch/certs/server.pem" \
        --key "$scratch/certs/server.key" "$@" \
        >"$scratch/listening" 2>"$log" &
    server=$!
    until grep -qs listening "$scratch/listening" &&
        admin=$(grep -om1 'http://[0-9.:]*/status' "$log"); do
        kill -0 "$server" || { cat "$log"; exit 1; }
        sleep 0.1
    done
    target=(--server "localhost:$(sed 's/.*://' "$scratch/listening")"
        --ca "$scratch/certs/ca.pem" --operator-key "$scratch/$name/operator.pub"
        --accept-shard-records "$accept" --cpus 1
        --metrics "${admin%/status}/metrics")
}

# Runs the generator, keeps what it printed; an invalid run is a result like any other:
# load FILE ARGUMENTS
load() {
    local file=$1
    shift
    echo "\$ sotto-bench load ... $*" | tee "$out/$file.txt"
    "$bench" load "${target[@]}" --lag 20ms --json "$out/$file.json" "$@" 2>&1 |
        tee -a "$out/$file.txt" || true
}

# The rate that a walk found, whole queries a second: limit FILE
limit() {
    sed -n '/"limit": {/,/}/s/.*"rate": \([0-9]*\).*/\1/p' "$out/$1.json"
}

# Arithmetic with fractions: calc EXPRESSION
calc() {
    awk "BEGIN { printf \"%.3f\", $1 }"
}
