//! The objects of a list of destinations, as YAML that a person can read.
//!
//! Written out as text, for the comments in it. Whatever is put in has been read by
//! `destinations` or is quoted, so that no value can become structure. The module comes first and
//! each EnvoyFilter before its ServiceEntry: nothing is called before it is protected.

use serde_json::Value;

use crate::destinations::{Destination, Destinations, NO_PORT, PREFIX, Protocol, Resource};

/// The object that brings the module.
const MODULE: &str = "entra-outbound";
const WASM: &str = "type.googleapis.com/envoy.extensions.filters.http.wasm.v3.Wasm";

/// All objects, as documents of one file.
pub(super) fn of(destinations: &Destinations) -> String {
    let mut documents = vec![head(destinations), module(destinations)];
    for destination in &destinations.list {
        documents.push(envoy_filter(destinations, destination));
        documents.push(service_entry(destinations, destination));
    }
    documents.push(login(destinations));
    documents.join("---\n")
}

/// Text as YAML and JSON both read it.
fn quoted(text: &str) -> String {
    Value::from(text).to_string()
}

/// What every object begins with.
fn opening(destinations: &Destinations, version: &str, kind: &str, name: &str) -> String {
    format!(
        "apiVersion: {version}
kind: {kind}
metadata:
  name: {name}
  namespace: {}
  labels: {{app.kubernetes.io/part-of: entra-sidecar}}
spec:
",
        quoted(&destinations.namespace)
    )
}

/// The pods' labels, in the flow form.
fn labels(destinations: &Destinations) -> String {
    let labels = destinations.labels.iter();
    let labels: Vec<String> =
        labels.map(|(key, value)| format!("{}: {}", quoted(key), quoted(value))).collect();
    format!("{{{}}}", labels.join(", "))
}

/// By which name Istio delivers the module to the proxies.
fn module_resource(destinations: &Destinations) -> String {
    let kind = match destinations.resource {
        Resource::TrafficExtension => "trafficextension",
        Resource::WasmPlugin => "wasmplugin",
    };
    format!("extensions.istio.io/{kind}/{}.{MODULE}", destinations.namespace)
}

fn head(destinations: &Destinations) -> String {
    let namespace = &destinations.namespace;
    let kind = resource_name(destinations.resource);
    let mut text = format!(
        "# Made by `entra-sidecar istio destinations`: change its list, not this file.
#
# Tokens for the calls of the pods of namespace {namespace} with the labels
#   {}
#
#   {kind} {MODULE}
#     has Istio deliver the filter and its policy to the proxies. It stands in no listener.
#   EnvoyFilter {PREFIX}NAME, one for each destination
#     has the calls to the host go out from a cluster of its own: over TLS, to that very host, with
#     the filter before them and the destination's name on it; and has a call made again after a
#     claims challenge, where the policy wants that.
#   ServiceEntry {PREFIX}NAME, one for each destination
#     makes the host known, so that there is a route for the EnvoyFilter to turn.
#   ServiceEntry {PREFIX}login
#     lets the token broker reach Entra where the mesh lets out only what it knows.
#
# The application calls
",
        labels(destinations)
    );
    for destination in &destinations.list {
        let Destination { name, host, port, .. } = destination;
        let port = if *port == 80 { String::new() } else { format!(":{port}") };
        text.push_str(&format!("#   http://{host}{port}   ({name})\n"));
    }
    text.push_str(&format!(
        "#
# A token leaves only from a cluster that carries a destination's name: those that the EnvoyFilters
# below bring, whole. Where one is missing, or not yet there, calls go out without a token, and the
# API refuses them. What a DestinationRule says of these hosts does not count.
#
# To see that it has arrived, with POD of the namespace:
#   istioctl analyze -n {namespace}
#   istioctl proxy-config ecds POD.{namespace}
#     has the module, with its digest
#   istioctl proxy-config cluster POD.{namespace} -o yaml
#     has entra-NAME, with transportSocket and filterMetadata
#   istioctl proxy-config route POD.{namespace} -o yaml
#     has routes to entra-NAME, some with a retryPolicy for x-entra-retry
# Where Envoy's admin port is closed to all but the proxy:
#   kubectl exec -n {namespace} POD -c istio-proxy -- pilot-agent request GET config_dump
"
    ));
    text
}

