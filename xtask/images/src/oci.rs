//! The documents of the OCI image specification 1.1, as far as our images use them.

use std::{collections::BTreeMap, fmt::Write};

use anyhow::Result;
use serde::{Deserialize, Serialize};

/// The media type of [`Manifest`].
pub(crate) const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
/// The media type of [`Index`].
pub(crate) const INDEX: &str = "application/vnd.oci.image.index.v1+json";
/// The media type of an image's configuration.
pub(crate) const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
/// The media type of `{}`, where an artifact has no configuration.
pub(crate) const EMPTY: &str = "application/vnd.oci.empty.v1+json";
/// The annotation of a layout's index that names an image.
pub(crate) const REFERENCE: &str = "org.opencontainers.image.ref.name";

/// Text by name; sorted, so that a document has one spelling.
pub(crate) type Annotations = BTreeMap<String, String>;

/// Where a blob is and what it is.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Descriptor {
    /// What the blob is.
    pub(crate) media_type: String,
    /// `sha256:` and 64 hexadecimal figures.
    pub(crate) digest: String,
    /// The blob's bytes.
    pub(crate) size: u64,
    /// What kind of artifact the blob is the manifest of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) artifact_type: Option<String>,
    /// What the image runs on, in an index.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) platform: Option<Platform>,
    /// More about it.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) annotations: Annotations,
}

/// What an image runs on, in Go's words.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Platform {
    /// `amd64`, `arm64`.
    pub(crate) architecture: String,
    /// `linux`.
    pub(crate) os: String,
}

/// One image, or one artifact.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Manifest {
    /// Always 2.
    pub(crate) schema_version: u32,
    /// [`MANIFEST`].
    pub(crate) media_type: String,
    /// What an artifact is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) artifact_type: Option<String>,
    /// The configuration.
    pub(crate) config: Descriptor,
    /// The layers, lowest first.
    pub(crate) layers: Vec<Descriptor>,
    /// The image that an artifact is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) subject: Option<Descriptor>,
    /// More about it.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) annotations: Annotations,
}

/// Manifests: an image for several platforms, all that a layout holds, or all about a subject.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Index {
    /// Always 2.
    pub(crate) schema_version: u32,
    /// [`INDEX`].
    pub(crate) media_type: String,
    /// What it holds.
    pub(crate) manifests: Vec<Descriptor>,
    /// More about it.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) annotations: Annotations,
}

impl Manifest {
    /// A manifest without artifact type, subject and annotations.
    pub(crate) fn new(config: Descriptor, layers: Vec<Descriptor>) -> Self {
        Self {
            schema_version: 2,
            media_type: MANIFEST.to_owned(),
            artifact_type: None,
            config,
            layers,
            subject: None,
            annotations: Annotations::new(),
        }
    }

    /// Every blob that the manifest names.
    pub(crate) fn blobs(&self) -> impl Iterator<Item = &Descriptor> {
        self.layers.iter().chain([&self.config])
    }
}

impl Index {
    /// An index without annotations.
    pub(crate) fn new(manifests: Vec<Descriptor>) -> Self {
        Self {
            schema_version: 2,
            media_type: INDEX.to_owned(),
            manifests,
            annotations: Annotations::new(),
        }
    }
}

/// The digest of bytes.
pub(crate) fn digest(bytes: &[u8]) -> String {
    let mut text = String::from("sha256:");
    for byte in ring::digest::digest(&ring::digest::SHA256, bytes).as_ref() {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
    }
    text
}

/// A document's bytes; its members are in a fixed order.
pub(crate) fn json(document: &impl Serialize) -> Result<Vec<u8>> {
    Ok(serde_json::to_vec(document)?)
}
