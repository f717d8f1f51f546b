//! A small company to begin with: what the demo, the standalone program and most tests use.

use serde_json::json;
use tokens::SigningKey;

use super::{
    assertion::TOKEN_EXCHANGE,
    claims::User,
    client_certificate::ClientCertificate,
    cloud::Cloud,
    directory::{Application, Directory, ExternalIssuer, Tenant, TokenVersion},
    metadata_service::Machine,
};

/// Contoso's tenant.
pub const TENANT: &str = "8f2c3a6e-5b1d-4c47-9c0a-2d7e5f90b1c3";
/// The orders API: version 2.0 tokens, `api://orders`. Federated as [`WORKLOAD`] is, it may read
/// users' profiles in Graph on their behalf.
pub const ORDERS_API: &str = "3f1b5b1e-0d2c-4a39-9a63-3f6c2c7a9d10";
/// App ID URI of [`ORDERS_API`].
pub const ORDERS_URI: &str = "api://orders";
/// An older API: version 1.0 tokens, `https://stock.contoso.com`.
pub const STOCK_API: &str = "b7a51c86-6f6e-4f0e-8f5b-0a4c4b8d2e71";
/// App ID URI of [`STOCK_API`].
pub const STOCK_URI: &str = "https://stock.contoso.com";
/// Microsoft Graph, the same in every tenant.
pub const GRAPH: &str = "00000003-0000-0000-c000-000000000000";
/// App ID URI of [`GRAPH`].
pub const GRAPH_URI: &str = "https://graph.microsoft.com";
/// A caller with a secret and the role `Orders.Read.All`.
pub const TILL: &str = "5c0f3f5d-7a3f-4a85-b0a9-6b1f0f0c9a42";
/// Secret of [`TILL`]; it has the characters that forms must escape.
pub const TILL_SECRET: &str = "Ti8Q~ll+secret/of&the=till%";
/// The workload that runs beside the sidecar: federated with Kubernetes, no secret.
pub const WORKLOAD: &str = "e2c9a6d4-11b5-4f5e-8f43-9d6f7b0a3c58";
/// Subject of the workload's service account.
pub const WORKLOAD_SUBJECT: &str = "system:serviceaccount:shop:orders";
/// Another workload of the cluster, with other rights: federated, no secret.
pub const BILLING: &str = "9d41c7b2-6c0e-4b7a-8e15-2f4a7d93c680";
/// Subject of [`BILLING`]'s service account.
pub const BILLING_SUBJECT: &str = "system:serviceaccount:shop:billing";
/// Bookkeeping: it has a certificate, and trusts the managed identity [`LEDGER_IDENTITY`].
pub const LEDGER: &str = "7b1f0e64-93a2-4d0f-8c56-0d6a3e9f5b27";
/// The managed identity of the machine itself.
pub const MACHINE_IDENTITY: &str = "1d9c5f2a-4e83-4b16-a7d0-85f36c2b9e41";
/// A managed identity that was given to the machine.
pub const LEDGER_IDENTITY: &str = "c4e8b7d1-2f60-4a95-9b3e-6f10d8a5c273";
/// Azure resource id of [`LEDGER_IDENTITY`].
pub const LEDGER_IDENTITY_RESOURCE: &str = "/subscriptions/6f1e/resourcegroups/shop/providers/\
    Microsoft.ManagedIdentity/userAssignedIdentities/ledger";
/// The cluster's issuer of service account tokens.
pub const CLUSTER_ISSUER: &str = "https://westeurope.oic.prod-aks.azure.com/contoso/shop/";

/// One key for the cluster and the certificate: to make another takes every test program half a
/// second.
const CLUSTER_KEY_SEED: u64 = 0x00c1_0573;
/// End of the sample's secrets: the last second of 2049.
const FAR: u64 = 2_524_607_999;

