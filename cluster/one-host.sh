#!/usr/bin/env bash
# A whole cluster on one Linux host, without containers: Ray's head with its job server, worker nodes (raylets of
# their own), an MLflow server and, unless AWS_ENDPOINT_URL names one, an S3 server. Pages and servers listen on
# 127.0.0.1; the ports that Ray's processes open for each other listen on every interface and accept only
# clients with the token. `make cluster` and `make cluster-stop` call this.
#
#   cluster/one-host.sh start     start everything, print what to export and the job line
#   cluster/one-host.sh status    list the processes
#   cluster/one-host.sh stop      stop exactly the processes that `start` started
#
# The S3 server is moto's: a TEST server that keeps everything in memory and checks no password. `stop`
# deletes it all. To keep data, export AWS_ENDPOINT_URL, the AWS credentials and ONE_HOST_STORE before `start`.
# Size: ONE_HOST_WORKERS nodes (3) of ONE_HOST_CPUS CPUs (1) each. ONE_HOST_MLFLOW_DB: MLflow's database (SQLite),
# for instance postgresql://USER:PASSWORD@HOST/NAME. Files: ONE_HOST_DIR (runs/one-host).
# Ports: RAY_PORT, DASHBOARD_PORT, AGENT_PORT, MLFLOW_PORT, S3_PORT; worker nodes take free ones.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
BIN="$PWD/.venv/bin"
STATE="$(realpath -m "${ONE_HOST_DIR:-runs/one-host}")"
WORKERS="${ONE_HOST_WORKERS:-3}" CPUS="${ONE_HOST_CPUS:-1}"
RAY_PORT="${RAY_PORT:-6379}" DASHBOARD_PORT="${DASHBOARD_PORT:-8265}" AGENT_PORT="${AGENT_PORT:-52365}"
MLFLOW_PORT="${MLFLOW_PORT:-5000}" S3_PORT="${S3_PORT:-9000}"
STORE="${ONE_HOST_STORE:-s3://inversion/store}"
FREE_PORTS=(--min-worker-port 0 --max-worker-port 0)  # raylets on one host must not share Ray's fixed range

fail() { echo "error: $*" >&2; exit 2; }

stamp() { ps -o lstart= -p "$1" 2>/dev/null || true; }  # process ids are reused; start times are not

names() {  # all processes, worker nodes before the head
  local file
  for file in "$STATE"/worker-*.pid; do [[ ! -e $file ]] || basename "$file" .pid; done
  printf '%s\n' ray mlflow s3
}

is_running() {  # is_running NAME
  [[ -f $STATE/$1.pid ]] && { read -r pid; read -r started; } <"$STATE/$1.pid" && [[ $(stamp "$pid") == "$started" ]]
}

launch() {  # launch NAME COMMAND...: in its own session, so that `stop` finds all of it
  local name=$1; shift
  setsid "$@" >"$STATE/$name.log" 2>&1 </dev/null &
  printf '%s\n%s\n' "$!" "$(stamp $!)" >"$STATE/$name.pid"
}

give_up() {  # give_up NAME WORDS: stop everything and fail with the reason
  tail -n 20 "$STATE/$1.log" >&2
  stop
  fail "$1 $2; its log is above and in $STATE/$1.log."
}

wait_for() {  # wait_for NAME URL: any HTTP answer counts, the job server's 401 as well
  for _ in $(seq 240); do
    is_running "$1" || give_up "$1" "ended while starting"
    curl --silent --output /dev/null --max-time 2 "$2" && return
    sleep 0.5
  done
  give_up "$1" "did not answer on $2 within 120 s"
}

num_alive() {  # nodes alive by the head's count; the token goes through a pipe, because `ps` shows command lines
  printf 'Authorization: Bearer %s' "$(<"$STATE/ray_token")" |
    curl --silent --max-time 5 --header @- "http://127.0.0.1:$DASHBOARD_PORT/nodes?view=summary" |
    grep -oE '"state": ?"ALIVE"' | wc -l
}

check_port() {  # check_port VARIABLE
  "$BIN/python" -c "import socket; socket.create_server(('127.0.0.1', ${!1}))" 2>/dev/null ||
    fail "$1=${!1} is taken on 127.0.0.1; set $1 to a free port."
}

