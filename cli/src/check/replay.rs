//! Claims challenges that would not be answered: the policy has the filter ask for another attempt,
//! and the route to that destination, in the same file, does not know it.

use std::{collections::BTreeMap, rc::Rc};

use policy::config::Config;

use super::{Finding, Severity, Sound};
use crate::{
    find::{Configuration, MAX_VISITS},
    tree::{Node, Tree},
};

/// The header by which the filter asks.
const HEADER: &str = "x-entra-retry";

/// What to say of the rules of a file.
pub(super) fn warnings(documents: &[Rc<Node>], sound: &[(Configuration, Sound)]) -> Vec<Finding> {
    let mut seen = Seen::default();
    let mut left = MAX_VISITS;
    for document in documents {
        match document.get("kind").and_then(|kind| kind.text()) {
            Some("EnvoyFilter") => seen.envoy_filter(document),
            _ => seen.walk(document, false, &mut left),
        }
    }
    let mut warnings = Vec::new();
    for (configuration, sound) in sound {
        let Sound::Filter(Config::Outbound(config)) = sound else { continue };
        for (index, rule) in config.rules.iter().enumerate() {
            if !rule.token.claims_challenges {
                continue;
            }
            let Some(what) = seen.missing(&rule.token.destination) else { continue };
            let path = format!("rules[{index}].claims_challenges");
            warnings.push(Finding {
                line: configuration.line_of(&path),
                severity: Severity::Warning,
                message: format!(
                    "{what} has no `retry_policy` for {HEADER}: the application gets the challenges"
                ),
                path,
            });
        }
    }
    warnings
}

/// What a file says of clusters and routes.
#[derive(Default)]
struct Seen {
    /// The cluster's names, by destination.
    clusters: BTreeMap<String, Vec<String>>,
    /// Each route's cluster, whether it makes an attempt again, and its line.
    routes: Vec<(String, bool, usize)>,
    /// Virtual hosts of the clusters that Istio's patches name, by destination.
    patched: BTreeMap<String, Vec<String>>,
    /// Virtual hosts whose routes a patch has make attempts again; `None` is all.
    replayed: Vec<Option<String>>,
}

impl Seen {
    /// The route that lacks it, where there is one.
    fn missing(&self, destination: &str) -> Option<String> {
        for cluster in self.clusters.get(destination).into_iter().flatten() {
            let lacks = |route: &&(String, bool, usize)| route.0 == *cluster && !route.1;
            if let Some((_, _, line)) = self.routes.iter().find(lacks) {
                return Some(format!("the route to cluster `{cluster}` in line {line}"));
            }
        }
        let replayed = |host: &String| {
            self.replayed.iter().any(|known| known.as_ref().is_none_or(|known| known == host))
        };
        let mut hosts = self.patched.get(destination).into_iter().flatten();
        let host = hosts.find(|host| !replayed(host))?;
        Some(format!("the route of virtual host `{host}`"))
    }

    fn envoy_filter(&mut self, document: &Node) {
        let patches = document.get("spec").and_then(|spec| spec.get("configPatches"));
        let Some(Tree::List(patches)) = patches.map(|patches| &patches.value) else { return };
        for patch in patches {
            let Some(value) = patch.get("patch").and_then(|patch| patch.get("value")) else {
                continue;
            };
            let matches = patch.get("match");
            if let Some(destination) = destination(value) {
                let cluster = matches.and_then(|matches| matches.get("cluster"));
                if let Some(host) = cluster.and_then(|cluster| virtual_host(cluster)) {
                    self.patched.entry(destination).or_default().push(host);
                }
            }
            self.cluster(value);
            if let Some(route) = value.get("route") {
                self.route(route, false);
            }
            let route = value.get("route").is_some_and(|route| makes_again(route));
            if route || makes_again(value) {
                let host = matches
                    .and_then(|matches| matches.get("routeConfiguration")?.get("vhost"))
                    .and_then(|host| host.get("name")?.text());
                self.replayed.push(host.map(str::to_owned));
            }
        }
    }

    fn cluster(&mut self, node: &Node) {
        let name = node.get("name").and_then(|name| name.text());
        if let (Some(name), Some(destination)) = (name, destination(node)) {
            self.clusters.entry(destination).or_default().push(name.to_owned());
        }
    }

    fn route(&mut self, route: &Node, again: bool) {
        if let Some(cluster) = route.get("cluster").and_then(|cluster| cluster.text()) {
            let own = route.get("retry_policy").is_some();
            let again = if own { makes_again(route) } else { again };
            self.routes.push((cluster.to_owned(), again, route.line));
        }
    }

    /// Envoy's own configuration; `again` says whether what is around makes attempts again.
    fn walk(&mut self, node: &Node, again: bool, left: &mut usize) {
        let Some(rest) = left.checked_sub(1) else { return };
        *left = rest;
        match &node.value {
            Tree::Text(_) => {}
            Tree::List(elements) => {
                elements.iter().for_each(|element| self.walk(element, again, left));
            }
            Tree::Map(members) => {
                // A route's own policy stands in place of what is around it.
                let again =
                    if node.get("retry_policy").is_some() { makes_again(node) } else { again };
                self.cluster(node);
                if let Some(route) = node.get("route") {
                    self.route(route, again);
                }
                members.iter().for_each(|(_, _, member)| self.walk(member, again, left));
            }
        }
    }
}

/// The name that a cluster gives the filter.
fn destination(cluster: &Node) -> Option<String> {
    let ours = cluster.get("metadata")?.get("filter_metadata")?.get("entra_sidecar")?;
    ours.get("destination")?.text().map(str::to_owned)
}

/// What Istio calls the virtual host of a cluster: the host and the port.
fn virtual_host(cluster: &Node) -> Option<String> {
    let text = |name: &str| cluster.get(name).and_then(|node| node.text());
    match text("name") {
        Some(name) => {
            let mut parts = name.split('|').skip(1);
            let (port, _subset, host) = (parts.next()?, parts.next()?, parts.next()?);
            Some(format!("{host}:{port}"))
        }
        None => Some(format!("{}:{}", text("service")?, text("portNumber")?)),
    }
}

/// Whether a retry policy in this is for the filter's header.
fn makes_again(node: &Node) -> bool {
    let Some(policy) = node.get("retry_policy") else { return false };
    let on = policy.get("retry_on").and_then(|on| on.text()).unwrap_or_default();
    let headers = policy.get("retriable_headers").map(|headers| &headers.value);
    let named = match headers {
        Some(Tree::List(headers)) => headers.iter().any(|header| {
            header.get("name").and_then(|name| name.text()).is_some_and(|name| name == HEADER)
        }),
        _ => false,
    };
    named && on.split(',').any(|word| word.trim() == "retriable-headers")
}
