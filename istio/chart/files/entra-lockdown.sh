# An own chain for each direction, so that running again changes nothing.
chain() { # tool, chain, from
  "$1" -w -N "$2" 2>/dev/null || "$1" -w -F "$2"
  "$1" -w -C "$3" -p tcp -j "$2" 2>/dev/null || "$1" -w -I "$3" 1 -p tcp -j "$2"
}
close() { # tool, addresses of the node
  if [ "$ADMIN" = true ]; then
    chain "$1" ENTRA_OUT OUTPUT
    "$1" -w -A ENTRA_OUT -o lo -p tcp --dport 15000 \
      -m owner ! --uid-owner "$PROXY_UID" -j REJECT --reject-with tcp-reset
  fi
  if [ "$STATUS" = true ]; then
    chain "$1" ENTRA_IN INPUT
    "$1" -w -A ENTRA_IN -i lo -j RETURN
    for address in $2; do
      "$1" -w -A ENTRA_IN -p tcp --dport "$STATUS_PORT" -s "$address" -j RETURN
    done
    "$1" -w -A ENTRA_IN -p tcp --dport "$STATUS_PORT" -j REJECT --reject-with tcp-reset
  fi
}
four= six= wide=
while read -r _ destination gateway _; do
  if [ "$destination" = 00000000 ] && [ "$gateway" != 00000000 ]; then
    a=${gateway#??????} b=${gateway#????} c=${gateway#??} d=${gateway%??????}
    four=" $(printf '%d.%d.%d.%d' "0x$a" "0x${b%??}" "0x${c%????}" "0x$d")"
  fi
done < /proc/net/route
for address in $(echo "$HOST_IPS,$STATUS_FROM" | tr , ' '); do
  case $address in *:*) six="$six $address" ;; *) four="$four $address" ;; esac
done
close iptables "$four"
if [ -r /proc/net/if_inet6 ]; then
  while read -r _ _ _ scope _; do
    if [ "$scope" = 00 ]; then wide=yes; fi
  done < /proc/net/if_inet6
fi
# Without an IPv6 address nobody comes that way; with one the rules must hold there too.
if [ "$wide" ]; then close ip6tables "$six"; fi
# Istio's proxy goes there for the application, and is refused like everybody.
if [ "$METADATA" = true ]; then
  chain iptables ENTRA_METADATA OUTPUT
  iptables -w -A ENTRA_METADATA -d 169.254.169.254 -p tcp \
    -m owner --uid-owner 65532 --gid-owner "$PROXY_GID" -j RETURN
  iptables -w -A ENTRA_METADATA -d 169.254.169.254 -p tcp -j REJECT --reject-with tcp-reset
fi
echo "closed: admin=$ADMIN status=$STATUS metadata=$METADATA, $STATUS_PORT open to lo$four$six"
