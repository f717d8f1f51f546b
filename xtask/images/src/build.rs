//! `images build`: from what was compiled to a layout with everything that is pushed.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::{
    elf,
    image::{self, About, BROKER, FILTER, Roots},
    layout::Layout,
    oci::{self, Descriptor, Index, Manifest},
    sbom::{self, Subject},
};

/// The filter's target.
const FILTER_TARGET: &str = "wasm32-wasip1";

/// What the images are made of.
#[derive(clap::Args)]
pub(crate) struct Input {
    /// The folder that is written anew.
    #[arg(long, value_name = "FOLDER")]
    layout: PathBuf,
    /// The repository, for the bills of materials.
    #[arg(long, value_name = "FOLDER")]
    workspace: PathBuf,
    /// The commit.
    #[arg(long)]
    revision: Option<String>,
    /// The commit's time, as RFC 3339 has it.
    #[arg(long, value_name = "TIME")]
    created: String,
    /// The version of the Rust that compiled.
    #[arg(long, value_name = "VERSION")]
    rust: String,
    /// The filter's module.
    #[arg(long, value_name = "FILE")]
    module: PathBuf,
    /// The public roots, PEM.
    #[arg(long, value_name = "FILE")]
    roots: PathBuf,
    /// The package and version that the roots are from.
    #[arg(long, value_name = "TEXT")]
    roots_source: String,
    /// The broker for a machine: `amd64,TARGET,FILE`.
    #[arg(long, value_name = "MACHINE,TARGET,FILE", required = true)]
    broker: Vec<String>,
}

/// Builds all images.
pub(crate) fn run(input: &Input) -> Result<()> {
    let layout = Layout::create(&input.layout)?;
    let mut index = Vec::new();
    filters(&layout, input, &mut index)?;
    brokers(&layout, input, &mut index)?;
    let index = Index::new(index);
    layout.finish(&index)?;
    for line in table(&layout, &index)? {
        println!("{line}");
    }
    Ok(())
}

fn filters(layout: &Layout, input: &Input, index: &mut Vec<Descriptor>) -> Result<()> {
    let module = read(&input.module)?;
    let bill = sbom::write(
        &input.workspace,
        &Subject {
            package: "filter",
            target: FILTER_TARGET,
            bytes: &module,
            created: &input.created,
            others: vec![standard_library(input)],
        },
    )?;
    layout.write("filter.cdx.json", &bill)?;
    let version = env!("CARGO_PKG_VERSION");
    let about = about(input);
    for (tag, image) in [
        (version.to_owned(), image::filter(layout, &about, &module)?),
        (format!("{version}-artifact"), image::artifact(layout, &about, &module)?),
    ] {
        index.push(attached(layout, &image, &bill, input)?);
        index.push(named(image, &format!("{FILTER}:{tag}")));
    }
    Ok(())
}

fn brokers(layout: &Layout, input: &Input, index: &mut Vec<Descriptor>) -> Result<()> {
    let pem = read(&input.roots)?;
    let roots = Roots { pem: &pem, source: &input.roots_source };
    let about = about(input);
    let mut images = Vec::new();
    for broker in &input.broker {
        let mut parts = broker.splitn(3, ',');
        let (Some(machine), Some(target), Some(file)) = (parts.next(), parts.next(), parts.next())
        else {
            anyhow::bail!("`{broker}` is not MACHINE,TARGET,FILE");
        };
        let program = read(Path::new(file))?;
        elf::check(&program, machine).with_context(|| file.to_owned())?;
        let (source, version) =
            input.roots_source.rsplit_once(' ').unwrap_or((&input.roots_source, ""));
        let bill = sbom::write(
            &input.workspace,
            &Subject {
                package: "token-broker",
                target,
                bytes: &program,
                created: &input.created,
                others: vec![
                    standard_library(input),
                    // Rust brings it with the target.
                    sbom::other("musl", &format!("of Rust {}", input.rust), "MIT", None),
                    sbom::other(source, version, "MPL-2.0", Some(&pem)),
                ],
            },
        )?;
        layout.write(&format!("token-broker-{machine}.cdx.json"), &bill)?;
        let image = image::broker(layout, &about, machine, &program, &roots)?;
        index.push(attached(layout, &image, &bill, input)?);
        images.push(image);
    }
    let all = image::broker_index(layout, &about, &images)?;
    index.push(named(all, &format!("{BROKER}:{}", env!("CARGO_PKG_VERSION"))));
    Ok(())
}

fn about(input: &Input) -> About<'_> {
    About { revision: input.revision.as_deref(), created: &input.created }
}

fn standard_library(input: &Input) -> serde_json::Value {
    sbom::other("rust-std", &input.rust, "MIT OR Apache-2.0", None)
}

fn named(mut image: Descriptor, name: &str) -> Descriptor {
    image.annotations.insert(oci::REFERENCE.to_owned(), name.to_owned());
    image
}

/// A bill of materials as an artifact about an image (OCI image specification 1.1, `subject`).
fn attached(layout: &Layout, image: &Descriptor, bill: &[u8], input: &Input) -> Result<Descriptor> {
    let config = layout.add(oci::EMPTY, b"{}")?;
    let mut manifest = Manifest::new(config, vec![layout.add(sbom::MEDIA_TYPE, bill)?]);
    manifest.artifact_type = Some(sbom::MEDIA_TYPE.to_owned());
    manifest.subject = Some(Descriptor { platform: None, ..image.clone() });
    let created = ("org.opencontainers.image.created".to_owned(), input.created.clone());
    manifest.annotations.extend([created]);
    let mut descriptor = layout.add(oci::MANIFEST, &oci::json(&manifest)?)?;
    descriptor.artifact_type = manifest.artifact_type;
    descriptor.annotations = manifest.annotations;
    Ok(descriptor)
}

/// For each named image: its name, its size, and how to name it in a resource.
fn table(layout: &Layout, index: &Index) -> Result<Vec<String>> {
    let mut lines = Vec::new();
    for image in &index.manifests {
        let Some(name) = image.annotations.get(oci::REFERENCE) else { continue };
        let repository = name.split_once(':').map_or(name.as_str(), |(repository, _)| repository);
        let mut sizes = Vec::new();
        if image.media_type == oci::INDEX {
            let platforms: Index = serde_json::from_slice(&layout.blob(image)?)?;
            for manifest in &platforms.manifests {
                let machine = manifest.platform.as_ref().map(|platform| &*platform.architecture);
                let bytes = size(layout, manifest)?;
                sizes.push(format!("{} {bytes} bytes", machine.unwrap_or_default()));
            }
        } else {
            sizes.push(format!("{} bytes", size(layout, image)?));
        }
        let scheme = if repository == FILTER { "oci://" } else { "" };
        lines.push(format!("{name}: {}", sizes.join(", ")));
        lines.push(format!("  {scheme}REGISTRY/{repository}@{}", image.digest));
    }
    Ok(lines)
}

/// What a node downloads.
fn size(layout: &Layout, image: &Descriptor) -> Result<u64> {
    let manifest: Manifest = serde_json::from_slice(&layout.blob(image)?)?;
    Ok(manifest.blobs().map(|blob| blob.size).sum::<u64>().saturating_add(image.size))
}

fn read(path: &Path) -> Result<Vec<u8>> {
    std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))
}
