#!/bin/sh
# SPDX-License-Identifier: MIT
# Every planted bug applies to the source as it is. Usage: test-patches.sh SOURCE-DIRECTORY; prints TAP.
cd "${1:?usage: test-patches.sh SOURCE-DIRECTORY}" || exit 1
n=0
for patch in tests/planted/*.patch; do
    n=$((n + 1))
    if patch --dry-run --strip=1 --fuzz=0 --silent --input="$patch"; then
        echo "ok $n - $(basename "$patch" .patch) applies"
    else
        echo "not ok $n - $(basename "$patch" .patch) applies"
    fi
done
echo "1..$n"