check() {
  [[ -x $BIN/ray ]] || fail "$BIN/ray does not exist; run make demo or make test first, they install it."
  [[ $WORKERS =~ ^[0-9]+$ && $WORKERS -ge 1 ]] || fail "ONE_HOST_WORKERS=$WORKERS must be a whole number from 1; the head runs no stages."
  [[ $CPUS =~ ^[0-9]+$ && $CPUS -ge 1 ]] || fail "ONE_HOST_CPUS=$CPUS must be a whole number from 1."
  for name in $(names); do ! is_running "$name" || fail "$name runs already; run cluster/one-host.sh stop first."; done
  for port in RAY_PORT DASHBOARD_PORT AGENT_PORT MLFLOW_PORT S3_PORT; do check_port "$port"; done
}

start() {
  check
  umask 077  # token, logs and MLflow's files are for this user only
  mkdir -p "$STATE"
  "$BIN/python" -c "import secrets; print(secrets.token_hex(32), end='')" >"$STATE/ray_token"
  export RAY_AUTH_MODE=token RAY_AUTH_TOKEN_PATH="$STATE/ray_token" RAY_USAGE_STATS_ENABLED=0
  export RAY_JOB_STOP_WAIT_TIME_S=30  # `ray job stop` kills after 3 s otherwise
  export RAY_worker_maximum_startup_concurrency=16  # or Ray warns in jobs' logs of more processes than CPUs
  unset RAY_AUTH_TOKEN RAY_ADDRESS RAY_API_SERVER_ADDRESS
  export PATH="$BIN:$PATH"  # a job's `python` is the head's
  start_s3
  start_mlflow
  # Jobs have the head's environment, not that of the submitting client.
  export INVERSION_STORE="$STORE" MLFLOW_TRACKING_URI="http://127.0.0.1:$MLFLOW_PORT"
  start_head
  wait_for mlflow "http://127.0.0.1:$MLFLOW_PORT/health"
  start_workers
  explain
}

