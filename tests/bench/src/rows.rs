//! The rows of the table: what is measured, against what, and what must come back.

/// One filter on one listener, under one kind of request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Row {
    /// Its name in the table and the JSON.
    pub(crate) name: &'static str,
    /// The listener that it calls.
    pub(crate) listener: &'static str,
    /// The row whose CPU is taken off; its own name for a baseline.
    pub(crate) baseline: &'static str,
    /// What the requests carry.
    pub(crate) requests: Requests,
    /// The status that each answer must have.
    pub(crate) status: u16,
}

/// What the requests of a row carry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Requests {
    /// A caller's token, the same each time.
    OneToken,
    /// A caller's token that this listener has not seen for as long as any cache holds.
    FreshTokens,
    /// No token: the application's own call to an API.
    NoToken,
}

const fn inbound(name: &'static str, listener: &'static str, requests: Requests) -> Row {
    Row { name, listener, baseline: "no_filter", requests, status: 200 }
}

/// The upstream says 200 only to a request with a token.
const fn outbound(name: &'static str, status: u16) -> Row {
    Row {
        name,
        listener: name,
        baseline: "outbound_no_filter",
        requests: Requests::NoToken,
        status,
    }
}

/// Every row. Inbound listeners answer by themselves; outbound rows have the filter in the
/// upstream position, on the way to an upstream over TLS, and baselines of their own for that.
pub(crate) const ROWS: [Row; 10] = [
    inbound("no_filter", "no_filter", Requests::OneToken),
    inbound("empty_wasm", "empty_wasm", Requests::OneToken),
    inbound("jwt_authn", "jwt_authn", Requests::FreshTokens),
    inbound("jwt_authn_cached", "jwt_authn_cached", Requests::OneToken),
    inbound("inbound_hit", "inbound_hit", Requests::OneToken),
    inbound("inbound_first", "inbound_first", Requests::FreshTokens),
    outbound("outbound_no_filter", 202),
    outbound("outbound_empty_wasm", 202),
    outbound("credential_injector", 200),
    outbound("outbound_hit", 200),
];

/// Rows whose filter must answer 401 when no token comes: proof that it is at work.
pub(crate) const GUARDED: [&str; 4] =
    ["jwt_authn", "jwt_authn_cached", "inbound_hit", "inbound_first"];

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

const fn ratio(
    name: &'static str,
    of: &'static str,
    to: &'static str,
    budget: Option<Budget>,
) -> Ratio {
    Ratio { name, of, to, budget }
}

/// Every ratio.
pub(crate) const RATIOS: [Ratio; 6] = [
    ratio(
        "inbound_hit_vs_empty_wasm",
        "inbound_hit",
        "empty_wasm",
        Some(Budget { must: 4.0, aim: 2.5 }),
    ),
    ratio(
        "inbound_hit_vs_jwt_authn",
        "inbound_hit",
        "jwt_authn",
        Some(Budget { must: 0.35, aim: 0.2 }),
    ),
    ratio("inbound_hit_vs_jwt_authn_cached", "inbound_hit", "jwt_authn_cached", None),
    ratio(
        "inbound_first_vs_jwt_authn",
        "inbound_first",
        "jwt_authn",
        Some(Budget { must: 1.0, aim: 0.8 }),
    ),
    ratio(
        "outbound_hit_vs_empty_wasm",
        "outbound_hit",
        "outbound_empty_wasm",
        Some(Budget { must: 3.5, aim: 2.0 }),
    ),
    ratio("outbound_hit_vs_credential_injector", "outbound_hit", "credential_injector", None),
];
