//! What a test wants to be different from the shipped configuration, and the start of it all.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::{Stack, unix_now, world};
use crate::{
    broker::{Broker, BrokerIdentity, BrokerSettings, own_directory},
    envoy::{self, Envoy, EnvoyConfig},
    fake_entra::{
        self, Cloud, FakeEntra,
        sample::{self, Cluster},
    },
    ports,
    upstream::Upstream,
};

/// What is to be different from the shipped configuration.
pub struct Builder {
    concurrency: u32,
    envoy_variable: &'static str,
    with_broker: bool,
    shipped_ports: bool,
    module: Option<PathBuf>,
    graph_proof: GraphProof,
    config: EnvoyConfig,
    broker_changes: Vec<(String, Value)>,
    prepare_entra: Box<dyn FnOnce(&FakeEntra) + Send>,
}

/// How the upstream that plays Graph proves to be it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GraphProof {
    /// A certificate of the trusted authority for graph.microsoft.com.
    Trusted,
    /// A certificate for graph.microsoft.com that nobody trusts.
    SelfSigned,
    /// None: no TLS on either side.
    None,
}

impl Builder {
    /// Nothing different.
    pub(super) fn shipped() -> Self {
        Self {
            concurrency: 1,
            envoy_variable: "ENVOY",
            with_broker: true,
            shipped_ports: false,
            module: None,
            graph_proof: GraphProof::Trusted,
            config: EnvoyConfig::shipped(),
            broker_changes: Vec::new(),
            prepare_entra: Box::new(|_| {}),
        }
    }

    /// Workers of Envoy.
    #[must_use]
    pub fn concurrency(mut self, workers: u32) -> Self {
        self.concurrency = workers;
        self
    }

    /// Runs the oldest Envoy that is supported.
    #[must_use]
    pub fn oldest_envoy(self) -> Self {
        self.envoy("ENVOY_SMOKE")
    }

    /// Runs the Envoy that a variable names.
    #[must_use]
    pub fn envoy(mut self, variable: &'static str) -> Self {
        self.envoy_variable = variable;
        self
    }

    /// Runs the build of the filter that a request with `x-test-trap` traps.
    #[must_use]
    pub fn trapping_module(self) -> Self {
        let module = envoy::from_environment("ENTRA_FILTER_TRAP_WASM");
        self.module_file(&module)
    }

    /// Runs another module, which need not be there.
    #[must_use]
    pub fn module_file(mut self, path: &Path) -> Self {
        self.module = Some(path.to_owned());
        self
    }

    /// Lets Envoy take listeners and clusters from files, so that [`Envoy::push`] can change them.
    #[must_use]
    pub fn pushable(mut self) -> Self {
        self.config.make_pushable();
        self
    }

    /// Leaves the broker to [`Stack::start_broker`].
    #[must_use]
    pub fn without_broker(mut self) -> Self {
        self.with_broker = false;
        self
    }

    /// Uses the ports of the shipped file where they are free.
    #[must_use]
    pub fn shipped_ports(mut self) -> Self {
        self.shipped_ports = true;
        self
    }

    /// Changes Envoy's configuration.
    #[must_use]
    pub fn configure(mut self, change: impl FnOnce(&mut EnvoyConfig)) -> Self {
        change(&mut self.config);
        self
    }

    /// Sets a member of the inbound policy, by JSON pointer; a missing last member is added.
    #[must_use]
    pub fn inbound(self, pointer: &str, value: Value) -> Self {
        self.policy("entra-inbound", pointer, value)
    }

    /// Sets a member of the outbound policy, by JSON pointer; a missing last member is added.
    #[must_use]
    pub fn outbound(self, pointer: &str, value: Value) -> Self {
        self.policy("entra-outbound", pointer, value)
    }

    fn policy(mut self, filter: &str, pointer: &str, value: Value) -> Self {
        set_member(self.config.policy_mut(filter), pointer, value);
        self
    }

    /// Sets a member of the broker's configuration, by JSON pointer.
    #[must_use]
    pub fn broker(mut self, pointer: &str, value: Value) -> Self {
        self.broker_changes.push((pointer.to_owned(), value));
        self
    }

    /// Has tokens asked for as ones that their resource can refuse at any moment.
    #[must_use]
    pub fn capable(self) -> Self {
        self.broker("/identities/default/client_capabilities", json!(["cp1"]))
    }

