//! The bill of materials: what was compiled into a program, as CycloneDX 1.6.
//!
//! `cargo tree` resolves the features of this very package for this very target; `cargo metadata`
//! would give those of the whole workspace. The checksums are those of `Cargo.lock`. What only
//! runs while compiling (build scripts, macros) is listed too, with the scope `excluded`.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    process::Command,
};

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use crate::oci;

/// The media type of a bill of materials, and the type of the artifact that carries it.
pub(crate) const MEDIA_TYPE: &str = "application/vnd.cyclonedx+json";

/// What a bill of materials is about.
pub(crate) struct Subject<'a> {
    /// The workspace's package.
    pub(crate) package: &'a str,
    /// The target that it is compiled for.
    pub(crate) target: &'a str,
    /// The program or module.
    pub(crate) bytes: &'a [u8],
    /// When its source was committed.
    pub(crate) created: &'a str,
    /// What else is in the image.
    pub(crate) others: Vec<Value>,
}

/// A crate with what is known of it.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Crate {
    name: String,
    version: String,
    licence: String,
}

/// Writes the bill for a subject.
pub(crate) fn write(workspace: &Path, subject: &Subject<'_>) -> Result<Vec<u8>> {
    let linked = crates(&tree(workspace, subject, "normal,no-proc-macro")?)?;
    let compiling = crates(&tree(workspace, subject, "normal,build")?)?;
    let lock = std::fs::read_to_string(workspace.join("Cargo.lock"))?;
    document(subject, &linked, &compiling, &checksums(&lock))
}

