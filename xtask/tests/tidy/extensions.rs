//! What is shipped for a mesh uses only what Istio's own Envoy is built with.
//!
//! A stock Envoy, in which most tests run, has more. The types are found in the text, so files and
//! the chart's templates are read alike; the list is of extensions, which Envoy finds by type.

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    none,
    tree::{self, File},
};

/// Types, each with its extension; without one it is of the core, which every Envoy has.
const TYPES: [(&str, Option<&str>); 8] = [
    (
        "envoy.extensions.access_loggers.stream.v3.StdoutAccessLog",
        Some("envoy.access_loggers.stdout"),
    ),
    ("envoy.extensions.filters.http.upstream_codec.v3.UpstreamCodec", None),
    ("envoy.extensions.filters.http.wasm.v3.Wasm", Some("envoy.filters.http.wasm")),
    (
        "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        Some("envoy.filters.network.http_connection_manager"),
    ),
    (
        "envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy",
        Some("envoy.filters.network.tcp_proxy"),
    ),
    (
        "envoy.extensions.http.early_header_mutation.header_mutation.v3.HeaderMutation",
        Some("envoy.http.early_header_mutation.header_mutation"),
    ),
    (
        "envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext",
        Some("envoy.transport_sockets.tls"),
    ),
    ("envoy.extensions.upstreams.http.v3.HttpProtocolOptions", None),
];

/// Extensions of the list by name; those that only some releases have are left out.
fn of_every_release() -> BTreeSet<String> {
    let list = tree::read("istio/envoy-extensions.txt");
    let names = list.lines().filter(|line| !line.starts_with('#') && !line.contains('['));
    names.map(|line| line.trim().to_owned()).filter(|name| !name.is_empty()).collect()
}

/// The files with objects for a mesh: plain ones, the chart's, and what `istio destinations` makes.
fn shipped() -> Vec<File> {
    let ours = |file: &File| {
        file.path.starts_with("istio/") || file.path == "cli/tests/golden/objects.yaml"
    };
    tree::files(&["yaml", "tpl"]).into_iter().filter(ours).collect()
}

#[test]
fn every_extension_that_is_shipped_is_one_of_istios() {
    let extensions = of_every_release();
    assert!(extensions.len() > 200, "the list of extensions is not read");
    let known: BTreeMap<&str, Option<&str>> = TYPES.into_iter().collect();
    let mut wrong = Vec::new();
    let mut used = BTreeSet::new();
    for file in shipped() {
        for part in file.text.split("type.googleapis.com/").skip(1) {
            let end = |letter: char| !letter.is_ascii_alphanumeric() && !"._".contains(letter);
            let name = part.split(end).next().unwrap_or_default();
            match known.get_key_value(name) {
                None => wrong.push(format!("{}: {name} is not in this test's table", file.path)),
                Some((_, Some(extension))) if !extensions.contains(*extension) => {
                    wrong.push(format!("{}: {extension} is not in every Istio", file.path));
                }
                Some((name, _)) => {
                    used.insert(*name);
                }
            }
        }
        for name in file.text.lines().filter_map(named) {
            let core = name == "envoy.filters.http.upstream_codec";
            if !core && !extensions.contains(name) {
                wrong.push(format!("{}: {name} is not in every Istio", file.path));
            }
        }
    }
    let unused = known.keys().filter(|name| !used.contains(*name));
    wrong.extend(unused.map(|name| format!("{name} is in this test's table, and nowhere else")));
    none("in what is shipped for a mesh", wrong);
}

/// The extension that a line of YAML names: `- name: envoy.…`, `filter: {name: envoy.…}`.
fn named(line: &str) -> Option<&str> {
    let (_, name) = line.split_once("name: envoy.")?;
    let end = |letter: char| !letter.is_ascii_lowercase() && !"._0123456789".contains(letter);
    let length = name.find(end).unwrap_or(name.len());
    let start = line.len().checked_sub(name.len())?.checked_sub("envoy.".len())?;
    line.get(start..start.checked_add("envoy.".len())?.checked_add(length)?)
}
