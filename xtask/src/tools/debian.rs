//! What the test mesh takes from Debian: runc, iptables and the pods' base files.
//!
//! The packages come from the machine's own, signed package sources and are only unpacked, into
//! the cache: nothing is installed into the system, no script of a package runs.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::{command, workspace};

/// runc needs the machine's libseccomp (part of every system with apt); the others are together
/// all that iptables and a dynamically linked Envoy need.
const PACKAGES: [&str; 13] = [
    "runc",
    "busybox",
    "iptables",
    "libc6",
    "libgcc-s1",
    "libip4tc2",
    "libip6tc2",
    "libmnl0",
    "libnetfilter-conntrack3",
    "libnfnetlink0",
    "libnftnl11",
    "libxtables12",
    "netbase",
];

/// A folder with the packages' files, as in `/`.
pub(crate) fn files(cache: &Path) -> Result<PathBuf> {
    let system = std::fs::read_to_string("/etc/os-release").unwrap_or_default();
    let pin = format!("{}\n{system}", PACKAGES.join(" "));
    super::cached(cache, "debian", &pin, unpack)
}

fn unpack(folder: &Path) -> Result<()> {
    let (Some(apt), Some(dpkg)) = (command::on_path("apt-get"), command::on_path("dpkg-deb"))
    else {
        bail!(
            "the mesh takes runc and iptables from Debian's packages, and there is no apt-get or \
             dpkg-deb on PATH: run it on Debian or Ubuntu"
        );
    };
    let archives = folder.join("archives");
    workspace::create_folder(&archives)?;
    let download = || {
        let mut download = command::program(&apt);
        // As root: apt's own user cannot write here, which apt would warn of.
        download.args(["-qq", "-o", "APT::Sandbox::User=root", "download"]).args(PACKAGES);
        command::run(download.current_dir(&archives))
    };
    if download().is_err() {
        command::step("apt-get update (only the lists of packages)");
        command::run(command::program(&apt).args(["-qq", "update"]))?;
        download()?;
    }
    for entry in std::fs::read_dir(&archives)? {
        let archive = entry?.path();
        command::run(command::program(&dpkg).arg("-x").arg(&archive).arg(folder.join("root")))?;
    }
    std::fs::remove_dir_all(&archives).context("cannot remove the archives")
}
