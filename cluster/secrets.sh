#!/usr/bin/env bash
# Creates the secrets of cluster/compose.yaml in cluster/secrets/, readable by you only; existing ones are kept.
set -euo pipefail
umask 077
mkdir -p "$(dirname "${BASH_SOURCE[0]}")/secrets"
cd "$(dirname "${BASH_SOURCE[0]}")/secrets"

random() { od -An -N24 -tx1 /dev/urandom | tr -d ' \n'; }

[[ -e ray_token ]] || printf '%s%s' "$(random)" "$(random)" >ray_token
[[ -e postgres_password ]] || random >postgres_password
if [[ ! -e aws_credentials ]]; then
  key="$(random)" secret="$(random)$(random)"
  printf '[default]\naws_access_key_id = %s\naws_secret_access_key = %s\n' "$key" "$secret" >aws_credentials
  printf '{"identities": [{"name": "inversion", "credentials": [{"accessKey": "%s", "secretKey": "%s"}], ' \
    "$key" "$secret" >s3_identities.json
  printf '"actions": ["Admin", "Read", "Write", "List"]}]}\n' >>s3_identities.json
fi
echo "cluster/secrets/: ray_token, postgres_password, aws_credentials, s3_identities.json"
