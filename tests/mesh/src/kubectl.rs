//! kubectl as the cluster's administrator, from wherever the caller is.

use std::{
    ffi::OsStr,
    io::Write,
    process::{Command, Stdio},
};

use anyhow::{Context, Result, bail};

use crate::{
    namespace::Namespace,
    paths::{kubeconfig, state},
    programs::Programs,
};

/// How a program ended, with what it wrote.
#[derive(Debug, Clone)]
pub struct Finished {
    /// Its exit code; -1 when a signal ended it.
    pub code: i32,
    /// Its standard output.
    pub stdout: String,
    /// Its standard error.
    pub stderr: String,
}

impl Finished {
    /// Runs a command to its end, with this on its standard input.
    pub(crate) fn of(command: &mut Command, input: &str) -> Result<Self> {
        let shown = command_line(command);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().with_context(|| format!("cannot start {shown}"))?;
        let stdin = child.stdin.take();
        let output = std::thread::scope(|scope| {
            scope.spawn(move || {
                // A program that ends without reading all of it says why by itself.
                stdin.map(|mut stdin| stdin.write_all(input.as_bytes()))
            });
            child.wait_with_output()
        })?;
        Ok(Self {
            code: output.status.code().unwrap_or(-1),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        })
    }

    /// Its standard output, when it ended well.
    pub(crate) fn success(self, command: &Command) -> Result<String> {
        if self.code != 0 {
            let said = [self.stderr.trim(), self.stdout.trim()].join("\n");
            bail!("`{}` ended with {}: {}", command_line(command), self.code, said.trim());
        }
        Ok(self.stdout)
    }
}

/// A command as a person would type it, its program without folders.
fn command_line(command: &Command) -> String {
    let name = |word: &OsStr| word.to_string_lossy().into_owned();
    let words = command.get_args().map(name).filter(|word| !word.starts_with("--kubeconfig="));
    let program = name(command.get_program());
    let program = program.rsplit('/').next().unwrap_or_default().to_owned();
    [program].into_iter().chain(words).collect::<Vec<_>>().join(" ")
}

/// kubectl, and where the cluster is.
#[derive(Debug, Clone)]
pub(crate) struct Kubectl {
    namespace: Namespace,
    programs: Programs,
}

impl Kubectl {
    pub(crate) fn new(namespace: Namespace, programs: Programs) -> Self {
        Self { namespace, programs }
    }

    /// A command line tool of the mesh with its cluster: kubectl, istioctl, helm.
    pub(crate) fn tool(&self, name: &str) -> Result<Command> {
        let mut command = self.namespace.in_network(self.programs.find(name)?);
        command.env("KUBECONFIG", kubeconfig()).env("HOME", state("home"));
        for variable in ["HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"] {
            command.env_remove(variable).env_remove(variable.to_lowercase());
        }
        Ok(command)
    }

    /// Runs kubectl to its end; failing is an error.
    pub(crate) fn run(&self, arguments: &[&str]) -> Result<String> {
        self.run_with(arguments, "")
    }

    /// The same with this on its standard input.
    pub(crate) fn run_with(&self, arguments: &[&str], input: &str) -> Result<String> {
        let mut command = self.tool("kubectl")?;
        Finished::of(command.args(arguments), input)?.success(&command)
    }

    /// Applies objects, also over what others have written into them.
    pub(crate) fn apply_server_side(&self, objects: &str) -> Result<String> {
        let apply = ["apply", "--server-side", "--force-conflicts", "--filename=-"];
        self.run_with(&apply, objects)
    }
}
