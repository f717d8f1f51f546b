//! An OCI image layout: a folder with blobs by digest and an index of what is in it.
//!
//! The form that skopeo, crane, oras and containerd read too.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::oci::{self, Descriptor, Index};

/// The file that says that a folder is a layout, and its content.
const MARK: (&str, &str) = ("oci-layout", "{\"imageLayoutVersion\":\"1.0.0\"}");

/// A layout's folder.
pub(crate) struct Layout {
    folder: PathBuf,
}

impl Layout {
    /// An empty layout in place of what was there.
    pub(crate) fn create(folder: &Path) -> Result<Self> {
        match std::fs::remove_dir_all(folder) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(error).with_context(|| format!("cannot remove {}", folder.display()));
            }
            _ => {}
        }
        let layout = Self { folder: folder.to_owned() };
        std::fs::create_dir_all(layout.folder.join("blobs/sha256"))
            .with_context(|| format!("cannot create {}", folder.display()))?;
        Ok(layout)
    }

    /// A finished layout and its index.
    pub(crate) fn open(folder: &Path) -> Result<(Self, Index)> {
        let layout = Self { folder: folder.to_owned() };
        if layout.read(MARK.0).is_err() {
            bail!("{} holds no images: build them first", folder.display());
        }
        let index = serde_json::from_slice(&layout.read("index.json")?)
            .with_context(|| format!("{}/index.json", folder.display()))?;
        Ok((layout, index))
    }

    /// Stores a blob.
    pub(crate) fn add(&self, media_type: &str, bytes: &[u8]) -> Result<Descriptor> {
        let digest = oci::digest(bytes);
        self.write(&name(&digest)?, bytes)?;
        Ok(Descriptor {
            media_type: media_type.to_owned(),
            digest,
            size: u64::try_from(bytes.len())?,
            ..Descriptor::default()
        })
    }

    /// A blob's bytes, which must be those that the descriptor promises.
    pub(crate) fn blob(&self, descriptor: &Descriptor) -> Result<Vec<u8>> {
        let bytes = self.read(&name(&descriptor.digest)?)?;
        if oci::digest(&bytes) != descriptor.digest {
            bail!("{}: {} has another content", self.folder.display(), descriptor.digest);
        }
        Ok(bytes)
    }

    /// A file beside the blobs, for people.
    pub(crate) fn write(&self, name: &str, bytes: &[u8]) -> Result<()> {
        let path = self.folder.join(name);
        std::fs::write(&path, bytes).with_context(|| format!("cannot write {}", path.display()))
    }

    /// Writes the index, then the mark: a layout that broke off has none and is not pushed.
    pub(crate) fn finish(&self, index: &Index) -> Result<()> {
        self.write("index.json", &oci::json(index)?)?;
        self.write(MARK.0, MARK.1.as_bytes())
    }

    fn read(&self, name: &str) -> Result<Vec<u8>> {
        let path = self.folder.join(name);
        std::fs::read(&path).with_context(|| format!("cannot read {}", path.display()))
    }
}

fn name(digest: &str) -> Result<String> {
    let figures = digest.strip_prefix("sha256:").unwrap_or_default();
    if figures.len() != 64 || !figures.chars().all(|figure| figure.is_ascii_hexdigit()) {
        bail!("`{digest}` is no digest");
    }
    Ok(format!("blobs/sha256/{figures}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_changed_blob_is_noticed() {
        let folder = tempfile::tempdir().unwrap();
        let layout = Layout::create(folder.path()).unwrap();
        let descriptor = layout.add("text/plain", b"content").unwrap();
        assert_eq!(layout.blob(&descriptor).unwrap(), b"content");
        layout.write(&name(&descriptor.digest).unwrap(), b"changed").unwrap();
        assert!(layout.blob(&descriptor).unwrap_err().to_string().contains("another content"));
    }

    #[test]
    fn a_layout_that_broke_off_is_not_opened() {
        let folder = tempfile::tempdir().unwrap();
        Layout::create(folder.path()).unwrap();
        assert!(Layout::open(folder.path()).is_err());
    }

    #[test]
    fn a_digest_that_leaves_the_folder_is_refused() {
        let up = format!("sha256:{}", "../".repeat(22));
        for digest in ["", "sha256:", "sha256:../../x", &up, "md5:00"] {
            assert!(name(digest).is_err(), "{digest}");
        }
    }
}
