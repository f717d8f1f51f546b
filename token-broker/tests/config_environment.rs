//! The environment alone as the configuration.

use std::path::PathBuf;

use policy::cloud::Cloud;
use token_broker::config::{
    Api, Credential, DEFAULT_SOCKET, SecretLocation, Source, from_environment,
};

use crate::support::{CLIENT, SECRET, TENANT, environment};

fn check(changes: &[(&str, &str)], expected: &[(&str, &str)]) {
    let errors = from_environment(&environment(changes)).expect_err("it is refused");
    let paths: Vec<&str> = errors.iter().map(|error| error.path.as_str()).collect();
    assert_eq!(paths, expected.iter().map(|(path, _)| *path).collect::<Vec<_>>(), "{errors:?}");
    for (error, (_, words)) in errors.iter().zip(expected) {
        assert!(error.message.contains(words), "{error}");
        assert!(!error.message.contains(SECRET), "{error}");
    }
}

#[test]
fn the_webhooks_variables_and_scopes_are_a_configuration() {
    let config = from_environment(&environment(&[
        ("AZURE_CLIENT_SECRET", ""),
        ("AZURE_FEDERATED_TOKEN_FILE", "/var/run/secrets/azure/wi/token/azure-identity-token"),
        ("AZURE_AUTHORITY_HOST", "https://login.microsoftonline.us/"),
        ("AZURE_CLIENT_ID", "3F1B5B1E-0d2c-4a39-9a63-3f6c2c7a9d10"),
        ("ENTRA_SCOPES", "  https://graph.microsoft.us/.default  api://orders/.default "),
    ]))
    .unwrap();
    let identity = &config.identities["default"];
    let Source::Application { application, credentials } = &identity.source else {
        panic!("{identity:?}")
    };
    let [Credential::ServiceAccount(token_file)] = &credentials[..] else { panic!("{identity:?}") };
    assert_eq!(application.cloud, Cloud::UsGovernment);
    assert_eq!((application.tenant.as_str(), application.client_id.as_str()), (TENANT, CLIENT));
    assert!(token_file.ends_with("azure-identity-token"));
    assert_eq!(identity.scopes, ["https://graph.microsoft.us/.default", "api://orders/.default"]);
    let issuer = format!("https://login.microsoftonline.us/{TENANT}/v2.0");
    assert_eq!(config.authorities[0].issuer(), issuer);
    let own = rustix::process::geteuid().as_raw();
    let api = Api::Unix { path: PathBuf::from(DEFAULT_SOCKET), allow_uids: vec![own, 1337] };
    assert_eq!(config.listen.api, api);
    assert_eq!(config.listen.admin, "127.0.0.1:7172".parse().unwrap());
}

#[test]
fn a_secret_in_the_environment_is_taken_and_not_shown() {
    let config = from_environment(&environment(&[])).unwrap();
    let Source::Application { application, credentials } = &config.identities["default"].source
    else {
        panic!("{config:?}")
    };
    let [Credential::Secret(SecretLocation::Here(secret))] = &credentials[..] else {
        panic!("{config:?}")
    };
    assert_eq!(secret.expose(), SECRET);
    assert_eq!(application.cloud, Cloud::Public);
    assert!(!format!("{config:?}").contains(SECRET));
}

#[test]
fn every_error_is_told_at_once() {
    check(
        &[
            ("AZURE_TENANT_ID", "contoso.com"),
            ("AZURE_CLIENT_ID", ""),
            ("AZURE_CLIENT_SECRET", ""),
            ("AZURE_AUTHORITY_HOST", "https://login.evil.example/"),
            ("ENTRA_SCOPES", " "),
            ("HTTPS_PROXY", "socks5://p"),
        ],
        &[
            ("HTTPS_PROXY", "http://host:port"),
            ("AZURE_AUTHORITY_HOST", "https://login.microsoftonline.com/"),
            ("AZURE_TENANT_ID", "GUID"),
            ("AZURE_CLIENT_ID", "missing"),
            ("AZURE_FEDERATED_TOKEN_FILE", "exactly one of"),
            ("ENTRA_SCOPES", "separated by spaces"),
        ],
    );
}

#[test]
fn two_credentials_are_one_too_many() {
    let both = [("AZURE_FEDERATED_TOKEN_FILE", "/t")];
    check(&both, &[("AZURE_FEDERATED_TOKEN_FILE", "exactly one of")]);
}

#[test]
fn only_the_known_clouds_are_authority_hosts() {
    let cloud = |host: &str| {
        let config = from_environment(&environment(&[("AZURE_AUTHORITY_HOST", host)])).ok()?;
        Some(config.authorities[0].cloud)
    };
    assert_eq!(cloud(""), Some(Cloud::Public));
    assert_eq!(cloud("https://login.microsoftonline.com"), Some(Cloud::Public));
    assert_eq!(cloud("https://login.microsoftonline.com/"), Some(Cloud::Public));
    assert_eq!(cloud("https://login.partner.microsoftonline.cn/"), Some(Cloud::China));
    assert_eq!(cloud("https://login.chinacloudapi.cn/"), Some(Cloud::China));
    for refused in [
        "login.microsoftonline.com",
        "http://login.microsoftonline.com/",
        "https://login.microsoftonline.com:8443/",
        "https://login.microsoftonline.com/tenant",
        "https://login.microsoftonline.com//",
        "https://user@login.microsoftonline.com/",
        "https://login.microsoftonline.com.evil.example/",
        "https://127.0.0.1/",
    ] {
        assert_eq!(cloud(refused), None, "{refused}");
    }
}

#[test]
fn scopes_of_the_environment_have_the_same_form() {
    let scopes = [("ENTRA_SCOPES", "https://graph.microsoft.com/User.Read")];
    check(&scopes, &[("ENTRA_SCOPES", "`<resource>/.default`")]);
}
