//! What is shipped and what the documents show is what an API server with Istio's webhook takes,
//! and what `entra-sidecar check` and `istioctl analyze` find in order.

use std::{collections::BTreeSet, io::Write, process::Command};

use mesh::{Mesh, poll};
use serde_json::{Value, json};
use tempfile::NamedTempFile;

use crate::{
    shop::Shop,
    world::{PATIENCE, repository, variable},
};

/// Where everything is validated, whatever namespace it names.
const NAMESPACE: &str = "validate";

/// A text with objects in it, and where it is from.
struct Source {
    name: String,
    text: String,
}

/// Plain files with objects; `istiod-values.yaml` has none.
const PLAIN: [&str; 7] = [
    "admission.yaml",
    "broker-config.yaml",
    "closed.yaml",
    "downstream.yaml",
    "inbound.yaml",
    "inbound-wasmplugin.yaml",
    "policies.yaml",
];

/// Combinations of values: name, arguments of helm beside those of [`template`].
const VALUES: [(&str, &[&str]); 9] = [
    ("the quick start", &["orders"]),
    ("the quick start, before Istio 1.30", &["orders", "--set=istio.resource=WasmPlugin"]),
    ("everything", &["orders", "everything"]),
    ("everything, before Istio 1.30", &["orders", "everything", "--set=istio.resource=WasmPlugin"]),
    ("nothing but the filter", &["orders", "nothing"]),
    ("outbound only", &["outbound"]),
    ("with destinations", &["orders", "OBJECTS"]),
    ("destinations only", &["outbound", "OBJECTS"]),
    (
        "observing, without time limits",
        &[
            "orders",
            "--set=inbound.policy.mode=observe",
            "--set=timeouts.inbound=",
            "--set=accessLog=none",
        ],
    ),
];

fn mesh() -> Mesh {
    Mesh::running().unwrap()
}

/// What helm makes of the chart; words without a dash are files of `examples`.
fn template(mesh: &Mesh, arguments: &[&str]) -> String {
    template_in(mesh, "shop", arguments)
}

fn template_in(mesh: &Mesh, namespace: &str, arguments: &[&str]) -> String {
    let chart = repository("istio/chart");
    let mut words = vec!["template".to_owned(), "entra".to_owned(), chart.display().to_string()];
    words.push(format!("--namespace={namespace}"));
    let objects = destinations(namespace);
    for argument in arguments {
        words.push(match *argument {
            "OBJECTS" => format!("--set-file=outbound.objects={}", objects.path().display()),
            option if option.starts_with('-') => option.to_owned(),
            name => format!("--values={}/examples/{name}.yaml", chart.display()),
        });
    }
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let made = mesh.helm(&words).unwrap();
    assert_eq!(made.code, 0, "{arguments:?}: {}", made.stderr);
    made.stdout
}

/// The objects of a list with one destination of every sort, for a namespace.
fn destinations(namespace: &str) -> NamedTempFile {
    let list = repository("cli/tests/golden/destinations.yaml");
    let list = std::fs::read_to_string(list).unwrap();
    let list = file(&list.replace("namespace: shop\n", &format!("namespace: {namespace}\n")));
    let words = ["istio", "destinations", "--config", list.path().to_str().unwrap()];
    let (ended_well, made) = entra_sidecar(&words);
    assert!(ended_well, "{made}");
    file(&made)
}

fn file(text: &str) -> NamedTempFile {
    let mut file = tempfile::Builder::new().suffix(".yaml").tempfile().unwrap();
    file.write_all(text.as_bytes()).unwrap();
    file
}

/// Runs the command line tool: whether it ended well, and what it said.
fn entra_sidecar(arguments: &[&str]) -> (bool, String) {
    let done = Command::new(variable("ENTRA_SIDECAR_BIN")).args(arguments).output().unwrap();
    let said = [done.stdout, done.stderr].concat();
    (done.status.success(), String::from_utf8(said).unwrap())
}

fn plain_files() -> Vec<Source> {
    let read = |name: &&str| {
        let path = repository("istio").join(name);
        Source { name: format!("istio/{name}"), text: std::fs::read_to_string(path).unwrap() }
    };
    PLAIN.iter().map(read).collect()
}