fn resource_name(resource: Resource) -> &'static str {
    match resource {
        Resource::TrafficExtension => "TrafficExtension",
        Resource::WasmPlugin => "WasmPlugin",
    }
}

fn module(destinations: &Destinations) -> String {
    let kind = resource_name(destinations.resource);
    let comment = match destinations.resource {
        Resource::TrafficExtension => "# The filter with its policy. For Istio 1.30 and later.\n",
        Resource::WasmPlugin => {
            "# The filter with its policy. For Istio 1.28 and 1.29: from 1.30 on the EnvoyFilters
# below would not find it; make this file again with `resource: TrafficExtension` then.
"
        }
    };
    let mut text = format!(
        "{comment}{}  selector:
    matchLabels: {}
  # No port of anybody's: the module is delivered, and the EnvoyFilters below use it.
  match:
  - mode: CLIENT
    ports: [{{number: {NO_PORT}}}]
",
        opening(destinations, "extensions.istio.io/v1alpha1", kind, MODULE),
        labels(destinations)
    );
    let mut wasm = format!(
        "url: {}
sha256: {}
",
        quoted(&destinations.image),
        quoted(&destinations.sha256)
    );
    if let Some(secret) = &destinations.pull_secret {
        wasm.push_str(&format!("imagePullSecret: {}\n", quoted(secret)));
    }
    wasm.push_str(
        "failStrategy: FAIL_RELOAD   # never FAIL_OPEN
# Another environment is another VM: neither this one nor the inbound filter's can take the
# other down.
vmConfig:
  env:
  - {name: ENTRA_DIRECTION, value: outbound}
pluginConfig:
  direction: outbound
",
    );
    wasm.push_str(&format!(
        "  broker: {{cluster: {}}}\n  rules:\n",
        quoted(&destinations.broker_cluster)
    ));
    for destination in &destinations.list {
        wasm.push_str(&format!(
            "  - name: {name}
    match: {{destination: {name}}}
    token:
      identity: {}
      scope: {}
    existing_authorization: {}
    claims_challenges: {}
",
            quoted(&destination.identity),
            quoted(&destination.scope),
            destination.existing_authorization,
            destination.claims_challenges,
            name = quoted(&destination.name),
        ));
    }
    match destinations.resource {
        Resource::WasmPlugin => text.push_str(&indented(&wasm, 2)),
        Resource::TrafficExtension => {
            text.push_str("  wasm:\n");
            text.push_str(&indented(&wasm, 4));
        }
    }
    text
}

fn indented(text: &str, by: usize) -> String {
    text.lines().map(|line| format!("{}{line}\n", " ".repeat(by))).collect()
}

