//! What the e2e crate's programs find in their environment.
//!
//! | variable | what |
//! |---|---|
//! | `ENVOY` | the Envoy release of `.envoy-version` |
//! | `ENVOY_SMOKE` | the oldest Envoy that the filter is run under |
//! | `ENVOY_1_37`, `ENVOY_1_38`, `ENVOY_1_39` | the minors between the two |
//! | `ENTRA_FILTER_WASM` | the shipped module |
//! | `ENTRA_FILTER_TRAP_WASM` | the same filter with a request that traps the VM |
//! | `TOKEN_BROKER_BIN` | the broker |
//! | `NODE`, `PYTHON` | programs for clients that nobody here wrote |
//! | `NODE_CLIENTS`, `PYTHON_CLIENTS` | the packages of those clients |
//! | `BENCH_EMPTY_WASM` | a filter that does nothing |

use std::path::PathBuf;

use anyhow::Result;

use crate::{
    tools::{envoy, node, python},
    wasm, workspace,
};

/// Variables for a program that is about to start.
pub(crate) type Variables = Vec<(&'static str, PathBuf)>;

/// Which build of the host's programs.
#[derive(Clone, Copy)]
pub(crate) enum Profile {
    /// For demo and tests.
    Debug,
    /// For the bench.
    Release,
}

impl Profile {
    fn folder(self) -> &'static str {
        match self {
            Self::Debug => "debug",
            Self::Release => "release",
        }
    }
}

/// A program that cargo has built.
pub(crate) fn built(profile: Profile, name: &str) -> Result<PathBuf> {
    Ok(workspace::target()?.join(profile.folder()).join(name))
}

/// What every program needs: Envoy and the module.
fn envoy_and_module() -> Result<Variables> {
    Ok(vec![("ENVOY", envoy::current()?), ("ENTRA_FILTER_WASM", wasm::shipped()?)])
}

/// What the whole product needs.
pub(crate) fn product() -> Result<Variables> {
    let mut variables = envoy_and_module()?;
    variables.push(("TOKEN_BROKER_BIN", built(Profile::Debug, "token-broker")?));
    Ok(variables)
}

/// What the tests need besides.
pub(crate) fn tests() -> Result<Variables> {
    let mut variables = envoy_and_module()?;
    variables.extend(clients()?);
    variables.extend(envoy::between()?);
    variables
        .extend([("ENVOY_SMOKE", envoy::oldest()?), ("ENTRA_FILTER_TRAP_WASM", wasm::trapping()?)]);
    Ok(variables)
}

/// What the tests with independent clients need: the broker and the clients, and no Envoy.
pub(crate) fn clients() -> Result<Variables> {
    let pins = workspace::root().join("tests/clients");
    let (node, node_clients) = node::clients(&pins)?;
    Ok(vec![
        ("TOKEN_BROKER_BIN", built(Profile::Debug, "token-broker")?),
        ("NODE", node),
        ("NODE_CLIENTS", node_clients),
        ("PYTHON", python::program()?),
        ("PYTHON_CLIENTS", python::packages("python-clients", &pins.join("requirements.txt"))?),
    ])
}

/// What the bench needs: the broker is not measured there.
pub(crate) fn bench() -> Result<Variables> {
    let mut variables = envoy_and_module()?;
    variables.push(("BENCH_EMPTY_WASM", wasm::empty()?));
    Ok(variables)
}
