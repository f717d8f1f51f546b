//! A small company to begin with: what the demo, the standalone program and most tests use.

use serde_json::json;
use tokens::SigningKey;

use super::{
    claims::User,
    cloud::Cloud,
    directory::{Application, Directory, ExternalIssuer, Tenant, TokenVersion},
};

/// Contoso's tenant.
pub const TENANT: &str = "8f2c3a6e-5b1d-4c47-9c0a-2d7e5f90b1c3";
/// The orders API: version 2.0 tokens, `api://orders`.
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
/// The cluster's issuer of service account tokens.
pub const CLUSTER_ISSUER: &str = "https://westeurope.oic.prod-aks.azure.com/contoso/shop/";

/// End of the sample's secrets: the last second of 2049.
const FAR: u64 = 2_524_607_999;

/// The directory of the sample company.
pub fn directory(cluster: &Cluster) -> Directory {
    Directory::default()
        .tenant(Tenant::new(TENANT, "Contoso").domain("contoso.onmicrosoft.com"))
        .application(
            Application::new(TENANT, ORDERS_API, "Orders")
                .app_id_uri(ORDERS_URI)
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
                .continuous_access(),
        )
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
        .issuer(&cluster.issuer, &[&cluster.key])
}

/// The directory of the sample company in a real cluster: its issuer instead of the sample's, and
/// two workloads, each with the role on Graph and the service account of its own.
pub fn directory_of_cluster(issuer: ExternalIssuer, subjects: [&str; 2]) -> Directory {
    let audience = Cloud::Public.exchange_audience();
    let mut directory = directory(&Cluster::sample());
    directory.issuers.clear();
    let [workload, billing] = subjects;
    let known = directory.application_mut(TENANT, WORKLOAD).expect("the sample's workload");
    known.federated.clear();
    *known = known.clone().federated(&issuer.issuer, workload, audience);
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
        Self::new(CLUSTER_ISSUER, 0x00c1_0573)
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
