#!/usr/bin/env bash
# Runs the Jobs of a pipeline one after the other and waits for each.
#
#   run.sh [JOBS] [FIRST [LAST]]     JOBS: what `sluice dag --format kubernetes` printed, or a folder with a Kustomization over it
#                                    (curate.yaml), or models.yaml; FIRST: the step to begin with; LAST: the step to end with
#
# Run it again after a failure: what is up to date is skipped. KUBECTL names another kubectl, or one with a namespace.
set -euo pipefail
jobs=${1:-$(dirname "${BASH_SOURCE[0]}")/curate.yaml}
kubectl=${KUBECTL:-kubectl}
work=$(mktemp -d) && trap 'rm -rf "$work"' EXIT

# The last layer, over a Kustomization of the user's: each Job that fans out has as many pods as the parameters say. models.yaml has
# no parameters.
if [ -d "$jobs" ]; then
    resource=$(realpath --relative-to "$work" "$jobs")
else
    resource=jobs.yaml && cp "$jobs" "$work/$resource"
fi
printf 'resources: [%s]\nsortOptions: {order: fifo}\n' "$resource" >"$work/kustomization.yaml"
$kubectl kustomize "$work" >"$work/all.yaml"
parameters=$(grep -cx '  name: sluice-run' "$work/all.yaml" || true)
[ "$parameters" = 0 ] || cat >>"$work/kustomization.yaml" <<EOF
replacements:
  - source: {kind: ConfigMap, name: sluice-run, fieldPath: data.tasks}
    targets:
      - {select: {kind: Job, labelSelector: sluice/fan-out!=one}, fieldPaths: [spec.completions, spec.parallelism]}
EOF
$kubectl kustomize "$work" >"$work/all.yaml"
mapfile -t steps < <(sed -n 's|^    app.kubernetes.io/component: ||p' "$work/all.yaml" | tr -d '"')
first=${2:-${steps[0]}}
last=${3:-${steps[-1]}}
for step in "$first" "$last"; do
    [[ " ${steps[*]} " == *" $step "* ]] || { echo "no step $step; the steps are: ${steps[*]}" >&2 && exit 2; }
done

[ "$parameters" = 0 ] || $kubectl apply --filename "$work/all.yaml" --selector '!app.kubernetes.io/component'
begun=
for step in "${steps[@]}"; do
    [ "$step" = "$first" ] && begun=yes
    [ "$begun" ] || continue
    # A Job cannot be changed, so one of an earlier run goes first.
    $kubectl delete job "sluice-$step" --ignore-not-found >&2
    $kubectl apply --filename "$work/all.yaml" --selector "app.kubernetes.io/component=$step"
    until
        status=$($kubectl get job "sluice-$step" --output 'jsonpath={.status.conditions[?(@.status=="True")].type}')
        [[ $status == *Complete* || $status == *Failed* ]]
    do sleep "${POLL:-5}"; done
    if [[ $status != *Complete* ]]; then
        $kubectl get pods --selector "app.kubernetes.io/component=$step" --field-selector status.phase=Failed --output \
            'jsonpath={range .items[*]}{.metadata.name}: exit {.status.containerStatuses[0].state.terminated.exitCode}: {.status.containerStatuses[0].state.terminated.message}{"\n"}{end}' >&2 || true
        echo "step $step failed; go on with: $0 $jobs $step" >&2
        exit 1
    fi
    echo "step $step is done" >&2
    [ "$step" != "$last" ] || break
done
