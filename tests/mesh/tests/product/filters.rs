//! Filter images beside the shipped one: another that works, and such as break.

use mesh::image::Blob;
use serde_json::{Value, json};

use crate::world::{World, variable};

/// In the mesh's registry.
const REPOSITORY: &str = "entra-sidecar/filter";
/// What wasm modules are in an artifact.
const MODULE: &str = "application/vnd.module.wasm.content.layer.v1+wasm";

/// The shipped module with a section of its own, which no program reads: other bytes, the same
/// filter. Gives the digest.
pub(crate) fn next(world: &World) -> String {
    named(world, "next")
}

/// The same, with this as what differs and as the tag.
pub(crate) fn named(world: &World, name: &str) -> String {
    let mut module = shipped_module(world);
    let length = |bytes: &[u8]| u8::try_from(bytes.len()).unwrap();
    let section = [&[length(name.as_bytes())][..], name.as_bytes(), b"version"].concat();
    module.extend([&[0, length(&section)][..], &section].concat());
    artifact(world, name, module)
}

/// An image whose module is none.
pub(crate) fn garbage(world: &World) -> String {
    artifact(world, "garbage", b"this is not WebAssembly".to_vec())
}

/// An image whose module begins like one and goes on as none.
pub(crate) fn broken(world: &World) -> String {
    artifact(world, "broken", b"\0asm\x01\0\0\0 and nothing more of it".to_vec())
}

/// An image for container engines in which there is no module.
pub(crate) fn empty(world: &World) -> String {
    let mut archive = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_size(4);
    header.set_mode(0o644);
    archive.append_data(&mut header, "README", &b"none"[..]).unwrap();
    let mut layer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    std::io::Write::write_all(&mut layer, &archive.into_inner().unwrap()).unwrap();
    let layer = layer.finish().unwrap();
    let layer = Blob::new("application/vnd.oci.image.layer.v1.tar+gzip", layer);
    let config = json!({"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers"}});
    let config = ("application/vnd.oci.image.config.v1+json", config);
    push(world, "empty", config, layer)
}

fn artifact(world: &World, tag: &str, module: Vec<u8>) -> String {
    let config = ("application/vnd.module.wasm.config.v1+json", json!({"type": "envoy_proxy"}));
    push(world, tag, config, Blob::new(MODULE, module))
}

/// The artifact form has its configuration among the layers too: it must have two.
fn push(world: &World, tag: &str, config: (&str, Value), layer: Blob) -> String {
    let config = Blob::new(config.0, config.1.to_string().into_bytes());
    let described = |blob: &Blob| json!({"mediaType": blob.media_type, "digest": blob.digest, "size": blob.bytes.len()});
    let mut layers = vec![described(&layer)];
    if layer.media_type == MODULE {
        layers.insert(0, described(&config));
    }
    let kind = "application/vnd.oci.image.manifest.v1+json";
    let manifest = json!({
        "schemaVersion": 2, "mediaType": kind, "config": described(&config), "layers": layers,
    });
    let manifest = Blob::new(kind, manifest.to_string().into_bytes());
    let name = format!("{REPOSITORY}:{tag}");
    world.mesh.push_blobs(&name, &[config, layer], &manifest).unwrap()
}

/// The module of the shipped artifact.
fn shipped_module(world: &World) -> Vec<u8> {
    let layout = variable("MESH_IMAGES");
    let blob = |digest: &str| {
        let path = layout.join("blobs").join(digest.replace(':', "/"));
        std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    };
    let manifest: Value = serde_json::from_slice(&blob(&world.images.filter_artifact)).unwrap();
    let layers = manifest["layers"].as_array().unwrap();
    let module = layers.iter().find(|layer| layer["mediaType"] == MODULE).unwrap();
    blob(module["digest"].as_str().unwrap())
}
