#!/usr/bin/env bash
# {{ name }}: TPU slices of a GKE cluster that XPK manages. XPK creates a JobSet.
set -eu
# Restarts all hosts after any failure; XPK has no rule for exit code 2, so an error of the user is tried again.
xpk workload create --project={{ project | sh }} --zone={{ zone | sh }} --cluster={{ cluster | sh }} \
  --workload={{ name | sh }} --tpu-type={{ tpu_type | sh }} --num-slices={{ slices }} \
  --docker-image={{ image | sh }} \
  --env=JAX_COMPILATION_CACHE_DIR={{ cache | sh }} --env=RESTARTS=0 \
  --max-restarts={{ restarts }} --restart-on-user-code-failure \
  --termination-grace-period-seconds={{ grace }} \
  --command={{ (["/opt/vidjax/launch/run.sh"] + command | distributed) | sh | sh }}
