# shellcheck shell=bash disable=SC2154 # variables of helpers.sh
# Pebble, the test server of Let's Encrypt, on the server itself. Source it; it runs nothing.

directory=https://pebble.example:14000/dir

# Installs and starts it, as units, so that it is there after a restart of the server.
start_pebble() {
  local folder=$scratch/pebble
  if [[ ! -e $folder/ca.pem ]]; then
    mkdir -p "$folder"
    ( cd "$folder" || exit
      openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 30 -subj '/CN=test CA' \
        -addext keyUsage=critical,keyCertSign -keyout ca.key -out ca.pem 2>/dev/null
      openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=pebble -keyout key.pem -out pebble.csr 2>/dev/null
      openssl x509 -req -in pebble.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 30 -out cert.pem \
        -extfile <(printf 'subjectAltName=DNS:pebble.example\n') 2>/dev/null )
    cat > "$folder/pebble.json" <<'JSON'
{"pebble": {"listenAddress": "0.0.0.0:14000", "managementListenAddress": "0.0.0.0:15000",
  "certificate": "/opt/pebble/cert.pem", "privateKey": "/opt/pebble/key.pem", "httpPort": 80, "tlsPort": 443,
  "ocspResponderURL": "", "externalAccountBindingRequired": false, "retryAfter": {"authz": 1, "order": 1},
  "certificateValidityPeriod": 2592000,
  "profiles": {"default": {"description": "a test", "validityPeriod": 2592000},
               "tlsserver": {"description": "a test", "validityPeriod": 2592000}}}}
JSON
    # Every name is this server. Its name server and nonces are as in a default Pebble, which rejects some at random.
    cat > "$folder/pebble-names.service" <<'UNIT'
[Service]
ExecStart=/bin/sh -c 'exec pebble-challtestsrv -dns01 127.0.0.1:8053 -management 127.0.0.1:8055 -http01 "" -https01 "" -tlsalpn01 "" -doh "" -defaultIPv6 "" -defaultIPv4 $$(hostname -i)'
[Install]
WantedBy=multi-user.target
UNIT
    cat > "$folder/pebble.service" <<'UNIT'
[Service]
Environment=PEBBLE_VA_NOSLEEP=1
ExecStart=/usr/bin/pebble -config /opt/pebble/pebble.json -dnsserver 127.0.0.1:8053
[Install]
WantedBy=multi-user.target
UNIT
  fi
  on_server sh -c 'apt-get -qq update && DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends pebble' > /dev/null
  docker cp -q "$folder" "$machine:/opt/pebble"
  on_server sh -c 'chmod 644 /opt/pebble/* && cp /opt/pebble/*.service /etc/systemd/system/ && systemctl daemon-reload && systemctl enable -q --now pebble-names pebble'
  wait_for 20 "Pebble" save_root
  on_server sed -i "s|^{|{\n  \"acme_directory\": \"$directory\",|" /etc/linnet/host.json
}
save_root() {
  curl -fsS -m 2 --cacert "$scratch/pebble/ca.pem" --resolve "pebble.example:15000:$address" https://pebble.example:15000/roots/0 \
    > "$(root_certificate)" 2>/dev/null
}
