//! The images: the filter in the two forms that Istio's agent reads, and the broker.
//!
//! The agent (`istio/pkg/wasm/imagefetcher.go`) takes one manifest, no index. It looks for
//! `plugin.wasm` in a last layer of exactly the tar media type, and otherwise for exactly two
//! layers of which one has the wasm media type.

use anyhow::Result;
use serde_json::json;

use crate::{
    layer::{self, File, Layer},
    layout::Layout,
    oci::{self, Annotations, Descriptor, Index, Manifest, Platform},
};

/// The name of the filter's images, without a registry.
pub(crate) const FILTER: &str = "entra-sidecar/filter";
/// The name of the broker's image, without a registry.
pub(crate) const BROKER: &str = "entra-sidecar/token-broker";

/// The module in the wasm artifact.
const WASM_LAYER: &str = "application/vnd.module.wasm.content.layer.v1+wasm";
/// What the wasm artifact says about its module.
const WASM_CONFIG: &str = "application/vnd.module.wasm.config.v1+json";
/// Marks the form with a tar layer, as the Wasm image specification asks.
const WASM_VARIANT: (&str, &str) = ("module.wasm.image/variant", "compat");

/// Nobody in particular: no account on any node, and no root.
const USER: &str = "65532:65532";
const PROGRAM: &str = "usr/local/bin/token-broker";
const ROOTS: &str = "etc/ssl/certs/ca-certificates.crt";

/// What every image says about itself.
pub(crate) struct About<'a> {
    /// What it is built from; not known outside a git checkout.
    pub(crate) revision: Option<&'a str>,
    /// When that was committed: the time of the build would change the digest.
    pub(crate) created: &'a str,
}

/// The public roots in the broker's image.
pub(crate) struct Roots<'a> {
    /// The certificates, PEM.
    pub(crate) pem: &'a [u8],
    /// Where they come from.
    pub(crate) source: &'a str,
}

impl About<'_> {
    /// The labels and annotations, as the OCI image specification names them.
    fn annotations(&self, title: &str, description: &str) -> Annotations {
        let name = |name: &str| format!("org.opencontainers.image.{name}");
        let mut annotations = Annotations::from([
            (name("title"), title.to_owned()),
            (name("description"), description.to_owned()),
            (name("version"), env!("CARGO_PKG_VERSION").to_owned()),
            (name("licenses"), "Apache-2.0".to_owned()),
            (name("created"), self.created.to_owned()),
        ]);
        if let Some(revision) = self.revision {
            annotations.insert(name("revision"), revision.to_owned());
        }
        annotations
    }

    fn filter(&self) -> Annotations {
        self.annotations("Entra Sidecar filter", "Validates Entra tokens, attaches them to calls.")
    }

    fn broker(&self) -> Annotations {
        self.annotations("Entra Sidecar token broker", "Acquires Entra tokens for the filter.")
    }
}

/// The filter as an image with `plugin.wasm` in a layer.
pub(crate) fn filter(layout: &Layout, about: &About<'_>, module: &[u8]) -> Result<Descriptor> {
    let layer = layer::pack(&[File { path: "plugin.wasm", mode: 0o644, bytes: module }])?;
    let mut annotations = about.filter();
    // The module runs on every machine. A container engine that mirrors the image wants a
    // platform that it knows, and the agent reads none.
    let platform = Platform { architecture: "amd64".to_owned(), os: "linux".to_owned() };
    let config = json!({"Labels": annotations});
    let config = configuration(about, &platform, &layer, &config)?;
    annotations.insert(WASM_VARIANT.0.to_owned(), WASM_VARIANT.1.to_owned());
    image(layout, &config, &layer, annotations)
}

