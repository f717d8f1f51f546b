//! The shipped configuration with the outbound filter moved: out of the cluster's filter chain, into
//! the listener's.
//!
//! That is where a mesh's plugin resources put it. What only the upstream position has goes with it:
//! the cluster's word for its destination, and the replay. Tests add the routes and clusters that
//! they are about.

use serde_json::{Value, json};

use super::config::{EnvoyConfig, filter_in};

impl EnvoyConfig {
    /// Moves the outbound filter into the listener's chain, with a rule by host and cluster.
    pub fn move_outbound_downstream(&mut self) {
        let rule = self.policy_mut("entra-outbound").pointer_mut("/rules/0");
        let rule = rule.and_then(Value::as_object_mut).expect("the rule for Graph");
        rule.insert("match".to_owned(), json!({"host": "graph.microsoft.com", "cluster": "graph"}));
        rule.insert("allow_unverified_destination".to_owned(), json!(true));
        let filter = filter_in(self.value_mut(), "entra-outbound").expect("the filter").clone();
        let cluster = self.cluster_mut("graph").as_object_mut().expect("a cluster");
        cluster.remove("metadata");
        let options = self.cluster_mut("graph").pointer_mut(
            "/typed_extension_protocol_options\
             /envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
        );
        let options = options.and_then(Value::as_object_mut).expect("the cluster's HTTP options");
        options.remove("http_filters");
        self.outbound_filters_mut().insert(0, filter);
        let host = self.graph_host_mut();
        host.remove("response_headers_to_remove");
        let route = host.get_mut("routes").and_then(|routes| routes.pointer_mut("/0/route"));
        route.and_then(Value::as_object_mut).expect("the route").remove("retry_policy");
    }

    /// The HTTP filters of the outbound listener.
    pub fn outbound_filters_mut(&mut self) -> &mut Vec<Value> {
        let filters = self.outbound_manager_mut().get_mut("http_filters");
        filters.and_then(Value::as_array_mut).expect("the listener's filters")
    }

    /// The virtual host for Graph.
    pub fn graph_host_mut(&mut self) -> &mut serde_json::Map<String, Value> {
        let hosts = self.outbound_manager_mut().pointer_mut("/route_config/virtual_hosts");
        let hosts = hosts.and_then(Value::as_array_mut).expect("virtual hosts");
        let host = hosts.iter_mut().find(|host| host.get("name") == Some(&json!("graph")));
        host.and_then(Value::as_object_mut).expect("the virtual host")
    }

    /// Adds a route in front of the others of the virtual host for Graph.
    pub fn add_graph_route(&mut self, route: Value) {
        let routes = self.graph_host_mut().get_mut("routes").and_then(Value::as_array_mut);
        routes.expect("routes").insert(0, route);
    }

    /// Adds a virtual host in front of the others of the outbound listener.
    pub fn add_virtual_host(&mut self, host: Value) {
        let hosts = self.outbound_manager_mut().pointer_mut("/route_config/virtual_hosts");
        hosts.and_then(Value::as_array_mut).expect("virtual hosts").insert(0, host);
    }

    /// Adds a cluster without TLS that leads to one address.
    pub fn add_plain_cluster(&mut self, name: &str, address: std::net::SocketAddr) {
        let address = json!({"address": address.ip().to_string(), "port_value": address.port()});
        let endpoint = json!({"endpoint": {"address": {"socket_address": address}}});
        let clusters = self.value_mut().pointer_mut("/static_resources/clusters");
        clusters.and_then(Value::as_array_mut).expect("clusters").push(json!({
            "name": name, "type": "STATIC", "connect_timeout": "1s",
            "load_assignment": {
                "cluster_name": name, "endpoints": [{"lb_endpoints": [endpoint]}],
            },
        }));
    }

    fn outbound_manager_mut(&mut self) -> &mut Value {
        let manager = self.listener_mut("outbound").pointer_mut("/filter_chains/0/filters/0");
        manager.and_then(|filter| filter.get_mut("typed_config")).expect("the connection manager")
    }
}
