#!/bin/sh
# SPDX-License-Identifier: MIT
# Each bug of planted.c must be found by the tests named here: planted.sh BDRV-DRIVER-TEST MODULE
tool=$1 module=$2 number=0 failed=0
out=$(mktemp)
trap 'rm -f "$out"' EXIT

report() { # CONDITION'S RESULT, WORDS
    number=$((number + 1))
    if [ "$1" -eq 0 ]; then
        echo "ok $number $2"
    else
        echo "not ok $number $2"
        sed 's/^/# /' "$out"
        failed=1
    fi
}

run() { # BUG TEST [OPTION...]
    PLANTED_BUG=$1
    test=$2
    shift 2
    export PLANTED_BUG
    "$tool" --module "$module" --driver planted --crash-safe --rounds 60 --cuts 40 --timeout 60 \
        ${test:+--test "$test"} "$@" >"$out" 2>&1
}

find_bug() { # BUG TEST [OPTION...]
    run "$@"
    status=$?
    [ "$status" -eq 1 ] && grep -q "^not ok 1 $2\$" "$out" && grep -q "^# once more: .* --test $2\$" "$out"
    report $? "$2 finds $1"
}

echo "TAP version 13"
run '' ''
report $? 'without a bug all is well'
run '' '' --child data-file
report $? 'without a bug all is well with a data file'
find_bug probe-takes-all table/other-files
find_bug table-not-stored conformance/random
find_bug zeroes-not-written conformance/random
find_bug one-byte-over conformance/edges
find_bug discards-neighbours conformance/neighbours
find_bug data-called-zero conformance/block-status
find_bug old-data-behind-end conformance/resize
find_bug marks-when-read-only conformance/read-only
find_bug flush-not-passed conformance/flush
find_bug fua-ignored conformance/fua
find_bug iov-offset-ignored limits/split-above
find_bug allocates-unlocked concurrency/overlapping
find_bug read-error-is-zeroes faults/reads
find_bug write-error-ignored faults/writes
find_bug hangs-on-error faults/writes
grep -q '^#   coroutines:$' "$out"
report $? 'of a hang the coroutines are told'
find_bug spins-on-error faults/writes --timeout 2
grep -q '^# HANGS: not at an end after 2 seconds$' "$out" && grep -q 'it was in' "$out" && grep -q planted-driver "$out"
report $? 'of what has no end the functions are told'
find_bug flush-error-ignored faults/flushes
find_bug flush-error-told-once faults/flushes-lost
find_bug create-ignores-errors faults/create-space
find_bug create-ignores-errors faults/create
find_bug length-not-checked hostile/changed-bytes
find_bug reopen-forgets-table reopen/turns
find_bug table-first crash/power-loss
find_bug creates-in-steps crash/create
find_bug unlocks-too-early crash/among-many --seed 2
find_bug compacts-in-place crash/power-loss
find_bug length-stored-at-close crash/power-loss
find_bug length-first crash/power-loss --cuts 400
find_bug data-file-not-flushed conformance/flush --child data-file
echo "1..$number"
exit "$failed"
