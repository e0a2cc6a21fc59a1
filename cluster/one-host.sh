#!/usr/bin/env bash
# A whole cluster on one Linux host, without Docker: Ray's head with its job server, an MLflow server and, unless
# AWS_ENDPOINT_URL names one, an S3 server. Pages and servers listen on 127.0.0.1; the ports that Ray's processes
# open for each other listen on every interface whatever is asked, and answer only who has the token.
#
#   cluster/one-host.sh start     start everything, print what to export and the job line
#   cluster/one-host.sh status    say what runs
#   cluster/one-host.sh stop      end exactly the processes that `start` started
#
# The S3 server is moto's: a TEST server that keeps everything in memory and checks no password. What it holds is
# gone after `stop`. To keep data, export AWS_ENDPOINT_URL, the AWS credentials and ONE_HOST_STORE before `start`.
# Ports: RAY_PORT, DASHBOARD_PORT, AGENT_PORT, MLFLOW_PORT, S3_PORT. Files: ONE_HOST_DIR (runs/one-host).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
BIN="$PWD/.venv/bin"
STATE="$(realpath -m "${ONE_HOST_DIR:-runs/one-host}")"
RAY_PORT="${RAY_PORT:-6379}" DASHBOARD_PORT="${DASHBOARD_PORT:-8265}" AGENT_PORT="${AGENT_PORT:-52365}"
MLFLOW_PORT="${MLFLOW_PORT:-5000}" S3_PORT="${S3_PORT:-9000}"
STORE="${ONE_HOST_STORE:-s3://inversion/store}"

fail() { echo "error: $*" >&2; exit 2; }

stamp() { ps -o lstart= -p "$1" 2>/dev/null || true; }  # a process id may be used again: its start time is not

is_running() {  # is_running NAME
  [[ -f $STATE/$1.pid ]] && { read -r pid; read -r started; } <"$STATE/$1.pid" && [[ $(stamp "$pid") == "$started" ]]
}

launch() {  # launch NAME COMMAND...: in a session of its own, so that `stop` finds all of it
  local name=$1; shift
  setsid "$@" >"$STATE/$name.log" 2>&1 </dev/null &
  printf '%s\n%s\n' "$!" "$(stamp $!)" >"$STATE/$name.pid"
}

wait_for() {  # wait_for NAME URL: any HTTP answer counts, the job server's 401 as well
  for _ in $(seq 240); do
    is_running "$1" || { tail -n 20 "$STATE/$1.log" >&2; stop; fail "$1 ended while starting; see above."; }
    curl --silent --output /dev/null --max-time 2 "$2" && return
    sleep 0.5
  done
  stop
  fail "$1 did not answer on $2 within 120 s; see $STATE/$1.log."
}

check_port() {  # check_port VARIABLE
  "$BIN/python" -c "import socket; socket.create_server(('127.0.0.1', ${!1}))" 2>/dev/null ||
    fail "$1=${!1} is taken on 127.0.0.1; set $1 to a free port."
}

start() {
  [[ -x $BIN/ray ]] || fail "$BIN/ray does not exist; run make demo or make test first, they install it."
  for name in ray mlflow s3; do ! is_running "$name" || fail "$name runs already; run cluster/one-host.sh stop first."; done
  for port in RAY_PORT DASHBOARD_PORT AGENT_PORT MLFLOW_PORT S3_PORT; do check_port "$port"; done
  umask 077  # token, logs and MLflow's files are for this user only
  mkdir -p "$STATE"
  "$BIN/python" -c "import secrets; print(secrets.token_hex(32), end='')" >"$STATE/ray_token"
  export RAY_AUTH_MODE=token RAY_AUTH_TOKEN_PATH="$STATE/ray_token" RAY_USAGE_STATS_ENABLED=0
  unset RAY_AUTH_TOKEN RAY_ADDRESS RAY_API_SERVER_ADDRESS
  export PATH="$BIN:$PATH"  # a job's `python` is the head's
  start_s3
  MLFLOW_SERVER_ENABLE_JOB_EXECUTION=false launch mlflow "$BIN/python" -m mlflow server --host 127.0.0.1 \
    --port "$MLFLOW_PORT" --workers 1 --backend-store-uri "sqlite:///$STATE/mlflow.db" \
    --artifacts-destination "$STATE/mlartifacts"
  # Jobs have the head's environment, not that of whoever submits them.
  export INVERSION_STORE="$STORE" MLFLOW_TRACKING_URI="http://127.0.0.1:$MLFLOW_PORT"
  # A short folder: Ray keeps sockets in it, and their paths may have 107 bytes.
  mktemp -d /tmp/one-host-ray.XXXXXX >"$STATE/ray.tmp"
  launch ray "$BIN/ray" start --head --block --node-ip-address 127.0.0.1 --port "$RAY_PORT" \
    --dashboard-host 127.0.0.1 --dashboard-port "$DASHBOARD_PORT" \
    --dashboard-agent-listen-port "$AGENT_PORT" --disable-usage-stats --temp-dir "$(<"$STATE/ray.tmp")"
  wait_for mlflow "http://127.0.0.1:$MLFLOW_PORT/health"
  wait_for ray "http://127.0.0.1:$DASHBOARD_PORT/api/version"
  wait_for ray "http://127.0.0.1:$AGENT_PORT/api/local_raylet_healthz"  # jobs are started by the agent
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
  echo "The cluster runs. In your shell:"
  echo "  source '$STATE/env.sh'"
  echo "Then, for example:"
  echo "  ray job submit --working-dir . -- python -m jobs.sweep jobs/studies/demo.yaml \\"
  echo "    --store '$STORE' --tracking-uri $MLFLOW_TRACKING_URI"
  echo "Pages: MLflow $MLFLOW_TRACKING_URI, Ray http://127.0.0.1:$DASHBOARD_PORT (asks for the token in $STATE/ray_token)"
  if is_running s3; then echo "The S3 server is a test server: what it holds is lost after cluster/one-host.sh stop."; fi
}

members() { ps -o pid= -s "$1" || true; }  # every process of the session that setsid made

stop() {
  for name in ray mlflow s3; do
    if is_running "$name"; then
      local pid; read -r pid <"$STATE/$name.pid"
      kill -TERM "$pid"
      for _ in $(seq 60); do [[ -n $(members "$pid") ]] || break; sleep 0.25; done
      for left in $(members "$pid"); do kill -KILL "$left" 2>/dev/null || true; done
      echo "stopped: $name"
    fi
    rm -f "$STATE/$name.pid"
  done
  if [[ -f $STATE/ray.tmp ]]; then rm -rf "$(<"$STATE/ray.tmp")" "$STATE/ray.tmp"; fi
  rm -f "$STATE/ray_token" "$STATE/env.sh"
}

status() {
  for name in ray mlflow s3; do
    if is_running "$name"; then echo "$name: runs, log $STATE/$name.log"; else echo "$name: does not run"; fi
  done
}

case "${1:-}" in
  start | stop | status) "$1" ;;
  *) fail "usage: cluster/one-host.sh start|status|stop" ;;
esac
