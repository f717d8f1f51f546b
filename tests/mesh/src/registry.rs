//! The OCI registry of the mesh, and pushing into it by the distribution protocol.

use std::{fs, time::Duration};

use anyhow::{Context, Result};
use ureq::{Agent, http::StatusCode};

use crate::{
    image::{Blob, Image},
    paths::{HOST, REGISTRY, state, state_text},
};

/// Writes the configuration.
pub(crate) fn write() -> Result<()> {
    let text = format!(
        "version: 0.1
log: {{level: warn}}
storage:
  filesystem: {{rootdirectory: '{}'}}
  delete: {{enabled: true}}
http: {{addr: '{REGISTRY}', secret: the-one-instance-of-a-test}}
",
        state_text("registry")
    );
    fs::write(state("node/registry.yaml"), text).context("cannot write the registry's settings")
}

pub(crate) fn arguments() -> Vec<String> {
    vec!["serve".to_owned(), state_text("node/registry.yaml")]
}

/// Whether it answers.
pub(crate) fn is_ready() -> bool {
    agent().get(format!("http://{REGISTRY}/v2/")).call().is_ok()
}

/// Pushes an image as `repository:tag`; gives the manifest's digest.
pub(crate) fn push_image(name: &str, image: Image) -> Result<String> {
    let (blobs, manifest) = image.blobs();
    push(name, &blobs, &manifest)
}

/// Pushes blobs and their manifest as `repository:tag`; gives the manifest's digest.
pub(crate) fn push(name: &str, blobs: &[Blob], manifest: &Blob) -> Result<String> {
    let (repository, tag) = name.rsplit_once(':').context("an image's name ends in `:tag`")?;
    let base = format!("http://{REGISTRY}/v2/{repository}");
    let agent = agent();
    for blob in blobs {
        push_blob(&agent, &base, blob).with_context(|| format!("pushing a blob of {name}"))?;
    }
    agent
        .put(format!("{base}/manifests/{tag}"))
        .content_type(&manifest.media_type)
        .send(manifest.bytes.as_slice())
        .with_context(|| format!("pushing the manifest of {name}"))?;
    Ok(manifest.digest.clone())
}

fn push_blob(agent: &Agent, base: &str, blob: &Blob) -> Result<()> {
    match agent.head(format!("{base}/blobs/{}", blob.digest)).call() {
        Ok(_there) => return Ok(()),
        Err(ureq::Error::StatusCode(404)) => {}
        Err(error) => return Err(error.into()),
    }
    let begun = agent.post(format!("{base}/blobs/uploads/")).send_empty()?;
    let place = begun.headers().get("location").context("an upload without a place")?.to_str()?;
    let place =
        if place.starts_with('/') { format!("http://{REGISTRY}{place}") } else { place.to_owned() };
    let joint = if place.contains('?') { '&' } else { '?' };
    let sent = agent
        .put(format!("{place}{joint}digest={}", blob.digest))
        .content_type("application/octet-stream")
        .send(blob.bytes.as_slice())?;
    anyhow::ensure!(sent.status() == StatusCode::CREATED, "the registry said {}", sent.status());
    Ok(())
}

/// Plain HTTP to the mesh's own addresses, whatever proxy the person uses elsewhere.
pub(crate) fn agent() -> Agent {
    debug_assert!(REGISTRY.starts_with(HOST), "the registry is the node's");
    Agent::config_builder().timeout_global(Some(Duration::from_secs(60))).proxy(None).build().into()
}
