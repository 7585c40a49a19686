#!/bin/sh
# Reports the tests that were skipped, from the list that sluice-testkit writes: kind, test, missing requirement, hint.
#
#   skipped.sh LIST                  the number of tests, and their missing requirements
#   skipped.sh --names KIND LIST     the names of the tests that lack a requirement of a kind
set -eu
if [ "$1" = --names ]; then
    [ ! -e "$3" ] || awk -F '\t' -v kind="$2" '$1 == kind { print $2 }' "$3" | sort -u
    exit
fi
[ -e "$1" ] || {
    echo "skipped tests: none"
    exit
}
echo "skipped tests: $(cut -f 2 "$1" | sort -u | wc -l)"
# Each test once per requirement.
sort -u "$1" | awk -F '\t' '
    { tests[$1 "\t" $3 "\t" $4]++ }
    END { for (what in tests) { split(what, part, "\t"); printf "  %3d lack %s: %s (%s)\n", tests[what], part[1], part[2], part[3] } }
' | sort -rn
