//! Images, made without a container engine: layers as plain tar, a configuration, a manifest.
//!
//! The same content gives the same digests.

use std::{
    fs,
    io::Read,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use serde_json::{Value, json};

use crate::programs::Programs;

/// Bytes with their digest, as a registry knows them.
#[derive(Debug, Clone)]
pub struct Blob {
    /// What they are.
    pub media_type: String,
    /// `sha256:…`
    pub digest: String,
    /// The bytes.
    pub bytes: Vec<u8>,
}

impl Blob {
    /// Of bytes.
    #[must_use]
    pub fn new(media_type: &str, bytes: Vec<u8>) -> Self {
        Self { media_type: media_type.to_owned(), digest: digest(&bytes), bytes }
    }

    fn descriptor(&self) -> Value {
        json!({"mediaType": self.media_type, "digest": self.digest, "size": self.bytes.len()})
    }
}

/// `sha256:…` of the bytes.
#[must_use]
pub fn digest(bytes: &[u8]) -> String {
    let hash = ring::digest::digest(&ring::digest::SHA256, bytes);
    let hex: String = hash.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{hex}")
}

/// Users and groups of the base.
const USERS: &[u8] = b"root:x:0:0::/root:/bin/sh
nobody:x:65534:65534::/:/bin/sh
istio-proxy:x:1337:1337::/:/bin/sh
";
const GROUPS: &[u8] = b"root:x:0:\nnogroup:x:65534:\nistio-proxy:x:1337:\n";

/// An image in the making.
#[derive(Debug, Clone, Default)]
pub struct Image {
    layers: Vec<Vec<u8>>,
    entrypoint: Vec<String>,
    user: String,
}

impl Image {
    /// Nothing in it.
    #[must_use]
    pub fn scratch() -> Self {
        Self::default()
    }

    /// Starts with a shell and the usual commands (busybox), iptables and the C library, from
    /// Debian's unpacked files.
    ///
    /// # Errors
    /// When a file cannot be read.
    pub fn base(debian: &Path) -> Result<Self> {
        let mut layer = Layer::new();
        let mut links = fs::read_dir(debian)?.collect::<Result<Vec<_>, _>>()?;
        links.sort_by_key(fs::DirEntry::file_name);
        for entry in links {
            layer.tree(debian, &entry.path())?;
        }
        for name in ["iptables", "ip6tables"] {
            for command in ["", "-save", "-restore"] {
                layer.link(&format!("usr/sbin/{name}{command}"), "xtables-nft-multi")?;
            }
        }
        // Where the package puts it depends on the release; both folders are on every path.
        let places = ["bin/busybox", "usr/bin/busybox"];
        let busybox = places.iter().find(|place| debian.join(place).is_file());
        let busybox = busybox.context("no busybox in its package")?;
        let list = Programs::of_debian(debian, busybox).arg("--list").output()?;
        for applet in String::from_utf8_lossy(&list.stdout).lines() {
            for folder in ["bin", "usr/bin"] {
                let link = format!("{folder}/{applet}");
                if link != *busybox && !debian.join(&link).exists() {
                    layer.link(&link, &format!("/{busybox}"))?;
                }
            }
        }
        layer.file("etc/passwd", 0o644, USERS)?;
        layer.file("etc/group", 0o644, GROUPS)?;
        layer.folder("tmp", 0o1777)?;
        layer.folder("root", 0o700)?;
        layer.folder("run", 0o755)?;
        layer.link("var/run", "/run")?;
        Ok(Self { layers: vec![layer.end()?], ..Self::default() })
    }

    /// Adds a layer with these files: path without leading slash, mode, content.
    ///
    /// # Errors
    /// When a path is none that an image can have.
    pub fn files(mut self, files: &[(&str, u32, &[u8])]) -> Result<Self> {
        let mut layer = Layer::new();
        for (path, mode, content) in files {
            layer.file(path, *mode, content)?;
        }
        self.layers.push(layer.end()?);
        Ok(self)
    }

    /// Adds a program of this machine at `path`.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn program(self, path: &str, source: &Path) -> Result<Self> {
        let bytes = fs::read(source).with_context(|| format!("{}", source.display()))?;
        self.files(&[(path, 0o755, &bytes)])
    }

    /// What runs.
    #[must_use]
    pub fn entrypoint(mut self, words: &[&str]) -> Self {
        self.entrypoint = words.iter().map(|word| (*word).to_owned()).collect();
        self
    }

    /// As whom, `user:group` in numbers; root without it.
    #[must_use]
    pub fn user(mut self, user: &str) -> Self {
        self.user = user.to_owned();
        self
    }

    /// The blobs, and the manifest that names them.
    pub(crate) fn blobs(self) -> (Vec<Blob>, Blob) {
        let kind = |end: &str| format!("application/vnd.oci.image.{end}");
        let layers: Vec<Blob> =
            self.layers.into_iter().map(|layer| Blob::new(&kind("layer.v1.tar"), layer)).collect();
        let digests: Vec<&str> = layers.iter().map(|layer| layer.digest.as_str()).collect();
        let config = json!({
            "architecture": "amd64",
            "os": "linux",
            "config": {
                "Entrypoint": self.entrypoint,
                "User": self.user,
                "Env": ["PATH=/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"],
            },
            "rootfs": {"type": "layers", "diff_ids": digests},
        });
        let config = Blob::new(&kind("config.v1+json"), config.to_string().into_bytes());
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": kind("manifest.v1+json"),
            "config": config.descriptor(),
            "layers": layers.iter().map(Blob::descriptor).collect::<Vec<_>>(),
        });
        let manifest = Blob::new(&kind("manifest.v1+json"), manifest.to_string().into_bytes());
        (layers.into_iter().chain([config]).collect(), manifest)
    }
}

