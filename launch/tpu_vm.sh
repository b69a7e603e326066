#!/usr/bin/env bash
# {{ name }}: TPU VMs by queued resources. Creates the TPU, watches it until the command has ended, creates it again if
# it is preempted, and deletes it. Run this on any machine with gcloud. If it is stopped, the TPU goes on; run it again
# to watch.
set -u
name={{ name | sh }}
where=(--project={{ project | sh }} --zone={{ zone | sh }})
ended={{ exit_file | sh }}

# Runs on every worker at each boot. TPU pods need no coordinator: --distributed finds it in the metadata.
startup=$(mktemp)
trap 'rm -f "$startup"' EXIT
cat >"$startup" <<'STARTUP'
#!/usr/bin/env bash
set -u
export HOME=/root
gcloud auth configure-docker {{ registry | sh }} --quiet
docker rm --force vidjax 2>/dev/null
# The TPU devices belong to root.
docker run --rm --name=vidjax --user=root --privileged --net=host --shm-size=16g --stop-timeout={{ grace }} \
  --env=JAX_COMPILATION_CACHE_DIR={{ cache | sh }} --env=RESTARTS={{ restarts }} --env=PAUSE=75 \
  {{ image | sh }} {{ command | distributed | sh }}
code=$?
attributes=http://metadata.google.internal/computeMetadata/v1/instance/attributes
worker=$(curl --silent --header 'Metadata-Flavor: Google' "$attributes/agent-worker-number")
if [ "$worker" = 0 ] && [ "$(systemctl is-system-running)" != stopping ]; then # not preempted
  echo "$code" | gcloud storage cp - {{ exit_file | sh }}
fi
STARTUP

create() {
  gcloud storage rm "$ended" --quiet 2>/dev/null
  gcloud compute tpus queued-resources create "$name" "${where[@]}" --node-id="$name" \
    --accelerator-type={{ tpu_type | sh }} --runtime-version={{ runtime | sh }} \
    --metadata-from-file=startup-script="$startup" --scopes=cloud-platform{{ " --spot" if spot == "yes" else "" }} --quiet
}

delete() {
  gcloud compute tpus queued-resources delete "$name" "${where[@]}" --force --quiet
}

last=""
until code=$(gcloud storage cat "$ended" 2>/dev/null) && [ -n "$last" ]; do
  state=$(gcloud compute tpus queued-resources describe "$name" "${where[@]}" --format='value(state.state)' 2>&1) ||
    case $state in
      *NOT_FOUND*) state="" ;;
      *) state=unknown ;; # such as no network
    esac
  [ "$state" = "$last" ] || echo "$name: ${state:-not created}"
  last=${state:-none}
  case $state in
    "") create || exit ;;
    SUSPENDED | FAILED) delete ;; # preempted; the next round creates it again
  esac
  sleep 30
done
echo "$name: exit code $code"
delete
exit "$code"