/// The directory of the sample company.
pub fn directory(cluster: &Cluster) -> Directory {
    Directory::default()
        .tenant(Tenant::new(TENANT, "Contoso").domain("contoso.onmicrosoft.com"))
        .application(
            Application::new(TENANT, ORDERS_API, "Orders")
                .app_id_uri(ORDERS_URI)
                .federated(CLUSTER_ISSUER, WORKLOAD_SUBJECT, Cloud::Public.exchange_audience())
                .consent(GRAPH, "User.Read")
                .scope("Orders.Read")
                .scope("Orders.Pay")
                .optional_claim("acrs")
                .optional_claim("xms_cc"),
        )
        .application(
            Application::new(TENANT, STOCK_API, "Stock")
                .app_id_uri(STOCK_URI)
                .token_version(TokenVersion::V1)
                .without_idtyp(),
        )
        .application(
            Application::new(TENANT, GRAPH, "Microsoft Graph")
                .app_id_uri(GRAPH_URI)
                .token_version(TokenVersion::V1)
                .scope("User.Read")
                .scope("Mail.Read")
                .continuous_access(),
        )
        .application(
            Application::new(TENANT, TOKEN_EXCHANGE, "AAD Token Exchange")
                .app_id_uri(Cloud::Public.exchange_audience()),
        )
        .application(
            Application::new(TENANT, LEDGER, "Ledger")
                .certificate(&ledger_certificate().certificate)
                .federated(
                    &Cloud::Public.issuer_v2(TENANT),
                    &managed(LEDGER_IDENTITY, LEDGER_IDENTITY_RESOURCE).object_id,
                    Cloud::Public.exchange_audience(),
                )
                .role(ORDERS_API, "Orders.Read.All"),
        )
        .application(managed(MACHINE_IDENTITY, "/subscriptions/6f1e/machine"))
        .application(managed(LEDGER_IDENTITY, LEDGER_IDENTITY_RESOURCE))
        .application(
            Application::new(TENANT, TILL, "Till")
                .secret(TILL_SECRET, FAR)
                .role(ORDERS_API, "Orders.Read.All")
                .role(STOCK_API, "Stock.Read.All"),
        )
        .application(
            Application::new(TENANT, WORKLOAD, "Orders workload")
                .federated(CLUSTER_ISSUER, WORKLOAD_SUBJECT, Cloud::Public.exchange_audience())
                .role(GRAPH, "User.Read.All")
                .role(STOCK_API, "Stock.Read.All"),
        )
        .user(TENANT, ada())
        .issuer(&cluster.issuer, &[&cluster.key])
}

fn managed(client_id: &str, resource_id: &str) -> Application {
    Application::new(TENANT, client_id, "managed identity").managed_identity(resource_id)
}

/// The certificate of [`LEDGER`], with its key, good from 2020 on.
pub fn ledger_certificate() -> ClientCertificate {
    ClientCertificate::new(CLUSTER_KEY_SEED, "ledger.contoso.com", 1_577_836_800, FAR)
}

/// A machine with both managed identities.
pub fn machine() -> Machine {
    Machine {
        tenant: TENANT.to_owned(),
        system_assigned: Some(MACHINE_IDENTITY.to_owned()),
        user_assigned: vec![LEDGER_IDENTITY.to_owned()],
    }
}

/// The directory of the sample company in a real cluster: its issuer instead of the sample's, and
/// two workloads, each with the role on Graph and the service account of its own.
pub fn directory_of_cluster(issuer: ExternalIssuer, subjects: [&str; 2]) -> Directory {
    let audience = Cloud::Public.exchange_audience();
    let mut directory = directory(&Cluster::sample());
    directory.issuers.clear();
    let [workload, billing] = subjects;
    for of_the_workload in [WORKLOAD, ORDERS_API] {
        let known = directory.application_mut(TENANT, of_the_workload);
        let known = known.expect("an application of the sample");
        known.federated.clear();
        *known = known.clone().federated(&issuer.issuer, workload, audience);
    }
    let billing = Application::new(TENANT, BILLING, "Billing workload")
        .federated(&issuer.issuer, billing, audience)
        .role(GRAPH, "Mail.Send");
    directory.publish(issuer);
    directory.application(billing)
}

/// A user of the sample company.
pub fn ada() -> User {
    User {
        object_id: "4a9d8e1c-2f3b-4c5d-9e6f-7a8b9c0d1e2f".to_owned(),
        principal_name: "ada@contoso.onmicrosoft.com".to_owned(),
        name: "Ada Lovelace".to_owned(),
    }
}

/// A Kubernetes cluster as an issuer of service account tokens.
#[derive(Clone)]
pub struct Cluster {
    /// Its issuer identifier.
    pub issuer: String,
    /// Its signing key.
    pub key: SigningKey,
}

impl Cluster {
    /// The sample company's cluster.
    pub fn sample() -> Self {
        Self::new(CLUSTER_ISSUER, CLUSTER_KEY_SEED)
    }

    /// A cluster with the key of a seed.
    pub fn new(issuer: &str, seed: u64) -> Self {
        let key = SigningKey::new(seed, "cluster-signing-key", issuer);
        Self { issuer: issuer.to_owned(), key }
    }

    /// A projected service account token, written as the API server writes it.
    pub fn token(&self, subject: &str, audience: &str, now: u64, lifetime: u64) -> String {
        let mut parts = subject.split(':').skip(2);
        let (namespace, name) = (parts.next(), parts.next());
        self.key.token_with(
            &json!({"alg": "RS256", "kid": self.key.kid}),
            &json!({
                "aud": [audience],
                "exp": now.saturating_add(lifetime),
                "iat": now,
                "nbf": now,
                "iss": self.issuer,
                "jti": uuid::Uuid::new_v4().to_string(),
                "kubernetes.io": {
                    "namespace": namespace,
                    "serviceaccount": {"name": name},
                },
                "sub": subject,
            }),
        )
    }
}