/// A tar archive without times, owners and what else differs between two machines.
struct Layer(tar::Builder<Vec<u8>>);

impl Layer {
    fn new() -> Self {
        let mut archive = tar::Builder::new(Vec::new());
        archive.mode(tar::HeaderMode::Deterministic);
        archive.follow_symlinks(false);
        Self(archive)
    }

    fn header(kind: tar::EntryType, mode: u32, size: u64) -> tar::Header {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_size(size);
        header
    }

    fn file(&mut self, path: &str, mode: u32, content: &[u8]) -> Result<()> {
        let size = u64::try_from(content.len())?;
        let mut header = Self::header(tar::EntryType::Regular, mode, size);
        self.0.append_data(&mut header, path, content).with_context(|| path.to_owned())
    }

    fn folder(&mut self, path: &str, mode: u32) -> Result<()> {
        let mut header = Self::header(tar::EntryType::Directory, mode, 0);
        self.0.append_data(&mut header, path, std::io::empty()).with_context(|| path.to_owned())
    }

    fn link(&mut self, path: &str, target: &str) -> Result<()> {
        let mut header = Self::header(tar::EntryType::Symlink, 0o777, 0);
        self.0.append_link(&mut header, path, target).with_context(|| path.to_owned())
    }

    /// A folder of `root` with all that is in it, in the order of names.
    fn tree(&mut self, root: &Path, path: &Path) -> Result<()> {
        let name = path.strip_prefix(root)?;
        // Of no use to a pod: half of the size.
        let skipped = ["usr/share", "usr/sbin/runc", "usr/bin/runc"];
        if skipped.iter().any(|skipped| name == Path::new(skipped)) {
            return Ok(());
        }
        let data = path.symlink_metadata()?;
        if !data.is_dir() {
            return self
                .0
                .append_path_with_name(path, name)
                .with_context(|| name.display().to_string());
        }
        self.0.append_dir(name, path)?;
        let mut entries: Vec<PathBuf> = Vec::new();
        for entry in fs::read_dir(path)? {
            entries.push(entry?.path());
        }
        entries.sort();
        entries.iter().try_for_each(|entry| self.tree(root, entry))
    }

    fn end(self) -> Result<Vec<u8>> {
        Ok(self.0.into_inner()?)
    }
}

/// What an OCI layout (a folder, or a tar archive of one) holds, to be pushed.
pub(crate) fn layout(path: &Path) -> Result<(Vec<Blob>, Blob)> {
    let read = |name: &str| -> Result<Vec<u8>> {
        if path.is_dir() {
            return fs::read(path.join(name)).with_context(|| format!("{name} of the layout"));
        }
        let mut archive = tar::Archive::new(fs::File::open(path)?);
        for entry in archive.entries()? {
            let mut entry = entry?;
            if entry.path()?.strip_prefix("./").unwrap_or(&entry.path()?) == Path::new(name) {
                let mut bytes = Vec::new();
                entry.read_to_end(&mut bytes)?;
                return Ok(bytes);
            }
        }
        anyhow::bail!("{name} is not in the archive")
    };
    let blob = |descriptor: &Value| -> Result<Blob> {
        let text = |member| descriptor.get(member).and_then(Value::as_str).unwrap_or_default();
        let bytes = read(&format!("blobs/{}", text("digest").replace(':', "/")))?;
        Ok(Blob::new(text("mediaType"), bytes))
    };
    let index: Value = serde_json::from_slice(&read("index.json")?)?;
    let manifest = blob(index.pointer("/manifests/0").context("an index without manifests")?)?;
    let content: Value = serde_json::from_slice(&manifest.bytes)?;
    let layers = content.get("layers").and_then(Value::as_array).cloned().unwrap_or_default();
    let blobs = layers.iter().chain(content.get("config")).map(blob).collect::<Result<Vec<_>>>()?;
    Ok((blobs, manifest))
}
