//! zig, as the C compiler for the Linux targets: one compiler, with musl's headers for each.
//!
//! Only ring has C and assembly in it. Rust brings the linker and musl itself.

use std::{
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result};

use super::python;
use crate::{reproducible, workspace};

/// Makes cargo compile C for a target with zig, folders of the machine replaced.
pub(crate) fn compile_c(cargo: &mut Command, target: &str, folder: &Path) -> Result<()> {
    let tool = python::packages("zig", &workspace::pins().join("zig.txt"))?;
    let zig = tool.join("ziglang/zig");
    // zig knows no vendor in a target's name.
    let name = target.replace("-unknown", "");
    let mut words = vec![quoted(&zig)?, "cc".to_owned(), "-target".to_owned(), name];
    for (from, to) in reproducible::folders(target)? {
        words.push(quoted(Path::new(&format!("-ffile-prefix-map={from}={to}")))?);
    }
    let variable = |name: &str| format!("{name}_{}", target.replace('-', "_"));
    cargo.env(variable("CC"), script(folder, "cc", &words)?);
    cargo.env(variable("AR"), script(folder, "ar", &[quoted(&zig)?, "ar".to_owned()])?);
    for flags in ["CFLAGS", "ARFLAGS"] {
        cargo.env_remove(flags).env_remove(variable(flags)).env_remove(format!("TARGET_{flags}"));
    }
    // zig's own cache lies beside it and not under the person's home folder.
    let cache = tool.join("cache");
    cargo.env("ZIG_GLOBAL_CACHE_DIR", &cache).env("ZIG_LOCAL_CACHE_DIR", &cache);
    Ok(())
}

/// A program of one word, as build scripts want it. It drops their own name of the target.
fn script(folder: &Path, name: &str, words: &[String]) -> Result<PathBuf> {
    let path = folder.join(name);
    let text = format!(
        "#!/bin/sh\nfor word do\n  shift\n  case \"$word\" in\n    --target=*) ;;\n    \
         *) set -- \"$@\" \"$word\" ;;\n  esac\ndone\nexec {} \"$@\"\n",
        words.join(" ")
    );
    // Written only when it changed: another build may be running it.
    if std::fs::read_to_string(&path).is_ok_and(|there| there == text) {
        return Ok(path);
    }
    let partial = folder.join(format!("{name}.partial"));
    workspace::write(&partial, &text)?;
    std::fs::set_permissions(&partial, std::fs::Permissions::from_mode(0o755))?;
    std::fs::rename(&partial, &path).with_context(|| format!("cannot write {}", path.display()))?;
    Ok(path)
}

/// A word for the shell, whatever a folder is called.
fn quoted(word: &Path) -> Result<String> {
    let word = word.to_str().with_context(|| format!("{} is no text", word.display()))?;
    Ok(format!("'{}'", word.replace('\'', "'\\''")))
}