fn tree(workspace: &Path, subject: &Subject<'_>, edges: &str) -> Result<String> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .current_dir(workspace)
        .args(["tree", "--locked", "--prefix", "none", "--format", "{p}\t{l}", "--no-dedupe"])
        .args(["--package", subject.package, "--target", subject.target, "--edges", edges])
        .output()
        .context("cannot start cargo")?;
    if !output.status.success() {
        bail!("cargo tree failed: {}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(String::from_utf8(output.stdout)?)
}

/// `name v1.2.3 (proc-macro)<TAB>licence`, each as often as it is depended on.
fn crates(tree: &str) -> Result<BTreeSet<Crate>> {
    let mut crates = BTreeSet::new();
    for line in tree.lines().filter(|line| !line.is_empty()) {
        let (package, licence) = line.split_once('\t').with_context(|| line.to_owned())?;
        let mut words = package.split(' ');
        let name = words.next().unwrap_or_default();
        let version = words.next().and_then(|word| word.strip_prefix('v'));
        crates.insert(Crate {
            name: name.to_owned(),
            version: version.with_context(|| line.to_owned())?.to_owned(),
            // An older spelling that is no SPDX expression.
            licence: licence.replace('/', " OR "),
        });
    }
    Ok(crates)
}

/// The checksum of each crate of the registry, by name and version.
fn checksums(lock: &str) -> BTreeMap<(String, String), String> {
    let mut checksums = BTreeMap::new();
    for entry in lock.split("[[package]]") {
        let member = |name: &str| {
            entry.lines().find_map(|line| {
                line.strip_prefix(name)?.strip_prefix(" = \"")?.strip_suffix('"').map(str::to_owned)
            })
        };
        if let (Some(name), Some(version), Some(sum)) =
            (member("name"), member("version"), member("checksum"))
        {
            checksums.insert((name, version), sum);
        }
    }
    checksums
}

fn document(
    subject: &Subject<'_>,
    linked: &BTreeSet<Crate>,
    compiling: &BTreeSet<Crate>,
    checksums: &BTreeMap<(String, String), String>,
) -> Result<Vec<u8>> {
    let mut components = Vec::new();
    let mut own = None;
    for one in linked.union(compiling) {
        if one.name == subject.package {
            own = Some(one);
            continue;
        }
        let scope = if linked.contains(one) { "required" } else { "excluded" };
        let sum = checksums.get(&(one.name.clone(), one.version.clone()));
        components.push(component(one, scope, sum));
    }
    let own = own.with_context(|| format!("{} is not in its own tree", subject.package))?;
    components.extend(subject.others.iter().cloned());
    oci::json(&json!({
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {
            "timestamp": subject.created,
            "component": {
                "type": "application",
                "bom-ref": subject.package,
                "name": subject.package,
                "version": own.version,
                "licenses": [{"expression": own.licence}],
                "hashes": [sha256(figures(&oci::digest(subject.bytes)))],
                "properties": [{"name": "cargo:target", "value": subject.target}],
            },
        },
        "components": components,
    }))
}

fn component(one: &Crate, scope: &str, checksum: Option<&String>) -> Value {
    // Without a checksum it is a crate of this workspace, which no registry has.
    let purl = format!("pkg:cargo/{}@{}", one.name, one.version.replace('+', "%2B"));
    let mut component = json!({
        "type": "library",
        "bom-ref": purl,
        "name": one.name,
        "version": one.version,
        "scope": scope,
    });
    if let Some(members) = component.as_object_mut() {
        if !one.licence.is_empty() {
            members.insert("licenses".to_owned(), json!([{"expression": one.licence}]));
        }
        if let Some(checksum) = checksum {
            members.insert("purl".to_owned(), json!(purl));
            members.insert("hashes".to_owned(), json!([sha256(checksum)]));
        }
    }
    component
}

/// A part of the image that is no crate; `bytes` where it is a file of its own.
pub(crate) fn other(name: &str, version: &str, licence: &str, bytes: Option<&[u8]>) -> Value {
    let mut component = json!({
        "type": if bytes.is_some() { "file" } else { "library" },
        "bom-ref": name,
        "name": name,
        "version": version,
        "scope": "required",
        "licenses": [{"expression": licence}],
    });
    if let (Some(bytes), Some(members)) = (bytes, component.as_object_mut()) {
        let hash = sha256(figures(&oci::digest(bytes)));
        members.insert("hashes".to_owned(), json!([hash]));
    }
    component
}

fn sha256(figures: &str) -> Value {
    json!({"alg": "SHA-256", "content": figures})
}

fn figures(digest: &str) -> &str {
    digest.strip_prefix("sha256:").unwrap_or(digest)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINKED: &str = "own v0.1.0 (/source/own)\tApache-2.0\n\
                          ring v0.17.14\tApache-2.0 AND ISC\n\
                          ring v0.17.14\tApache-2.0 AND ISC\n\
                          inner v0.1.0 (/source/inner)\tApache-2.0\n";
    const COMPILING: &str = "own v0.1.0 (/source/own)\tApache-2.0\n\
                             cc v1.2.3+z\tMIT/Apache-2.0\n\
                             ring v0.17.14\tApache-2.0 AND ISC\n";
    const LOCK: &str = "version = 4\n\n[[package]]\nname = \"ring\"\nversion = \"0.17.14\"\n\
                        source = \"registry\"\nchecksum = \"ab12\"\ndependencies = [\n \"cc\",\n]\n\n\
                        [[package]]\nname = \"own\"\nversion = \"0.1.0\"\n";

    fn bill() -> Value {
        let subject = Subject {
            package: "own",
            target: "t",
            bytes: b"program",
            created: "2026-01-02T03:04:05Z",
            others: vec![other("roots", "1", "MPL-2.0", Some(b"pem"))],
        };
        let (linked, compiling) = (crates(LINKED).unwrap(), crates(COMPILING).unwrap());
        let bytes = document(&subject, &linked, &compiling, &checksums(LOCK)).unwrap();
        serde_json::from_slice(&bytes).unwrap()
    }

    #[test]
    fn each_crate_is_there_once_with_its_checksum() {
        let bill = bill();
        let components = bill["components"].as_array().unwrap();
        let names: Vec<_> = components.iter().map(|one| one["name"].as_str().unwrap()).collect();
        assert_eq!(names, ["cc", "inner", "ring", "roots"]);
        let ring = &components[2];
        assert_eq!(ring["purl"], "pkg:cargo/ring@0.17.14");
        assert_eq!(ring["hashes"], json!([{"alg": "SHA-256", "content": "ab12"}]));
        assert_eq!(ring["licenses"], json!([{"expression": "Apache-2.0 AND ISC"}]));
        assert_eq!(ring["scope"], "required");
    }

    #[test]
    fn what_only_compiles_is_excluded_and_an_old_licence_respelled() {
        let bill = bill();
        let cc = &bill["components"][0];
        assert_eq!(cc["scope"], "excluded");
        assert_eq!(cc["bom-ref"], "pkg:cargo/cc@1.2.3%2Bz");
        assert_eq!(cc["licenses"], json!([{"expression": "MIT OR Apache-2.0"}]));
    }

    #[test]
    fn a_crate_of_the_workspace_has_no_purl_and_no_path() {
        let bill = bill();
        assert!(bill["components"][1].get("purl").is_none());
        assert!(!bill.to_string().contains("/source"));
    }
}