    /// Sets how Graph proves to be Graph.
    #[must_use]
    pub fn graph_proof(mut self, proof: GraphProof) -> Self {
        self.graph_proof = proof;
        self
    }

    /// Prepares the fake Entra before the broker asks it for anything.
    #[must_use]
    pub fn entra(mut self, prepare: impl FnOnce(&FakeEntra) + Send + 'static) -> Self {
        self.prepare_entra = Box::new(prepare);
        self
    }

    /// Starts everything.
    pub async fn start(self) -> Stack {
        let mut config = self.config;
        let directory = own_directory();
        let cluster = Cluster::sample();
        let known = world::extend(sample::directory(&cluster));
        let entra = FakeEntra::start(fake_entra::Config::new(known));
        (self.prepare_entra)(&entra);
        let token_file = directory.path().join("service-account-token");
        std::fs::write(&token_file, service_account_token(&cluster))
            .expect("a file for the federated token");
        let application = Upstream::start().await;
        let graph = match self.graph_proof {
            GraphProof::Trusted => {
                Upstream::start_tls(entra.tls_server("graph.microsoft.com")).await
            }
            GraphProof::SelfSigned => Upstream::start_self_signed("graph.microsoft.com").await,
            GraphProof::None => Upstream::start().await,
        };

        let identity = BrokerIdentity {
            tenant: sample::TENANT.to_owned(),
            client_id: sample::WORKLOAD.to_owned(),
            token_file,
            scope: world::GRAPH_SCOPE.to_owned(),
        };
        let mut broker_settings = BrokerSettings::new(directory.path(), &identity, &entra);
        for (pointer, value) in self.broker_changes {
            set_member(broker_settings.config_mut(), &pointer, value);
        }
        substitute_module(&mut config, self.module);
        config.broker_socket(&broker_settings.socket);
        config.upstream("application", application.address);
        config.upstream("graph", graph.address);
        match self.graph_proof {
            GraphProof::None => config.without_tls("graph"),
            _ => config.trusted_ca("graph", entra.ca_file()),
        }
        let claim = self.shipped_ports.then(ports::claim_shipped).flatten();
        for listener in ["admin", "inbound", "outbound"] {
            let port = config.port(listener);
            let port = match config.is_pushable() && listener != "admin" {
                // A listener that is pushed anew must be on the port that it had.
                true => ports::free(),
                false if claim.is_some() && ports::is_free(port) => port,
                false => 0,
            };
            config.listen(listener, port);
        }
        let broker = match self.with_broker {
            true => Some(Broker::start(&broker_settings).await),
            false => None,
        };
        let binary = envoy::binary(self.envoy_variable);
        let envoy = Envoy::start(&binary, directory.path(), &config, self.concurrency).await;
        Stack {
            envoy,
            entra,
            application,
            graph,
            config,
            broker,
            broker_settings,
            directory,
            _ports: claim,
        }
    }

    /// Runs Envoy with this configuration, which it must refuse; gives its log.
    pub async fn refused(self) -> String {
        let binary = envoy::binary(self.envoy_variable);
        let mut config = self.config;
        substitute_module(&mut config, self.module);
        for listener in ["admin", "inbound", "outbound"] {
            config.listen(listener, 0);
        }
        let directory = own_directory();
        Envoy::refused(&binary, directory.path(), &config).await
    }
}

/// The projected token that the broker presents as its federated assertion.
fn service_account_token(cluster: &Cluster) -> String {
    let audience = Cloud::Public.exchange_audience();
    cluster.token(sample::WORKLOAD_SUBJECT, audience, unix_now(), 3600)
}

fn substitute_module(config: &mut EnvoyConfig, module: Option<PathBuf>) {
    config.module(&module.unwrap_or_else(|| envoy::from_environment("ENTRA_FILTER_WASM")));
}

/// Sets a member by JSON pointer; a missing last member is added.
fn set_member(document: &mut Value, pointer: &str, value: Value) {
    let (parent, member) = pointer.rsplit_once('/').expect("a JSON pointer");
    let parent = document.pointer_mut(parent);
    parent.unwrap_or_else(|| panic!("nothing at {pointer}"))[member] = value;
}
