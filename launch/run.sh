#!/usr/bin/env bash
# Runs a command, and runs it again if it fails: vidjax resumes from its latest checkpoint.
#
#   run.sh COMMAND...
#
# SIGTERM and SIGINT are passed on as SIGTERM, on which vidjax saves a checkpoint. Exit codes:
#   0   the command has finished
#   2   an error that only the user can fix; the command is not run again
#   75  stopped by a signal before the end: the scheduler should start the job again
#   else that of the last failure, after RESTARTS restarts
# The pause after exit code 75 (another host was lost) is short. After others it is PAUSE seconds, which on several
# hosts has to be longer than parallel.host_timeout, so that all of them start again together.
set -u
restarts=${RESTARTS:-20}
pause=${PAUSE:-10}
child=""
stopped=""

stop() {
  if [ -z "$child" ]; then
    stopped=early # before the command was known
  else
    stopped=yes
    kill -TERM "$child" 2>/dev/null
  fi
}
trap stop TERM INT

while :; do
  "$@" &
  child=$!
  if [ "$stopped" = early ]; then kill -TERM "$child" 2>/dev/null; fi
  wait "$child"
  code=$?
  while kill -0 "$child" 2>/dev/null; do # a signal has interrupted `wait`
    wait "$child"
    code=$?
  done
  child=""
  if [ "$code" = 2 ]; then exit 2; fi
  if [ -n "$stopped" ]; then
    if [ -n "${ON_STOP:-}" ]; then bash -c "$ON_STOP"; fi
    exit 75
  fi
  if [ "$code" = 0 ] || [ "$restarts" -le 0 ]; then exit "$code"; fi
  restarts=$((restarts - 1))
  echo "run.sh: exit code $code, restarting ($restarts restarts left)" >&2
  if [ "$code" = 75 ]; then seconds=5; else seconds=$pause; fi
  sleep "$seconds" &
  child=$!
  wait "$child"
  child=""
  if [ -n "$stopped" ]; then exit 75; fi
done
