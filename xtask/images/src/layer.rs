//! A layer: files as a tar archive that depends on their content only.
//!
//! Every entry belongs to root, has the time zero and a fixed mode, and the entries are sorted;
//! gzip's header has no name and no time. So the same files give the same digest.

use std::{collections::BTreeMap, io::Write};

use anyhow::{Context, Result};
use flate2::{Compression, GzBuilder};
use tar::{Builder, EntryType, Header};

use crate::oci;

/// What a layer is called in a manifest.
pub(crate) const MEDIA_TYPE: &str = "application/vnd.oci.image.layer.v1.tar+gzip";

/// A file in an image.
pub(crate) struct File<'a> {
    /// From the root, without a leading slash.
    pub(crate) path: &'a str,
    /// `0o755` for programs, `0o644` for what is only read.
    pub(crate) mode: u32,
    /// What is in it.
    pub(crate) bytes: &'a [u8],
}

/// A layer as it is stored and served.
pub(crate) struct Layer {
    /// The compressed archive.
    pub(crate) bytes: Vec<u8>,
    /// The digest of the archive before compression, which an image's configuration names.
    pub(crate) diff_id: String,
}

/// Packs files, and the folders above them.
pub(crate) fn pack(files: &[File<'_>]) -> Result<Layer> {
    let mut entries: BTreeMap<String, Option<&File<'_>>> = BTreeMap::new();
    for file in files {
        let folders = file.path.match_indices('/').filter_map(|(at, _)| file.path.get(..=at));
        entries.extend(folders.map(|folder| (folder.to_owned(), None)));
        entries.insert(file.path.to_owned(), Some(file));
    }
    let mut archive = Builder::new(Vec::new());
    for (path, file) in entries {
        append(&mut archive, &path, file).with_context(|| format!("cannot pack {path}"))?;
    }
    let archive = archive.into_inner()?;
    let mut zip = GzBuilder::new().mtime(0).write(Vec::new(), Compression::best());
    zip.write_all(&archive)?;
    Ok(Layer { bytes: zip.finish()?, diff_id: oci::digest(&archive) })
}

fn append(archive: &mut Builder<Vec<u8>>, path: &str, file: Option<&File<'_>>) -> Result<()> {
    let bytes = file.map_or(&[][..], |file| file.bytes);
    let mut header = Header::new_ustar();
    header.set_path(path)?;
    header.set_entry_type(if file.is_some() { EntryType::Regular } else { EntryType::Directory });
    header.set_mode(file.map_or(0o755, |file| file.mode));
    header.set_size(u64::try_from(bytes.len())?);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_cksum();
    Ok(archive.append(&header, bytes)?)
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    const FILES: [File<'static>; 2] = [
        File { path: "usr/bin/program", mode: 0o755, bytes: b"run" },
        File { path: "etc/list.pem", mode: 0o644, bytes: b"read" },
    ];

    /// Path, kind, mode, user, group, time and content of each entry.
    fn entries(layer: &Layer) -> Vec<(String, EntryType, u32, u64, u64, u64, String)> {
        let mut archive = tar::Archive::new(flate2::read::GzDecoder::new(&layer.bytes[..]));
        let read = |entry: std::io::Result<tar::Entry<'_, _>>| {
            let mut entry = entry.unwrap();
            let mut text = String::new();
            entry.read_to_string(&mut text).unwrap();
            let header = entry.header();
            (
                entry.path().unwrap().display().to_string(),
                header.entry_type(),
                header.mode().unwrap(),
                header.uid().unwrap(),
                header.gid().unwrap(),
                header.mtime().unwrap(),
                text,
            )
        };
        archive.entries().unwrap().map(read).collect()
    }

    #[test]
    fn a_layer_has_sorted_entries_of_root_without_a_time() {
        let folder =
            |path: &str| (path.to_owned(), EntryType::Directory, 0o755, 0, 0, 0, String::new());
        let file = |path: &str, mode, text: &str| {
            (path.to_owned(), EntryType::Regular, mode, 0, 0, 0, text.to_owned())
        };
        assert_eq!(
            entries(&pack(&FILES).unwrap()),
            [
                folder("etc/"),
                file("etc/list.pem", 0o644, "read"),
                folder("usr/"),
                folder("usr/bin/"),
                file("usr/bin/program", 0o755, "run"),
            ]
        );
    }

    #[test]
    fn the_same_files_in_any_order_give_the_same_bytes() {
        let [program, list] = FILES;
        let (one, other) = (pack(&FILES).unwrap(), pack(&[list, program]).unwrap());
        assert_eq!(one.bytes, other.bytes);
        assert_eq!(one.diff_id, other.diff_id);
    }

    #[test]
    fn the_diff_id_is_of_the_archive_and_not_of_its_compression() {
        let layer = pack(&FILES).unwrap();
        let mut archive = Vec::new();
        flate2::read::GzDecoder::new(&layer.bytes[..]).read_to_end(&mut archive).unwrap();
        assert_eq!(layer.diff_id, oci::digest(&archive));
        assert_ne!(layer.diff_id, oci::digest(&layer.bytes));
    }

    #[test]
    fn the_gzip_header_names_no_time_and_no_file() {
        // RFC 1952 2.3: flags and time are zero.
        assert_eq!(pack(&FILES).unwrap().bytes[..8], [0x1f, 0x8b, 8, 0, 0, 0, 0, 0]);
    }
}