/// A whole cluster of our own, and the route to it. Nothing is merged into a cluster of Istio's:
/// what a ServiceEntry or a DestinationRule says of the host, its endpoints, its TLS, cannot come
/// under the destination's name.
fn envoy_filter(destinations: &Destinations, destination: &Destination) -> String {
    let Destination { name, host, port, .. } = destination;
    let object = format!("{PREFIX}{name}");
    let module = module_resource(destinations);
    let (alpn, version) = match destination.protocol {
        Protocol::Http1 => ("http/1.1", "http_protocol_options"),
        Protocol::Http2 | Protocol::Grpc => ("h2", "http2_protocol_options"),
    };
    let mut text = format!(
        "# Destination {name}: {host}, over TLS.
{}  workloadSelector:
    labels: {}
  configPatches:
  # A cluster of its own, whole: nothing that is said of the host elsewhere is merged into it.
  - applyTo: CLUSTER
    match: {{context: SIDECAR_OUTBOUND}}
    patch:
      operation: ADD
      value:
        name: {object}
        type: LOGICAL_DNS
        dns_lookup_family: ALL
        respect_dns_ttl: true
        connect_timeout: 5s
        # Envoy's default of 3 replays at one time would show the application most challenges.
        circuit_breakers:
          thresholds:
          - max_connections: 65536
            max_pending_requests: 65536
            max_requests: 65536
            max_retries: 65536
        load_assignment:
          cluster_name: {object}
          endpoints:
          - lb_endpoints:
            - endpoint:
                address: {{socket_address: {{address: \"{host}\", port_value: 443}}}}
        # TLS to this host and no other.
        transport_socket:
          name: envoy.transport_sockets.tls
          typed_config:
            \"@type\": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext
            sni: \"{host}\"
            common_tls_context:
              alpn_protocols: [{alpn}]
              tls_params:
                tls_minimum_protocol_version: TLSv1_2
                tls_maximum_protocol_version: TLSv1_3
              validation_context:
                trusted_ca: {{filename: {}}}
                # A certificate for `*.` and the rest of the name fits, too.
                match_typed_subject_alt_names:
                - {{san_type: DNS, matcher: {{exact: \"{host}\"}}}}
        # The filter, and the name by which its policy knows this cluster: no token without both.
        metadata:
          filter_metadata:
            entra_sidecar: {{destination: \"{name}\"}}
        typed_extension_protocol_options:
          envoy.extensions.upstreams.http.v3.HttpProtocolOptions:
            \"@type\": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions
            explicit_http_config: {{{version}: {{}}}}
            http_filters:
            - name: {module}
              config_discovery:
                config_source: {{ads: {{}}, resource_api_version: V3}}
                type_urls: [{WASM}]
            - name: envoy.filters.http.upstream_codec
              typed_config:
                \"@type\": type.googleapis.com/envoy.extensions.filters.http.upstream_codec.v3.UpstreamCodec
  # What the application calls goes to that cluster, under this very name.
  - applyTo: HTTP_ROUTE
    match:
      context: SIDECAR_OUTBOUND
      routeConfiguration:
        vhost: {{name: \"{host}:{port}\"}}
    patch:
      operation: MERGE
      value:
",
        opening(destinations, "networking.istio.io/v1alpha3", "EnvoyFilter", &object),
        labels(destinations),
        destinations.trusted_ca,
    );
    let route = format!(
        "        route:
          cluster: {object}
          host_rewrite_literal: \"{host}\"
"
    );
    if destination.claims_challenges {
        text.push_str(BEFORE_REPLAY);
        text.push_str(&route);
        text.push_str(REPLAY);
    } else {
        text.push_str(&route);
    }
    text
}

/// The route's part in a claims challenge, the same as in the plain Envoy's configuration.
const BEFORE_REPLAY: &str = "        response_headers_to_remove: [x-entra-retry]
        # Larger bodies go out as ever; a challenge to one is the application's.
        per_request_buffer_limit_bytes: 1048576
";
const REPLAY: &str =
    "          # The replay after a claims challenge. Only the filter sets this header, and removes
          # it from whatever the host sends. It stands in place of Istio's own retries, which
          # would take up the one attempt.
          retry_policy:
            retry_on: retriable-headers
            retriable_headers: [{name: x-entra-retry, present_match: true}]
            num_retries: 1
            retry_back_off: {base_interval: 0.001s, max_interval: 0.001s}
";

fn service_entry(destinations: &Destinations, destination: &Destination) -> String {
    let Destination { name, host, port, .. } = destination;
    let object = format!("{PREFIX}{name}");
    let (port_name, protocol) = match destination.protocol {
        Protocol::Http1 => ("http", "HTTP"),
        Protocol::Http2 => ("http2", "HTTP2"),
        Protocol::Grpc => ("grpc", "GRPC"),
    };
    format!(
        "# Where the application calls {host}, without TLS.
{}  hosts: [\"{host}\"]
  location: MESH_EXTERNAL
  resolution: DNS
  exportTo: [\".\"]
  ports:
  - {{number: {port}, name: {port_name}, protocol: {protocol}, targetPort: 443}}
",
        opening(destinations, "networking.istio.io/v1", "ServiceEntry", &object)
    )
}

/// The broker speaks TLS itself: the proxy lets it through.
fn login(destinations: &Destinations) -> String {
    let host = destinations.cloud.login_host();
    let object = format!("{PREFIX}login");
    format!(
        "# Where the token broker gets tokens and keys. Its TLS goes through the proxy as it is.
{}  hosts: [\"{host}\"]
  location: MESH_EXTERNAL
  resolution: DNS
  exportTo: [\".\"]
  ports:
  - {{number: 443, name: tls, protocol: TLS}}
",
        opening(destinations, "networking.istio.io/v1", "ServiceEntry", &object)
    )
}
