//! The configuration file: everything that is wrong is told at once, each with its path.

use std::{collections::BTreeMap, path::PathBuf};

use policy::cloud::Cloud;
use token_broker::{
    config::{Api, Config, Credential, DEFAULT_SOCKET, SecretLocation, Source, document::read},
    entra::claims::Capability,
};

use crate::support::{CLIENT, TENANT};

const GOOD: &str = "
authorities:
  - {cloud: public, tenants: [72f988bf-86f1-41af-91ab-2d7cd011db47, organizations]}
  - {cloud: china, tenants: [72f988bf-86f1-41af-91ab-2d7cd011db47]}
identities:
  default:
    client_secret:
      tenant: 72f988bf-86f1-41af-91ab-2d7cd011db47
      client_id: 3f1b5b1e-0d2c-4a39-9a63-3f6c2c7a9d10
      file: /run/secrets/app
    scopes: [https://graph.microsoft.com/.default]
    client_capabilities: [cp1]
  federated:
    workload_identity: {}
    scopes: []
listen:
  api: {unix: /run/x/b.sock, allow_uids: [1337]}
  admin: 0.0.0.0:7172
ca_file: /etc/ca.pem
";

fn variables() -> BTreeMap<&'static str, &'static str> {
    BTreeMap::from([
        ("AZURE_TENANT_ID", TENANT),
        ("AZURE_CLIENT_ID", CLIENT),
        ("AZURE_FEDERATED_TOKEN_FILE", "/var/run/token"),
        ("AZURE_AUTHORITY_HOST", "https://login.microsoftonline.us/"),
    ])
}

fn good(text: &str) -> Config {
    read(text, &variables()).unwrap_or_else(|errors| panic!("{errors:?}\n{text}"))
}

/// The paths of the errors, sorted; and each message holds its words.
fn check(text: &str, expected: &[(&str, &str)]) {
    let errors = read(text, &BTreeMap::new()).expect_err(text);
    let mut found: Vec<(&str, &str)> =
        errors.iter().map(|error| (error.path.as_str(), error.message.as_str())).collect();
    found.sort_unstable();
    let mut expected = expected.to_vec();
    expected.sort_unstable();
    assert_eq!(found.len(), expected.len(), "{found:#?}\n{text}");
    for ((path, message), (expected_path, words)) in found.iter().zip(&expected) {
        assert_eq!(path, expected_path, "{found:#?}");
        assert!(message.contains(words), "{path}: {message}: {words}");
    }
}

#[test]
fn a_good_file_is_read_in_full() {
    let config = good(GOOD);
    let issuers: Vec<String> = config.authorities.iter().map(|a| a.issuer()).collect();
    assert_eq!(
        issuers,
        [
            "https://login.microsoftonline.com/72f988bf-86f1-41af-91ab-2d7cd011db47/v2.0",
            "https://login.microsoftonline.com/{tenantid}/v2.0",
            "https://login.partner.microsoftonline.cn/72f988bf-86f1-41af-91ab-2d7cd011db47/v2.0",
        ]
    );
    let Source::Application { application, credentials } = &config.identities["default"].source
    else {
        panic!("{config:?}")
    };
    let [Credential::Secret(SecretLocation::File(file))] = &credentials[..] else {
        panic!("{config:?}")
    };
    // Neither says a cloud: that of the environment.
    assert_eq!(application.cloud, Cloud::UsGovernment);
    assert_eq!((application.tenant.as_str(), application.client_id.as_str()), (TENANT, CLIENT));
    assert_eq!(file, &PathBuf::from("/run/secrets/app"));
    let Source::Application { application, credentials } = &config.identities["federated"].source
    else {
        panic!("{config:?}")
    };
    let [Credential::ServiceAccount(token_file)] = &credentials[..] else { panic!("{config:?}") };
    assert_eq!(application.client_id, CLIENT);
    assert_eq!(token_file, &PathBuf::from("/var/run/token"));
    assert!(config.identities["federated"].scopes.is_empty());
    assert_eq!(config.identities["default"].capability, Capability::ClaimsChallenges);
    assert_eq!(config.identities["federated"].capability, Capability::None);
    let expected = Api::Unix { path: PathBuf::from("/run/x/b.sock"), allow_uids: vec![1337] };
    assert_eq!(config.listen.api, expected);
    assert_eq!(config.listen.admin, "0.0.0.0:7172".parse().unwrap());
    assert_eq!(config.ca_file, Some(PathBuf::from("/etc/ca.pem")));
}

#[test]
fn what_may_be_left_out_has_its_default() {
    let config = good("authorities: [{cloud: public, tenants: [organizations]}]");
    let own = rustix::process::geteuid().as_raw();
    let expected = Api::Unix { path: PathBuf::from(DEFAULT_SOCKET), allow_uids: vec![own, 1337] };
    assert_eq!(config.listen.api, expected);
    assert_eq!(config.listen.admin, "127.0.0.1:7172".parse().unwrap());
    assert_eq!(config.ca_file, None);
    let config = good(
        "{authorities: [{cloud: public, tenants: [organizations]}],
          listen: {api: {tcp: '127.0.0.1:7171', trust_whole_pod: true}}}",
    );
    assert_eq!(config.listen.api, Api::Tcp("127.0.0.1:7171".parse().unwrap()));
    let with_cloud = GOOD.replace("client_secret:", "client_secret:\n      cloud: china");
    let Source::Application { application, .. } = &good(&with_cloud).identities["default"].source
    else {
        panic!("{with_cloud}")
    };
    assert_eq!(application.cloud, Cloud::China);
}

