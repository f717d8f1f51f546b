//! The rows of the tables: what is measured, against what, and what must come back.

/// One filter on one listener, under one kind of request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Row {
    /// Its name in the table and the JSON, and its listener's.
    pub(crate) name: &'static str,
    /// What stands on the listener, or on its cluster.
    pub(crate) filter: Filter,
    /// The row whose CPU is taken off; its own name for a baseline.
    pub(crate) baseline: &'static str,
    /// What the requests carry.
    pub(crate) requests: Requests,
    /// The status that each answer must have.
    pub(crate) status: u16,
}

/// The filter under measurement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Filter {
    /// None: a baseline.
    None,
    /// A wasm module that does nothing.
    EmptyWasm,
    /// Envoy's JWT filter.
    JwtAuthn,
    /// Envoy's JWT filter with its cache.
    JwtAuthnCached,
    /// Envoy's credential injector.
    CredentialInjector,
    /// Ours, as the demo has it.
    Ours,
    /// Ours, with a rule that asks a user's token for everything.
    OursWithEveryRequirement,
    /// Ours, with as many rules as this, of which the last one fits.
    OursWithRules(usize),
    /// Ours, with as many tenants as this, of which the last one is the caller's.
    OursWithTenants(usize),
    /// Whatever a pod's sidecar has, in a mesh.
    Sidecar(Sidecar),
}

/// What is in force on a pod of a mesh, whose Envoy is Istio's sidecar.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sidecar {
    /// No policy: a baseline.
    IstioAlone,
    /// Istio's RequestAuthentication, and an AuthorizationPolicy that means what our rules mean.
    RequestAuthentication,
    /// Our chart with its defaults.
    Ours,
    /// Our chart without the objects that close what is around the filter.
    OursClosedOff,
}

/// What the requests of a row carry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Requests {
    /// A caller's token, the same each time.
    OneToken,
    /// As many callers' tokens in turn as our decision cache holds.
    LiveTokens,
    /// A caller's token that this listener has not seen for as long as any cache holds.
    FreshTokens,
    /// No token: the application's own call to an API.
    NoToken,
}

impl Row {
    /// Whether the filter must answer 401 where no token comes: proof that it is at work.
    pub(crate) fn is_guarded(&self) -> bool {
        self.requests != Requests::NoToken
            && !matches!(self.filter, Filter::None | Filter::EmptyWasm)
    }

    /// What is in force on its pod, where it is a row of the mesh.
    pub(crate) fn sidecar(&self) -> Option<Sidecar> {
        match self.filter {
            Filter::Sidecar(sidecar) => Some(sidecar),
            _ => None,
        }
    }

    /// Whether Envoy passes its requests on, and does not answer by itself.
    pub(crate) fn has_an_upstream(&self) -> bool {
        self.requests == Requests::NoToken || self.sidecar().is_some()
    }
}

const fn inbound(name: &'static str, filter: Filter, requests: Requests) -> Row {
    Row { name, filter, baseline: "no_filter", requests, status: 200 }
}

/// The upstream says 200 only to a request with a token.
const fn outbound(name: &'static str, filter: Filter, status: u16) -> Row {
    Row { name, filter, baseline: "outbound_no_filter", requests: Requests::NoToken, status }
}

const fn mesh(name: &'static str, sidecar: Sidecar) -> Row {
    Row {
        baseline: "mesh_istio_alone",
        ..inbound(name, Filter::Sidecar(sidecar), Requests::OneToken)
    }
}

/// The main table. Inbound listeners answer by themselves; outbound rows have the filter in the
/// upstream position, on the way to an upstream over TLS, and baselines of their own for that.
pub(crate) const ROWS: [Row; 11] = [
    inbound("no_filter", Filter::None, Requests::OneToken),
    inbound("empty_wasm", Filter::EmptyWasm, Requests::OneToken),
    inbound("jwt_authn", Filter::JwtAuthn, Requests::FreshTokens),
    inbound("jwt_authn_cached", Filter::JwtAuthnCached, Requests::OneToken),
    inbound("inbound_hit", Filter::Ours, Requests::OneToken),
    inbound("every_requirement", Filter::OursWithEveryRequirement, Requests::OneToken),
    inbound("inbound_first", Filter::Ours, Requests::FreshTokens),
    outbound("outbound_no_filter", Filter::None, 202),
    outbound("outbound_empty_wasm", Filter::EmptyWasm, 202),
    outbound("credential_injector", Filter::CredentialInjector, 200),
    outbound("outbound_hit", Filter::Ours, 200),
];