/// The filter as an artifact: the module itself, and what it is.
pub(crate) fn artifact(layout: &Layout, about: &About<'_>, module: &[u8]) -> Result<Descriptor> {
    let config = oci::json(&json!({"type": "envoy_proxy", "abiVersions": ["v0-2-1"]}))?;
    let config = layout.add(WASM_CONFIG, &config)?;
    let mut layers = vec![layout.add(WASM_LAYER, module)?, config.clone()];
    for (layer, title) in layers.iter_mut().zip(["filter.wasm", "runtime-config.json"]) {
        let name = "org.opencontainers.image.title".to_owned();
        layer.annotations.insert(name, title.to_owned());
    }
    let mut manifest = Manifest::new(config, layers);
    manifest.annotations = about.filter();
    layout.add(oci::MANIFEST, &oci::json(&manifest)?)
}

/// The broker for one platform: the program and the public roots, nothing else.
pub(crate) fn broker(
    layout: &Layout,
    about: &About<'_>,
    architecture: &str,
    program: &[u8],
    roots: &Roots<'_>,
) -> Result<Descriptor> {
    let layer = layer::pack(&[
        File { path: PROGRAM, mode: 0o755, bytes: program },
        File { path: ROOTS, mode: 0o644, bytes: roots.pem },
    ])?;
    let mut annotations = about.broker();
    annotations.insert("entra-sidecar.ca-certificates".to_owned(), roots.source.to_owned());
    let platform = Platform { architecture: architecture.to_owned(), os: "linux".to_owned() };
    let program = format!("/{PROGRAM}");
    let config = json!({
        "User": USER,
        "Entrypoint": [program],
        "Labels": annotations,
    });
    let config = configuration(about, &platform, &layer, &config)?;
    let mut descriptor = image(layout, &config, &layer, annotations)?;
    descriptor.platform = Some(platform);
    Ok(descriptor)
}

/// One name for the broker's images for all platforms.
pub(crate) fn broker_index(
    layout: &Layout,
    about: &About<'_>,
    images: &[Descriptor],
) -> Result<Descriptor> {
    let mut index = Index::new(images.to_vec());
    index.annotations = about.broker();
    layout.add(oci::INDEX, &oci::json(&index)?)
}

/// An image's configuration; serde_json sorts the members of what `json!` makes.
fn configuration(
    about: &About<'_>,
    platform: &Platform,
    layer: &Layer,
    config: &serde_json::Value,
) -> Result<Vec<u8>> {
    oci::json(&json!({
        "created": about.created,
        "architecture": platform.architecture,
        "os": platform.os,
        "config": config,
        "rootfs": {"type": "layers", "diff_ids": [layer.diff_id]},
        "history": [{"created": about.created, "created_by": "cargo xtask images"}],
    }))
}