fn charts(mesh: &Mesh) -> Vec<Source> {
    let made = |(name, arguments): &(&str, &[&str])| Source {
        name: format!("the chart, {name}"),
        text: template(mesh, arguments),
    };
    VALUES.iter().map(made).collect()
}

/// The blocks of YAML in the documents that hold whole objects.
fn snippets() -> Vec<Source> {
    let mut paths = vec![repository("README.md"), repository("istio/README.md")];
    for entry in std::fs::read_dir(repository("docs")).unwrap() {
        paths.push(entry.unwrap().path());
    }
    paths.sort();
    let mut found = Vec::new();
    for path in paths.iter().filter(|path| path.extension().is_some_and(|end| end == "md")) {
        let text = std::fs::read_to_string(path).unwrap();
        let mut lines = text.lines().enumerate();
        while let Some((number, line)) = lines.next() {
            let indent = line.len() - line.trim_start().len();
            if line.trim() != "```yaml" {
                continue;
            }
            let block =
                lines.by_ref().map(|(_, line)| line).take_while(|line| line.trim() != "```");
            let block: String =
                block.map(|line| format!("{}\n", line.get(indent..).unwrap_or(""))).collect();
            let has = |key: &str| block.lines().any(|line| line.starts_with(key));
            if has("apiVersion:") && has("kind:") {
                let name = format!("{}:{}", path.file_name().unwrap().display(), number + 1);
                found.push(Source { name, text: block });
            }
        }
    }
    found
}

#[test]
fn the_plain_files_are_what_the_chart_gives() {
    let mesh = mesh();
    let readme = std::fs::read_to_string(repository("istio/README.md")).unwrap();
    let mut compared = 0;
    for line in readme.lines() {
        let cells: Vec<&str> = line.split('|').map(|cell| cell.trim().trim_matches('`')).collect();
        let ["", name, arguments, ""] = cells[..] else { continue };
        if !arguments.contains("-s templates/") {
            continue;
        }
        let words: Vec<String> = arguments
            .replace("-s ", "--show-only=")
            .replace("--set ", "--set=")
            .split(' ')
            .map(str::to_owned)
            .collect();
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let made = template(&mesh, &[&["orders"][..], &words].concat());
        let made = made.split_once('\n').unwrap().1;
        let plain = std::fs::read_to_string(repository("istio").join(name)).unwrap();
        for (number, (made, plain)) in made.lines().zip(plain.lines()).enumerate() {
            assert_eq!(plain, made, "istio/{name}, line {}", number + 1);
        }
        assert!(plain == made, "istio/{name} is longer or shorter than what the chart gives");
        compared += 1;
    }
    assert_eq!(compared, 5, "files that istio/README.md says how to make");
}

#[test]
fn the_api_server_takes_every_object_that_is_shipped_or_shown() {
    let mesh = mesh();
    let _guard = mesh.shared().unwrap();
    let namespace = json!({
        "apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE},
    });
    mesh.apply(&namespace.to_string()).unwrap();
    mesh.apply(&pod_monitors().to_string()).unwrap();
    let sources = plain_files().into_iter().chain(charts(&mesh)).chain(snippets());
    let mut wrong = Vec::new();
    let mut taken = 0;
    for source in sources {
        let objects = objects(&source);
        taken += objects.len();
        let list = json!({"apiVersion": "v1", "kind": "List", "items": objects}).to_string();
        let apply = ["apply", "--dry-run=server", "--validate=strict", "--namespace", NAMESPACE];
        let done = mesh.kubectl_with(&[&apply[..], &["--filename=-"]].concat(), &list);
        if let Err(error) = done {
            wrong.push(format!("{}: {error:#}", source.name));
        }
    }
    println!("{taken} objects are taken");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(taken > 100, "{taken} objects");
}

/// The objects of a text, put into the one namespace; such as have none stay so.
fn objects(source: &Source) -> Vec<Value> {
    let text = format!("\n{}", source.text);
    let read = |document| {
        let read = serde_norway::from_str::<Value>(document);
        read.unwrap_or_else(|error| panic!("{}: {error}", source.name))
    };
    text.split("\n---")
        .map(read)
        .filter(|object| !object.is_null())
        .map(|mut object| {
            if object.pointer("/metadata/namespace").is_some() {
                object["metadata"]["namespace"] = json!(NAMESPACE);
            }
            object
        })
        .collect()
}

