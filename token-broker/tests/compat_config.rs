//! The compat listener's configuration: what is wrong is told, and nothing is widened unasked.

use std::net::SocketAddr;

use token_broker::config::{Compat, KnownBy, TokenOf};

use crate::{
    compat_imds::{ALL, config, text},
    support::CLIENT,
};

/// The paths of the errors, each with words of its message.
fn check(text: &str, expected: &[(&str, &str)]) {
    let mut errors = config(text).expect_err(text);
    errors.sort_by(|one, other| one.path.cmp(&other.path));
    let mut expected = expected.to_vec();
    expected.sort_unstable();
    assert_eq!(errors.len(), expected.len(), "{errors:#?}");
    for (error, (path, words)) in errors.iter().zip(expected) {
        assert_eq!(error.path, path);
        assert!(error.message.contains(words), "{error}");
    }
}

fn with(endpoint: &str) -> String {
    text("/s", endpoint)
}

#[test]
fn a_good_configuration_is_read_in_full() {
    let read = config(&with(&format!("{ALL}, identity_header_file: /h"))).unwrap();
    assert_eq!(read.listen.compat, Some(SocketAddr::from(([127, 0, 0, 1], 7173))));
    let endpoint = read.compat.managed_identity.unwrap();
    assert_eq!(endpoint.default.as_deref(), Some("default"));
    assert_eq!(endpoint.identity_header_file, Some("/h".into()));
    assert_eq!(endpoint.identities.len(), 5);
    assert_eq!(endpoint.identities[0].known_by, KnownBy::ClientId(CLIENT.to_owned()));
    assert_eq!(endpoint.identities[4].known_by, KnownBy::Nothing);
}

#[test]
fn b01_without_a_word_about_it_there_is_no_compat_listener() {
    let all = with(ALL);
    let (without, _) = all.split_once("listen:").unwrap();
    let read = config(without).unwrap();
    assert_eq!((read.listen.compat, read.compat), (None, Compat::default()));
}

#[test]
fn b01_the_compat_listeners_trust_is_never_widened_unasked() {
    let all = with(ALL);
    let address = "listen.compat.address";
    check(
        &all.replace("trust_whole_pod: true", ""),
        &[("listen.compat.trust_whole_pod", "every process")],
    );
    check(
        &all.replace("trust_whole_pod: true", "trust_whole_pod: false"),
        &[("listen.compat.trust_whole_pod", "every process")],
    );
    check(&all.replace("127.0.0.1:7173", "0.0.0.0:7173"), &[(address, "loopback")]);
    check(&all.replace("127.0.0.1:7173", "'[::]:7173'"), &[(address, "loopback")]);
    check(&all.replace("127.0.0.1:7173", "7173"), &[(address, "invalid type")]);
    check(&all.replace("127.0.0.1:7173", "localhost:7173"), &[(address, "address and port")]);
    // The admin listener's.
    check(&all.replace("127.0.0.1:7173", "127.0.0.1:7172"), &[(address, "of its own")]);
    let api = "listen:\n  api: {tcp: '127.0.0.1:7173', trust_whole_pod: true}";
    check(&all.replace("listen:", api), &[(address, "of its own")]);
}

#[test]
fn b05_only_identities_that_can_be_told_apart_are_offered() {
    let identities = "listen.compat.managed_identity.identities";
    let at = |index: usize| format!("{identities}[{index}]");
    check(
        &with("default: default"),
        &[
            (identities, "at least one"),
            ("listen.compat.managed_identity.default", "one of `identities`"),
        ],
    );
    check(&with("identities: []"), &[(identities, "at least one")]);
    check(&with("identities: [default, other]"), &[(&at(1), "no such identity")]);
    check(&with("identities: [default, default]"), &[(&at(1), "twice")]);
    check(&with("identities: [default, null]"), &[(&at(1), "missing")]);
    check(
        &with("identities: [batch], default: default"),
        &[("listen.compat.managed_identity.default", "one of `identities`")],
    );
    check(
        &with("identities: [batch], identity_header_file: ''"),
        &[("listen.compat.managed_identity.identity_header_file", "path of a file")],
    );
    check(
        &with("identities: [batch], imds: false"),
        &[("listen.compat.managed_identity.identity_header_file", "no other form")],
    );
    let twins = with("identities: [default, hidden]").replace(
        "client_id: 72f988bf-86f1-41af-91ab-2d7cd011db47",
        &format!("client_id: {CLIENT}"),
    );
    check(&twins, &[(&at(1), "has the id of `default`")]);
    // What is wrong with the identity itself is said once.
    let wrong = with("identities: [machine]").replace("system_assigned: true", "");
    check(&wrong, &[("identities.machine.managed_identity", "exactly one")]);
}