fn image(
    layout: &Layout,
    config: &[u8],
    layer: &Layer,
    annotations: Annotations,
) -> Result<Descriptor> {
    let config = layout.add(oci::CONFIG, config)?;
    let mut manifest = Manifest::new(config, vec![layout.add(layer::MEDIA_TYPE, &layer.bytes)?]);
    manifest.annotations = annotations;
    layout.add(oci::MANIFEST, &oci::json(&manifest)?)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use serde_json::Value;

    use super::*;

    const ABOUT: About<'static> =
        About { revision: Some("0123abc"), created: "2026-01-02T03:04:05Z" };
    const ROOT: Roots<'static> = Roots { pem: b"pem", source: "somewhere 1.0" };

    fn document(layout: &Layout, descriptor: &Descriptor) -> Value {
        serde_json::from_slice(&layout.blob(descriptor).unwrap()).unwrap()
    }

    fn manifest(layout: &Layout, descriptor: &Descriptor) -> Manifest {
        assert_eq!(descriptor.media_type, "application/vnd.oci.image.manifest.v1+json");
        serde_json::from_slice(&layout.blob(descriptor).unwrap()).unwrap()
    }

    /// The digests of everything that is built.
    fn all(folder: &Path) -> Vec<String> {
        let layout = Layout::create(folder).unwrap();
        let mut built = vec![
            filter(&layout, &ABOUT, b"module").unwrap(),
            artifact(&layout, &ABOUT, b"module").unwrap(),
            broker(&layout, &ABOUT, "amd64", b"program", &ROOT).unwrap(),
        ];
        built.push(broker_index(&layout, &ABOUT, &built[2..]).unwrap());
        built.into_iter().map(|descriptor| descriptor.digest).collect()
    }

    #[test]
    fn the_same_input_gives_the_same_digests_in_every_folder() {
        let (one, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        assert_eq!(all(one.path()), all(other.path()));
    }

    #[test]
    fn the_filter_is_plugin_wasm_in_a_tar_layer() {
        let folder = tempfile::tempdir().unwrap();
        let layout = Layout::create(folder.path()).unwrap();
        let manifest = manifest(&layout, &filter(&layout, &ABOUT, b"module").unwrap());
        assert_eq!(manifest.media_type, "application/vnd.oci.image.manifest.v1+json");
        assert_eq!(manifest.annotations["module.wasm.image/variant"], "compat");
        let [layer] = &manifest.layers[..] else { panic!("{:?}", manifest.layers) };
        assert_eq!(layer.media_type, "application/vnd.oci.image.layer.v1.tar+gzip");
        let bytes = layout.blob(layer).unwrap();
        let mut archive = tar::Archive::new(flate2::read::GzDecoder::new(&bytes[..]));
        let names: Vec<_> = archive
            .entries()
            .unwrap()
            .map(|entry| entry.unwrap().path_bytes().into_owned())
            .collect();
        assert_eq!(names, [b"plugin.wasm"]);
    }

    #[test]
    fn the_artifact_is_the_bare_module_and_one_more_layer() {
        let folder = tempfile::tempdir().unwrap();
        let layout = Layout::create(folder.path()).unwrap();
        let manifest = manifest(&layout, &artifact(&layout, &ABOUT, b"module").unwrap());
        assert_eq!(manifest.config.media_type, "application/vnd.module.wasm.config.v1+json");
        let types: Vec<_> = manifest.layers.iter().map(|layer| layer.media_type.as_str()).collect();
        assert_eq!(
            types,
            [
                "application/vnd.module.wasm.content.layer.v1+wasm",
                "application/vnd.module.wasm.config.v1+json"
            ]
        );
        assert_eq!(layout.blob(&manifest.layers[0]).unwrap(), b"module");
    }

    #[test]
    fn the_broker_runs_as_nobody_and_says_what_it_is() {
        let folder = tempfile::tempdir().unwrap();
        let layout = Layout::create(folder.path()).unwrap();
        let image = broker(&layout, &ABOUT, "arm64", b"program", &ROOT).unwrap();
        let manifest = manifest(&layout, &image);
        let config = document(&layout, &manifest.config);
        assert_eq!(config["config"]["User"], "65532:65532");
        assert_eq!(config["config"]["Entrypoint"][0], "/usr/local/bin/token-broker");
        assert_eq!(config["architecture"], "arm64");
        assert_eq!(config["created"], "2026-01-02T03:04:05Z");
        let labels = &config["config"]["Labels"];
        assert_eq!(labels["org.opencontainers.image.revision"], "0123abc");
        assert_eq!(labels["org.opencontainers.image.licenses"], "Apache-2.0");
        assert_eq!(labels["org.opencontainers.image.version"], env!("CARGO_PKG_VERSION"));
        assert_eq!(labels["entra-sidecar.ca-certificates"], "somewhere 1.0");
        assert_eq!(labels, &serde_json::to_value(&manifest.annotations).unwrap());
    }

    #[test]
    fn the_index_names_the_platform_of_each_image() {
        let folder = tempfile::tempdir().unwrap();
        let layout = Layout::create(folder.path()).unwrap();
        let images: Vec<_> = ["amd64", "arm64"]
            .map(|machine| broker(&layout, &ABOUT, machine, machine.as_bytes(), &ROOT).unwrap())
            .into();
        let index = document(&layout, &broker_index(&layout, &ABOUT, &images).unwrap());
        assert_eq!(index["mediaType"], "application/vnd.oci.image.index.v1+json");
        for (entry, machine) in
            index["manifests"].as_array().unwrap().iter().zip(["amd64", "arm64"])
        {
            let expected = json!({"os": "linux", "architecture": machine});
            assert_eq!(entry["platform"], expected);
        }
    }
}