/// The kind of the Prometheus operator, without its rules, which are not here.
fn pod_monitors() -> Value {
    let names = json!({
        "kind": "PodMonitor", "listKind": "PodMonitorList", "plural": "podmonitors",
        "singular": "podmonitor",
    });
    let anything = json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true});
    json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": "podmonitors.monitoring.coreos.com"},
        "spec": {
            "group": "monitoring.coreos.com", "names": names, "scope": "Namespaced",
            "versions": [{
                "name": "v1", "served": true, "storage": true,
                "schema": {"openAPIV3Schema": anything},
            }],
        },
    })
}

#[test]
fn check_finds_every_configuration_that_is_shipped_or_shown_in_order() {
    let mesh = mesh();
    let sources = plain_files().into_iter().chain(charts(&mesh)).chain(snippets());
    let mut wrong = Vec::new();
    let mut checked = 0;
    for source in sources {
        let has = |words: &str| source.text.contains(words);
        if !has("pluginConfig:") && !has("broker.yaml: |") {
            continue;
        }
        let file = file(&source.text);
        let (in_order, said) = entra_sidecar(&["check", file.path().to_str().unwrap()]);
        // The one that shows what `check` says of mistakes calls itself so.
        if in_order == source.text.starts_with("# wrong") {
            wrong.push(format!("{}:\n{said}", source.name));
        }
        checked += 1;
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(checked > 10, "{checked} texts with a configuration");
}

#[test]
fn istioctl_finds_nothing_but_the_notice_on_envoy_filters() {
    const ANALYZED: &str = "analyze";
    let mesh = mesh();
    let _guard = mesh.shared().unwrap();
    let gone = ["delete", "namespace", ANALYZED, "--ignore-not-found"];
    mesh.kubectl(&gone).unwrap();
    let namespace = json!({
        "apiVersion": "v1", "kind": "Namespace",
        "metadata": {"name": ANALYZED, "labels": {"istio-injection": "enabled"}},
    });
    mesh.apply(&namespace.to_string()).unwrap();
    mesh.apply(&pod_monitors().to_string()).unwrap();
    // Everything but what is the cluster's.
    let values = ["orders", "everything", "OBJECTS", "--set=admission.enabled=false"];
    mesh.apply(&template_in(&mesh, ANALYZED, &values)).unwrap();
    let policies = std::fs::read_to_string(repository("istio/policies.yaml")).unwrap();
    mesh.apply(&policies.replace("namespace: shop", "namespace: analyze")).unwrap();
    let account = ["create", "serviceaccount", "orders", "--namespace", ANALYZED];
    mesh.kubectl(&account).unwrap();
    mesh.apply(&Shop::new(ANALYZED).application_objects().to_string()).unwrap();
    poll("a pod of the application", PATIENCE, || {
        let pods = mesh.get(ANALYZED, &["pods", "--selector=entra-sidecar/injected=true"])?;
        Ok(pods["items"].as_array().is_some_and(|pods| !pods.is_empty()))
    })
    .unwrap();
    let analyze = ["analyze", "--namespace", ANALYZED, "--output=json"];
    let found = mesh.istioctl(&analyze).unwrap();
    let found: Value = serde_json::from_str(&found.stdout).unwrap();
    let of = |message: &Value, member: &str| message[member].as_str().unwrap_or("").to_owned();
    let messages: BTreeSet<String> = found
        .as_array()
        .unwrap()
        .iter()
        .map(|message| {
            let (code, level) = (of(message, "code"), of(message, "level"));
            format!("{code} {level} {}: {}", of(message, "origin"), of(message, "message"))
        })
        .collect();
    let notice = "EnvoyFilter exposes internal implementation details";
    let known = |message: &&String| message.contains(notice);
    let unknown: Vec<_> = messages.iter().filter(|message| !known(message)).collect();
    assert!(unknown.is_empty(), "{unknown:#?}");
    assert!(messages.len() > 8, "nothing was analysed: {messages:#?}");
    mesh.kubectl(&[&gone[..], &["--wait=false"]].concat()).unwrap();
}