start_s3() {
  if [[ -n ${AWS_ENDPOINT_URL:-} ]]; then return; fi
  export AWS_ENDPOINT_URL="http://127.0.0.1:$S3_PORT" AWS_EC2_METADATA_DISABLED=true
  export AWS_ACCESS_KEY_ID=testing AWS_SECRET_ACCESS_KEY=testing AWS_DEFAULT_REGION=us-east-1
  unset AWS_PROFILE AWS_SESSION_TOKEN
  launch s3 "$BIN/moto_server" --host 127.0.0.1 --port "$S3_PORT"
  wait_for s3 "$AWS_ENDPOINT_URL/"
  local bucket=${STORE#s3://}
  curl --silent --fail --output /dev/null --request PUT "$AWS_ENDPOINT_URL/${bucket%%/*}"
}

start_mlflow() {  # the database goes through the environment: its URI may hold a password
  # Made aside first: a server that is stopped in its first seconds would leave one that no MLflow opens.
  [[ -n ${ONE_HOST_MLFLOW_DB:-} ]] || "$BIN/python" -c 'import sys
from pathlib import Path
from orchestrator.runtime.mlflow.database import prepare
prepare(Path(sys.argv[1]))' "$STATE/mlflow.db"
  MLFLOW_BACKEND_STORE_URI="${ONE_HOST_MLFLOW_DB:-sqlite:///$STATE/mlflow.db}" \
    MLFLOW_SERVER_ENABLE_JOB_EXECUTION=false MLFLOW_ALLOW_PICKLE_DESERIALIZATION=false \
    launch mlflow "$BIN/python" -m mlflow server --host 127.0.0.1 --port "$MLFLOW_PORT" --workers 1 \
    --artifacts-destination "$STATE/mlartifacts"
}

start_head() {  # without CPUs: drivers and the job server only
  # A short path: Ray keeps sockets there, and their paths are limited to 107 bytes. One folder for each node: in a
  # shared one, every node that joins a job unpacks the job's files again while others import them.
  mktemp -d /tmp/one-host-ray.XXXXXX >"$STATE/ray.tmp"
  launch ray "$BIN/ray" start --head --block --node-ip-address 127.0.0.1 --port "$RAY_PORT" --num-cpus 0 \
    --dashboard-host 127.0.0.1 --dashboard-port "$DASHBOARD_PORT" \
    --dashboard-agent-listen-port "$AGENT_PORT" "${FREE_PORTS[@]}" --disable-usage-stats --temp-dir "$(<"$STATE/ray.tmp")/head"
  wait_for ray "http://127.0.0.1:$DASHBOARD_PORT/api/version"
  wait_for ray "http://127.0.0.1:$AGENT_PORT/api/local_raylet_healthz"  # jobs are started by the agent
}

start_workers() {  # one after the other: raylets give up when they start too slowly
  local number alive
  for number in $(seq "$WORKERS"); do
    launch "worker-$number" "$BIN/ray" start --block --address "127.0.0.1:$RAY_PORT" --node-ip-address 127.0.0.1 \
      --num-cpus "$CPUS" --dashboard-agent-listen-port 0 "${FREE_PORTS[@]}" --disable-usage-stats \
      --temp-dir "$(<"$STATE/ray.tmp")/$number"
    for _ in $(seq 240); do
      is_running "worker-$number" || give_up "worker-$number" "ended while starting"
      alive=$(num_alive || true)
      [[ $alive -le $number ]] || continue 2
      sleep 0.5
    done
    give_up "worker-$number" "did not join within 120 s"
  done
}

explain() {
  {
    echo "unset RAY_AUTH_TOKEN"
    echo "export RAY_AUTH_MODE=token RAY_AUTH_TOKEN_PATH='$STATE/ray_token'"
    echo "export RAY_API_SERVER_ADDRESS=http://127.0.0.1:$DASHBOARD_PORT PATH='$BIN':\$PATH"
    echo "export INVERSION_STORE='$STORE' MLFLOW_TRACKING_URI=$MLFLOW_TRACKING_URI"
    echo "export AWS_ENDPOINT_URL='$AWS_ENDPOINT_URL'"
    if is_running s3; then
      echo "export AWS_ACCESS_KEY_ID=testing AWS_SECRET_ACCESS_KEY=testing AWS_DEFAULT_REGION=us-east-1"
    fi
  } >"$STATE/env.sh"
  echo "The cluster runs: a head and $WORKERS worker node(s) of $CPUS CPU(s). In your shell:"
  echo "  source '$STATE/env.sh'"
  echo "Then, for example:"
  echo "  ray job submit --working-dir . -- python -m jobs.sweep jobs/studies/demo.yaml \\"
  echo "    --store '$STORE' --tracking-uri $MLFLOW_TRACKING_URI"
  echo "Pages: MLflow $MLFLOW_TRACKING_URI, Ray http://127.0.0.1:$DASHBOARD_PORT (asks for the token in $STATE/ray_token)"
  if is_running s3; then echo "The S3 server is a test server: what it holds is lost after cluster/one-host.sh stop."; fi
}

members() { ps -o pid= -s "$1" || true; }  # every process of the session created by setsid

stop() {
  local name pid one ours=() end=$((SECONDS + 15))
  for name in $(names); do
    if is_running "$name"; then
      read -r pid <"$STATE/$name.pid"
      kill -TERM "$pid"
      ours+=("$name $pid")
    fi
    rm -f "$STATE/$name.pid"
  done
  for one in "${ours[@]}"; do await_end "${one% *}" "${one#* }" "$end"; done
  if [[ -f $STATE/ray.tmp ]]; then rm -rf "$(<"$STATE/ray.tmp")" "$STATE/ray.tmp"; fi
  rm -f "$STATE/ray_token" "$STATE/env.sh"
}

await_end() {  # await_end NAME PID END: kill what still runs at END
  local left
  while [[ -n $(members "$2") && $SECONDS -lt $3 ]]; do sleep 0.25; done
  for left in $(members "$2"); do kill -KILL "$left" 2>/dev/null || true; done
  echo "stopped: $1"
}

status() {
  local name
  for name in $(names); do
    if is_running "$name"; then echo "$name: runs, log $STATE/$name.log"; else echo "$name: does not run"; fi
  done
}

case "${1:-}" in
  start | stop | status) "$1" ;;
  *) fail "usage: cluster/one-host.sh start|status|stop" ;;
esac
