//! A program in a pod, found from the outside: by its name within the pod's cgroup.

use std::fs;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::{Mesh, cgroup};

impl Mesh {
    /// The process of a program (`envoy`) in a pod, as this machine numbers it.
    ///
    /// # Errors
    /// When there is no such pod, or not exactly one such process.
    pub fn process(&self, namespace: &str, pod: &str, program: &str) -> Result<i32> {
        let object = self.get(namespace, &["pod", pod])?;
        let uid = object.pointer("/metadata/uid").and_then(Value::as_str).context("no uid")?;
        // kubelet names the group of a pod so, and those of its containers lie in it.
        let group = format!("/pod{uid}/");
        let read = |process: i32, file: &str| {
            // One that has ended meanwhile has none.
            fs::read_to_string(format!("/proc/{process}/{file}")).unwrap_or_default()
        };
        let found: Vec<i32> = cgroup::processes()
            .into_iter()
            .filter(|process| read(*process, "cgroup").contains(&group))
            .filter(|process| read(*process, "comm").trim() == program)
            .collect();
        match found.as_slice() {
            [process] => Ok(*process),
            _ => bail!("{} processes {program} in {pod}", found.len()),
        }
    }
}
