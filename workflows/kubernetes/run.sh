#!/usr/bin/env bash
# Runs the Jobs one after the other and waits for each.
#
#   run.sh [FOLDER] [FIRST]     FOLDER: a Kustomization with the Jobs (this one); FIRST: the step to begin with (partition)
#
# Run it again after a failure: what is up to date is left alone. KUBECTL names another kubectl, or one with a namespace.
set -euo pipefail
folder=${1:-$(dirname "${BASH_SOURCE[0]}")} first=${2:-partition}
kubectl=${KUBECTL:-kubectl}
rendered=$(mktemp) && trap 'rm -f "$rendered"' EXIT
$kubectl kustomize "$folder" >"$rendered"
mapfile -t steps < <(sed -n 's|^  - jobs/[0-9]*-\(.*\)\.yaml$|\1|p' "$(dirname "${BASH_SOURCE[0]}")/kustomization.yaml")

$kubectl apply --filename "$rendered" --selector 'app.kubernetes.io/name!=sluice' # the settings
begun=
for step in "${steps[@]}"; do
    [ "$step" = "$first" ] && begun=yes
    [ "$begun" ] || continue
    # A Job cannot be changed, so one of an earlier run goes first.
    $kubectl delete job "sluice-$step" --ignore-not-found >&2
    $kubectl apply --filename "$rendered" --selector "app.kubernetes.io/component=$step"
    until
        status=$($kubectl get job "sluice-$step" --output 'jsonpath={.status.conditions[?(@.status=="True")].type}')
        [[ $status == *Complete* || $status == *Failed* ]]
    do sleep "${POLL:-5}"; done
    if [[ $status != *Complete* ]]; then
        $kubectl get pods --selector "app.kubernetes.io/component=$step" --field-selector status.phase=Failed --output \
            'jsonpath={range .items[*]}{.metadata.name}: exit {.status.containerStatuses[0].state.terminated.exitCode}: {.status.containerStatuses[0].state.terminated.message}{"\n"}{end}' >&2 || true
        echo "step $step failed; go on with: $0 $folder $step" >&2
        exit 1
    fi
    echo "step $step is done" >&2
done