#[test]
fn w07_a_capability_is_cp1_once_or_none() {
    let with = |list: &str| GOOD.replace("[cp1]", list);
    let path = |index: usize| format!("identities.default.client_capabilities[{index}]");
    let environment_free = |list: &str| {
        with(list).replace("workload_identity: {}", "client_secret: {tenant: 72f988bf-86f1-41af-91ab-2d7cd011db47, client_id: 3f1b5b1e-0d2c-4a39-9a63-3f6c2c7a9d10, file: /x}")
    };
    let config = good(&with("[]"));
    assert_eq!(config.identities["default"].capability, Capability::None);
    check(
        &environment_free("[cp1, cp2, CP1, '', cp1, null]"),
        &[
            (&path(1), "expected `cp1`"),
            (&path(2), "expected `cp1`"),
            (&path(3), "expected `cp1`"),
            (&path(4), "twice"),
            (&path(5), "missing"),
        ],
    );
    check(&environment_free("cp1"), &[("identities.default.client_capabilities", "sequence")]);
}

#[test]
fn w07_every_error_is_told_at_once_with_its_path() {
    check(
        "
authorities:
  - {cloud: Public, tenants: [common, 72F988BF-86f1-41af-91ab-2d7cd011db47]}
  - {tenants: []}
  - {cloud: public, tenants: [organizations, organizations], issuer: https://evil.example}
  - null
  - 7
identities:
  one: {scopes: [https://graph.microsoft.com/User.Read, 'a/.default b/.default', null, /.default]}
  two: {client_secret: {tenant: contoso.com, file: ''}, scopes: x}
  three: {workload_identity: {}, client_secret: {}, scopes: []}
  four: {workload_identity: {authority_host: https://evil.example}}
  five: {certificate: {}, scopes: []}
  'a b': {}
listen:
  api: {tcp: 0.0.0.0:80, allow_uids: [1]}
  admin: '7172'
  compat: {}
ca_file: [x]
keys: {}
",
        &[
            ("authorities[0].cloud", "`public`, `us-government`, `china`"),
            ("authorities[0].tenants[0]", "GUID in lower case, or `organizations`"),
            ("authorities[0].tenants[1]", "GUID in lower case"),
            ("authorities[1].cloud", "missing"),
            ("authorities[1].tenants", "missing"),
            ("authorities[2].issuer", "unknown field `issuer`"),
            ("authorities[2].tenants[1]", "twice"),
            ("authorities[3]", "missing"),
            ("authorities[4]", "invalid type: integer"),
            ("identities.one", "no source"),
            ("identities.one.scopes[0]", "`<resource>/.default`"),
            ("identities.one.scopes[1]", "one scope"),
            ("identities.one.scopes[2]", "missing"),
            ("identities.one.scopes[3]", "`<resource>/.default`"),
            ("identities.two.client_secret.tenant", "GUID"),
            ("identities.two.client_secret.client_id", "missing"),
            ("identities.two.client_secret.file", "missing"),
            ("identities.two.scopes", "invalid type: string"),
            ("identities.three", "expected one of"),
            ("identities.four.workload_identity.authority_host", "unknown field"),
            ("identities.four.workload_identity.tenant", "AZURE_TENANT_ID"),
            ("identities.four.workload_identity.client_id", "AZURE_CLIENT_ID"),
            ("identities.four.workload_identity.token_file", "AZURE_FEDERATED_TOKEN_FILE"),
            ("identities.four.scopes", "missing"),
            ("identities.five", "no source"),
            ("identities.five.certificate", "unknown field"),
            ("identities.a b", "letters, digits"),
            ("identities.a b", "no source"),
            ("identities.a b.scopes", "missing"),
            ("listen.api.allow_uids", "goes with `unix`"),
            ("listen.api.tcp", "loopback"),
            ("listen.api.trust_whole_pod", "expected `true`"),
            ("listen.admin", "address and port"),
            ("listen.compat", "serves nothing"),
            ("listen.compat.address", "missing"),
            ("listen.compat.trust_whole_pod", "expected `true`"),
            ("ca_file", "invalid type"),
            ("keys", "unknown field `keys`"),
        ],
    );
}

#[test]
fn b01_the_listeners_trust_is_never_widened_unasked() {
    let with = |listen: &str| {
        format!("{{authorities: [{{cloud: public, tenants: [organizations]}}], listen: {listen}}}")
    };
    let api = |api: &str| with(&format!("{{api: {api}}}"));
    let long = format!("{{unix: /{}}}", "x".repeat(107));
    check(&api("{tcp: '127.0.0.1:1'}"), &[("listen.api.trust_whole_pod", "every process")]);
    check(
        &api("{tcp: '127.0.0.1:1', trust_whole_pod: false}"),
        &[("listen.api.trust_whole_pod", "every process")],
    );
    // A template that leaves the value unset does not leave the restriction out with it.
    check(&api("{unix: /a, allow_uids: null}"), &[("listen.api.allow_uids", "is null")]);
    check(&api("{tcp: '[::]:1', trust_whole_pod: true}"), &[("listen.api.tcp", "loopback")]);
    check(&api("{unix: /a, tcp: '127.0.0.1:1'}"), &[("listen.api", "found both")]);
    check(&api("{}"), &[("listen.api", "missing")]);
    check(&api("{unix: a.sock}"), &[("listen.api.unix", "absolute")]);
    check(&api("{unix: /a/}"), &[("listen.api.unix", "absolute")]);
    check(&api(&long), &[("listen.api.unix", "at most 107")]);
    check(&api("{unix: /a, allow_uids: []}"), &[("listen.api.allow_uids", "nobody")]);
    check(&api("{unix: /a, allow_uids: [-1]}"), &[("listen.api.allow_uids[0]", "invalid value")]);
    check(
        &api("{unix: /a, trust_whole_pod: true}"),
        &[("listen.api.trust_whole_pod", "goes with `tcp`")],
    );
    check(
        &with("{api: {tcp: '127.0.0.1:1', trust_whole_pod: true}, admin: '127.0.0.1:1'}"),
        &[("listen.admin", "another address")],
    );
}

#[test]
fn w07_a_file_that_is_no_configuration_is_refused() {
    check("", &[("", "")]);
    check("{}", &[("", "nothing to do")]);
    check("- a", &[("[0]", "")]);
    check("a: b: c", &[("", "mapping values are not allowed")]);
    check("ca_file: a\nca_file: b", &[("", "duplicate entry")]);
    check("authorities: []\nidentities: {}", &[("", "nothing to do")]);
    check(&" ".repeat(1024 * 1024 + 1), &[("", "1 MiB")]);
    let bomb = "a: &a [x,x,x,x,x,x,x,x,x,x]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a,*a,*a]\n\
                c: &c [*b,*b,*b,*b,*b,*b,*b,*b,*b,*b]\nd: &d [*c,*c,*c,*c,*c,*c,*c,*c,*c,*c]\n\
                e: &e [*d,*d,*d,*d,*d,*d,*d,*d,*d,*d]\nf: [*e,*e,*e,*e,*e,*e,*e,*e,*e,*e]\n";
    check(bomb, &[("", "repetition limit exceeded")]);
}