/// The rows of the main table that are pods of a mesh: each request goes through the pod's sidecar
/// to an application that answers as little as it can.
pub(crate) const MESH: [Row; 4] = [
    mesh("mesh_istio_alone", Sidecar::IstioAlone),
    mesh("mesh_request_auth", Sidecar::RequestAuthentication),
    mesh("mesh_inbound_hit", Sidecar::Ours),
    mesh("mesh_inbound_hit_closed_off", Sidecar::OursClosedOff),
];

/// The rows that show whether a cached decision costs the same however much there is to know.
pub(crate) const FLATNESS: [Row; 6] = [
    inbound("no_filter", Filter::None, Requests::OneToken),
    inbound("rules_1", Filter::OursWithRules(1), Requests::OneToken),
    inbound("rules_1000", Filter::OursWithRules(1_000), Requests::OneToken),
    inbound("tenants_10000", Filter::OursWithTenants(10_000), Requests::OneToken),
    inbound("tokens_1", Filter::Ours, Requests::OneToken),
    inbound("tokens_2500", Filter::Ours, Requests::LiveTokens),
];

/// Ratio of added CPU, under its name in the JSON.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Ratio {
    /// Its key in the JSON.
    pub(crate) name: &'static str,
    /// The row above the line.
    pub(crate) of: &'static str,
    /// The row below the line.
    pub(crate) to: &'static str,
    /// What it must reach and what it aims at, where there is a budget.
    pub(crate) budget: Option<Budget>,
}

/// The most that a ratio may be.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Budget {
    /// Above this the filter is too slow to ship.
    pub(crate) must: f64,
    /// What we aim at.
    pub(crate) aim: f64,
}

const fn ratio(name: &'static str, of: &'static str, to: &'static str) -> Ratio {
    Ratio { name, of, to, budget: None }
}

const fn budget(ratio: Ratio, must: f64, aim: f64) -> Ratio {
    Ratio { budget: Some(Budget { must, aim }), ..ratio }
}

/// The ratios of the main table.
pub(crate) const RATIOS: [Ratio; 7] = [
    budget(ratio("inbound_hit_vs_empty_wasm", "inbound_hit", "empty_wasm"), 4.0, 2.5),
    budget(ratio("inbound_hit_vs_jwt_authn", "inbound_hit", "jwt_authn"), 0.35, 0.2),
    ratio("inbound_hit_vs_jwt_authn_cached", "inbound_hit", "jwt_authn_cached"),
    budget(ratio("every_requirement_vs_hit", "every_requirement", "inbound_hit"), 1.2, 1.1),
    budget(ratio("inbound_first_vs_jwt_authn", "inbound_first", "jwt_authn"), 1.0, 0.8),
    budget(ratio("outbound_hit_vs_empty_wasm", "outbound_hit", "outbound_empty_wasm"), 3.5, 2.0),
    ratio("outbound_hit_vs_credential_injector", "outbound_hit", "credential_injector"),
];

/// The ratios of the rows of the mesh. RequestAuthentication is Envoy's JWT filter without its
/// cache, and so is its budget.
pub(crate) const MESH_RATIOS: [Ratio; 2] = [
    budget(ratio("mesh_hit_vs_request_auth", "mesh_inbound_hit", "mesh_request_auth"), 0.35, 0.2),
    ratio(
        "mesh_hit_closed_off_vs_request_auth",
        "mesh_inbound_hit_closed_off",
        "mesh_request_auth",
    ),
];

/// The ratios of the second table: flat means within 15 %.
pub(crate) const FLATNESS_RATIOS: [Ratio; 3] = [
    budget(ratio("rules_1000_vs_1", "rules_1000", "rules_1"), 1.15, 1.15),
    budget(ratio("tenants_10000_vs_1", "tenants_10000", "tokens_1"), 1.15, 1.15),
    budget(ratio("tokens_2500_vs_1", "tokens_2500", "tokens_1"), 1.15, 1.15),
];