fn with_sidecar(sidecar: &str) -> String {
    with(ALL).replace("identities:\n  default", "authorities: [{cloud: public, tenants: [72f988bf-86f1-41af-91ab-2d7cd011db47]}]\nidentities:\n  default")
        .replace(&format!("managed_identity: {{{ALL}}}"), &format!("auth_sidecar: {{{sidecar}}}"))
}

const CALLERS: &str = "tenants: [72f988bf-86f1-41af-91ab-2d7cd011db47], audiences: ['api://a', b]";
const GRAPH: &str = "identity: default, scope: https://graph.microsoft.com/.default";

#[test]
fn the_auth_sidecars_configuration_is_read_in_full() {
    let text = with_sidecar(&format!(
        "callers: {{{CALLERS}, scopes: [s]}}, \
         apis: {{graph: {{{GRAPH}}}, app: {{{GRAPH}, request_app_token: true}}}}"
    ));
    let sidecar = config(&text).unwrap().compat.auth_sidecar.unwrap();
    let callers = sidecar.callers.unwrap();
    assert_eq!(
        (callers.accepted.audiences.0, callers.scopes),
        (vec!["api://a".into(), "b".into()], vec!["s".to_owned()])
    );
    let tokens: Vec<_> =
        sidecar.apis.iter().map(|(name, api)| (name.as_str(), api.token)).collect();
    assert_eq!(tokens, [("app", TokenOf::Application), ("graph", TokenOf::Caller)]);
    assert_eq!(sidecar.apis["app"].tenant.as_deref(), Some("72f988bf-86f1-41af-91ab-2d7cd011db47"));
}

#[test]
fn b05_the_auth_sidecar_offers_what_its_configuration_can_keep() {
    let at = |member: &str| format!("listen.compat.auth_sidecar{member}");
    let api = |api: &str| with_sidecar(&format!("apis: {{a: {{{api}}}}}"));
    let callers = |callers: &str| with_sidecar(&format!("callers: {{{callers}}}"));
    check(&with_sidecar(""), &[(&at(""), "serves nothing")]);
    check(
        &with_sidecar("apis: {'a/b': {}}"),
        &[
            (&at(".apis.a/b"), "letters"),
            (&at(".apis.a/b.identity"), "missing"),
            (&at(".apis.a/b.scope"), "missing"),
        ],
    );
    check(&api("identity: default, scope: a/b"), &[(&at(".apis.a.scope"), "not among the scopes")]);
    check(&api("identity: none, scope: a/.default"), &[(&at(".apis.a.identity"), "no such")]);
    check(
        &api("identity: default, scope: a/.default, request_app_token: true"),
        &[(&at(".apis.a.scope"), "not among the scopes")],
    );
    // Nobody could ever be given a header for it.
    let delegated = "scopes: [], delegated_scopes: [api://a/read]";
    let identity = format!(
        "identities:\n  users: {{client_secret: {{tenant: 72f988bf-86f1-41af-91ab-2d7cd011db47, \
         client_id: {CLIENT}, file: /s}}, {delegated}}}"
    );
    let of_users = "apis: {a: {identity: users, scope: api://a/read}}";
    let users =
        |more: &str| with_sidecar(&format!("{more}{of_users}")).replace("identities:", &identity);
    check(&users(""), &[(&at(".apis.a.scope"), "without `callers` there are none")]);
    config(&users(&format!("callers: {{{CALLERS}}}, "))).unwrap();
    check(&users("callers: 1, "), &[(&at(".callers"), "invalid type")]);
    check(
        &callers(""),
        &[(&at(".callers.audiences"), "missing"), (&at(".callers.tenants"), "missing")],
    );
    check(
        &callers("tenants: [common], audiences: ['a b'], scopes: []"),
        &[
            (&at(".callers.audiences[0]"), "client id"),
            (&at(".callers.scopes"), "a scope"),
            (&at(".callers.tenants[0]"), "lower-case GUIDs"),
        ],
    );
    let keys = "no entry of `authorities`";
    check(
        &callers("tenants: [organizations], audiences: [a]"),
        &[(&at(".callers.tenants[0]"), keys)],
    );
    check(&callers(&format!("{CALLERS}, cloud: china")), &[(&at(".callers.tenants[0]"), keys)]);
    let any = callers(CALLERS).replace(
        "cloud: public, tenants: [72f988bf-86f1-41af-91ab-2d7cd011db47]",
        "cloud: public, tenants: [organizations]",
    );
    config(&any).unwrap();
}
