//! `images push`: a layout into a registry, and a look at what the registry then serves.

use std::path::Path;

use anyhow::{Context, Result, bail};

use crate::{
    address::Address,
    image::FILTER,
    layout::Layout,
    login::{self, Login},
    oci::{self, Descriptor, Index, Manifest},
    registry::{Registry, Repository},
};

/// Pushes every named image, then what is about it.
pub(crate) fn run(folder: &Path, registry: &str) -> Result<()> {
    let address = Address::parse(registry)?;
    let (layout, index) = Layout::open(folder)?;
    let login = login::find(&address.host).context("the stored logins")?;
    all(&layout, &index, &address, login)
}

fn all(layout: &Layout, index: &Index, address: &Address, login: Login) -> Result<()> {
    let registry = Registry::connect(address, login)?;
    for image in &index.manifests {
        let Some(name) = image.annotations.get(oci::REFERENCE) else { continue };
        let (name, tag) = name.split_once(':').context("a name without a tag")?;
        let path = format!("{}{name}", address.prefix);
        let repository = registry.repository(&path);
        eprintln!("==> {}/{path}:{tag}", address.host);
        let subjects = push_image(layout, &repository, image, tag)?;
        for about in &index.manifests {
            push_about(layout, &repository, about, &subjects)?;
        }
        let scheme = if name == FILTER { "oci://" } else { "" };
        println!("{name}:{tag}\n  {scheme}{}/{path}@{}", address.host, image.digest);
    }
    Ok(())
}

/// Sends an image from its blobs upward; gives the digests that an artifact may be about.
fn push_image(
    layout: &Layout,
    repository: &Repository<'_>,
    image: &Descriptor,
    tag: &str,
) -> Result<Vec<String>> {
    let mut subjects = vec![image.digest.clone()];
    if image.media_type == oci::INDEX {
        let index: Index = serde_json::from_slice(&layout.blob(image)?)?;
        for manifest in &index.manifests {
            push_manifest(layout, repository, manifest, &manifest.digest)?;
            subjects.push(manifest.digest.clone());
        }
        put_verified(layout, repository, image, tag)?;
    } else {
        push_manifest(layout, repository, image, tag)?;
    }
    Ok(subjects)
}

/// Sends a manifest after all that it names; whether the registry lists it for its subject.
fn push_manifest(
    layout: &Layout,
    repository: &Repository<'_>,
    descriptor: &Descriptor,
    reference: &str,
) -> Result<bool> {
    let manifest: Manifest = serde_json::from_slice(&layout.blob(descriptor)?)?;
    for blob in manifest.blobs() {
        repository.put_blob(&blob.digest, &layout.blob(blob)?)?;
    }
    put_verified(layout, repository, descriptor, reference)
}

/// Sends a manifest and reads it back: what a digest names is ours, or the push failed.
fn put_verified(
    layout: &Layout,
    repository: &Repository<'_>,
    descriptor: &Descriptor,
    reference: &str,
) -> Result<bool> {
    let bytes = layout.blob(descriptor)?;
    let listed = repository.put_manifest(reference, &descriptor.media_type, &bytes)?;
    for reference in [reference, &descriptor.digest] {
        let served = repository.manifest(reference)?.map(|bytes| oci::digest(&bytes));
        if served.as_ref() != Some(&descriptor.digest) {
            let served = served.as_deref().unwrap_or("nothing");
            bail!("the registry serves {served} as {reference}, pushed was {}", descriptor.digest);
        }
    }
    Ok(listed)
}

/// Sends an artifact if it is about one of the images.
fn push_about(
    layout: &Layout,
    repository: &Repository<'_>,
    about: &Descriptor,
    subjects: &[String],
) -> Result<()> {
    if about.artifact_type.is_none() {
        return Ok(());
    }
    let manifest: Manifest = serde_json::from_slice(&layout.blob(about)?)?;
    let Some(subject) = manifest.subject.filter(|subject| subjects.contains(&subject.digest))
    else {
        return Ok(());
    };
    if push_manifest(layout, repository, about, &about.digest)? {
        return Ok(());
    }
    // The registry keeps no list itself: then it is a tag, which the pusher keeps (OCI
    // distribution specification 1.1, "Referrers Tag Schema").
    let tag = subject.digest.replace(':', "-");
    let list = extended(repository.manifest(&tag)?.as_deref(), about)?;
    repository.put_manifest(&tag, oci::INDEX, &oci::json(&list)?)?;
    Ok(())
}

/// A list of artifacts with one more, once.
fn extended(list: Option<&[u8]>, about: &Descriptor) -> Result<Index> {
    let mut list = match list {
        Some(bytes) => serde_json::from_slice(bytes).context("the registry's list of artifacts")?,
        None => Index::new(Vec::new()),
    };
    list.manifests.retain(|known| known.digest != about.digest);
    list.manifests.push(about.clone());
    Ok(list)
}

#[cfg(test)]
mod fake;
#[cfg(test)]
mod tests;
