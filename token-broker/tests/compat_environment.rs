//! The environment keys of Microsoft's auth sidecar as the configuration.

use std::{collections::BTreeMap, path::PathBuf};

use policy::cloud::Cloud;
use token_broker::config::{
    Api, AssertionAlgorithm, Config, Credential, ManagedIdentity, SecretLocation, Source, TokenOf,
    from_environment,
};

use crate::support::{Broker, CLIENT, Entra, SECRET, TENANT, TOKEN, ask, from_pod};

/// What a pod has that uses the original, with some keys otherwise; an empty value takes one away.
fn keys<'a>(changes: &[(&'a str, &'a str)]) -> BTreeMap<&'a str, &'a str> {
    let mut keys = BTreeMap::from([
        ("AzureAd__Instance", "https://login.microsoftonline.com/"),
        ("AzureAd__TenantId", TENANT),
        ("AzureAd__ClientId", CLIENT),
        ("AzureAd__Scopes", "access_as_user another"),
        ("AzureAd__ClientCredentials__0__SourceType", "ClientSecret"),
        ("AzureAd__ClientCredentials__0__ClientSecret", SECRET),
        ("DownstreamApis__Graph__BaseUrl", "https://graph.microsoft.com/v1.0/"),
        ("DownstreamApis__Graph__Scopes__0", "https://graph.microsoft.com/.default"),
        ("DownstreamApis__me__Scopes", "User.Read"),
        ("DownstreamApis__me__RelativePath", "me"),
        ("DownstreamApis__vault__Scopes", "https://vault.azure.net/.default"),
        ("DownstreamApis__vault__RequestAppToken", "True"),
        ("Kestrel__Endpoints__Http__Url", "http://127.0.0.1:7173"),
        ("Sidecar__AllowOverrides__GetAuthorizationHeaderUnauthenticated", "false"),
        ("PATH", "/bin"),
    ]);
    keys.extend(changes.iter().copied());
    keys
}

fn good(changes: &[(&str, &str)]) -> Config {
    from_environment(&keys(changes)).unwrap()
}

/// The names in the errors, each with words of its message.
fn check(changes: &[(&str, &str)], expected: &[(&str, &str)]) {
    let mut errors = from_environment(&keys(changes)).expect_err("it is refused");
    errors.sort_by(|one, other| one.path.cmp(&other.path));
    let mut expected = expected.to_vec();
    expected.sort_unstable();
    assert_eq!(errors.len(), expected.len(), "{changes:?}: {errors:#?}");
    for (error, (path, words)) in errors.iter().zip(expected) {
        assert_eq!(error.path, path, "{errors:#?}");
        assert!(error.message.contains(words), "{error}");
        assert!(!error.message.contains(SECRET), "{error}");
    }
}

const CREDENTIAL: &str = "AzureAd__ClientCredentials__0__";

#[test]
fn the_originals_keys_are_a_configuration() {
    let config = good(&[]);
    assert_eq!(config.listen.api, Api::Off);
    assert_eq!(config.listen.compat, Some("127.0.0.1:7173".parse().unwrap()));
    assert_eq!(config.authorities.len(), 1);
    let identity = &config.identities["default"];
    let Source::Application { application, credentials } = &identity.source else {
        panic!("{identity:?}")
    };
    let [Credential::Secret(SecretLocation::Here(secret))] = credentials.as_slice() else {
        panic!("{identity:?}")
    };
    assert_eq!((application.tenant.as_str(), application.client_id.as_str()), (TENANT, CLIENT));
    assert_eq!(secret.expose(), SECRET);
    let expected = ["https://graph.microsoft.com/.default", "https://vault.azure.net/.default"];
    assert_eq!(identity.scopes, expected);
    let expected =
        ["https://graph.microsoft.com/.default", "https://graph.microsoft.com/User.Read"];
    assert_eq!(identity.delegated_scopes, expected);
    assert!(!format!("{config:?}").contains(SECRET));
    let sidecar = config.compat.auth_sidecar.unwrap();
    let apis: Vec<_> = sidecar
        .apis
        .iter()
        .map(|(name, api)| (name.as_str(), api.scope.as_str(), api.token))
        .collect();
    let expected = [
        ("Graph", "https://graph.microsoft.com/.default", TokenOf::Caller),
        ("me", "https://graph.microsoft.com/User.Read", TokenOf::Caller),
        ("vault", "https://vault.azure.net/.default", TokenOf::Application),
    ];
    assert_eq!(apis, expected);
    let callers = sidecar.callers.unwrap();
    assert_eq!(callers.accepted.audiences.0, [CLIENT.to_owned(), format!("api://{CLIENT}")]);
    assert_eq!(callers.scopes, ["access_as_user", "another"]);
}

#[test]
fn what_may_be_left_out_has_the_originals_default() {
    let config = good(&[
        ("Kestrel__Endpoints__Http__Url", ""),
        ("AzureAd__Scopes", ""),
        ("AzureAd__AllowWebApiToBeAuthorizedByACL", "true"),
    ]);
    assert_eq!(config.listen.compat, Some("127.0.0.1:5000".parse().unwrap()));
    assert!(config.compat.auth_sidecar.unwrap().callers.unwrap().scopes.is_empty());
    let config = good(&[
        ("Kestrel__Endpoints__Http__Url", ""),
        ("ASPNETCORE_URLS", "http://localhost:8080/"),
        ("AzureAd__Instance", "https://login.microsoftonline.us"),
        ("AzureAd__Audience", "api://orders"),
    ]);
    assert_eq!(config.listen.compat, Some("127.0.0.1:8080".parse().unwrap()));
    let callers = config.compat.auth_sidecar.unwrap().callers.unwrap();
    assert_eq!(
        (callers.accepted.cloud, callers.accepted.audiences.0),
        (Cloud::UsGovernment, vec!["api://orders".into()])
    );
    // Who only validates needs no credential, and case is .NET's affair.
    let only = BTreeMap::from([("AZUREAD__tenantid", TENANT), ("AzureAd__clientID", CLIENT)]);
    let config = from_environment(&only).unwrap();
    assert!(config.identities.is_empty() && config.compat.auth_sidecar.unwrap().apis.is_empty());
}

#[test]
fn each_kind_of_credential_has_its_keys() {
    let source = |changes: &[(&str, &str)]| {
        let mut all = vec![("AzureAd__ClientCredentials__0__ClientSecret", "")];
        all.extend(changes);
        let source = good(&all).identities["default"].source.clone();
        let Source::Application { credentials, .. } = source else { panic!("{source:?}") };
        credentials
    };
    let kind = "AzureAd__ClientCredentials__0__SourceType";
    for (changes, expected) in [
        (vec![("AzureAd__ClientCredentials__0__SignedAssertionFileDiskPath", "/t")], "/t"),
        (vec![("AzureAd__ClientCredentials__0__SignedAssertionFilePath", "/t")], "/t"),
        (vec![("AZURE_FEDERATED_TOKEN_FILE", "/webhook")], "/webhook"),
    ] {
        let mut changes = changes;
        changes.push((kind, "SignedAssertionFilePath"));
        assert_eq!(source(&changes), [Credential::ServiceAccount(PathBuf::from(expected))]);
    }
    let path = "AzureAd__ClientCredentials__0__CertificateDiskPath";
    let certificate = Credential::Certificate {
        file: PathBuf::from("/c.pem"),
        algorithm: AssertionAlgorithm::Ps256,
    };
    assert_eq!(source(&[(kind, "path"), (path, "/c.pem")]), std::slice::from_ref(&certificate));
    let id = "AzureAd__ClientCredentials__0__ManagedIdentityClientId";
    let managed = "SignedAssertionFromManagedIdentity";
    let of_machine = Credential::ManagedIdentity(ManagedIdentity::ClientId(CLIENT.to_owned()));
    assert_eq!(source(&[(kind, managed), (id, CLIENT)]), std::slice::from_ref(&of_machine));
    // Several are tried in the order of their numbers.
    let ladder = source(&[
        (kind, managed),
        (id, CLIENT),
        ("AzureAd__ClientCredentials__10__SourceType", "SignedAssertionFilePath"),
        ("AzureAd__ClientCredentials__10__SignedAssertionFilePath", "/t"),
        ("AzureAd__ClientCredentials__2__SourceType", "Path"),
        ("AzureAd__ClientCredentials__2__CertificateDiskPath", "/c.pem"),
    ]);
    assert_eq!(ladder, [of_machine, certificate, Credential::ServiceAccount("/t".into())]);
    let at = |member: &str| format!("{CREDENTIAL}{member}");
    let no_secret = ("AzureAd__ClientCredentials__0__ClientSecret", "");
    check(&[no_secret], &[(&at("ClientSecret"), "missing")]);
    check(
        &[no_secret, (kind, "SignedAssertionFilePath")],
        &[(&at("SignedAssertionFileDiskPath"), "AZURE_FEDERATED_TOKEN_FILE")],
    );
    check(&[no_secret, (kind, "Path"), (path, "/c.PFX")], &[(path, "PFX is not read")]);
    check(&[no_secret, (kind, "Path")], &[(path, "missing")]);
    for other in ["KeyVault", "StoreWithThumbprint", "Base64Encoded", "SignedAssertionFromVault"] {
        check(&[(kind, other)], &[(kind, "not a credential")]);
    }
    let missing = [(kind, ""), no_secret];
    check(&missing, &[(kind, "missing; expected the credential")]);
    let second = "AzureAd__ClientCredentials__1__SourceType";
    let secret = "AzureAd__ClientCredentials__1__ClientSecret";
    check(&[(second, "ClientSecret"), (secret, SECRET)], &[(second, "twice")]);
    let named = "AzureAd__ClientCredentials__first__SourceType";
    check(&[(named, "ClientSecret")], &[("AzureAd__ClientCredentials__first__", "a number")]);
    check(&[no_secret, (kind, managed)], &[(id, "user-assigned")]);
}

#[test]
fn b05_a_key_that_would_be_ignored_is_refused_by_its_name() {
    for name in [
        "AzureAd__TokenValidationParameters__ValidateIssuer",
        "AzureAd__Audiences__0",
        "AzureAd__ClientCapabilities__0",
        "AzureAd__ClientCredentials__0__KeyVaultUrl",
        "AZUREAD__SENDX5C",
        "DownstreamApis__Graph__AcquireTokenOptions__Tenant",
        "DownstreamApis__me__Scopes__1",
        "Sidecar__Other",
        "TokenDecryptionCredentialsDescription__0__SourceType",
        "Kestrel__Endpoints__Https__Url",
        "ASPNETCORE_HTTP_PORTS",
        "DOTNET_URLS",
        "dotnet_http_ports",
        "URLS",
        "HTTPS_PORTS",
        "AzureAd:SendX5C",
        "Sidecar:Other",
        "ASPNETCORE_AzureAd__Audience",
        "DOTNET_DownstreamApis:Graph:BaseUrl",
    ] {
        check(&[(name, "x")], &[(name, "not honoured")]);
    }
    for (name, value) in [
        ("AzureAd__AllowWebApiToBeAuthorizedByACL", "false"),
        ("AzureAd__EnablePiiLogging", "true"),
        ("Sidecar__AllowOutboundRedirects", "true"),
        ("Sidecar__AllowOverrides__GetAuthorizationHeader", "false"),
        ("Sidecar__AllowOverrides__GetAuthorizationHeaderUnauthenticated", "true"),
    ] {
        check(&[(name, value)], &[(name, "not honoured")]);
    }
    // An application's token is taken by the original, and would be refused for want of a scope.
    let by_acl = "AzureAd__AllowWebApiToBeAuthorizedByACL";
    check(&[(by_acl, "true")], &[(by_acl, "beside AzureAd__Scopes")]);
    check(&[("AzureAd:TenantId", TENANT)], &[("AzureAd__TenantId", "also as AzureAd:TenantId")]);
    let hidden = BTreeMap::from([("DOTNET_AzureAd__TenantId", TENANT)]);
    let errors = from_environment(&hidden).unwrap_err();
    assert!(errors.iter().any(|error| error.path == "DOTNET_AzureAd__TenantId"), "{errors:?}");
    check(&[("azuread__tenantid", TENANT)], &[("azuread__tenantid", "also as AzureAd__TenantId")]);
}

#[test]
fn w07_every_error_of_the_keys_is_told_at_once() {
    check(
        &[
            ("AzureAd__Instance", "https://login.evil.example/"),
            ("AzureAd__TenantId", "contoso.com"),
            ("AzureAd__ClientId", ""),
            ("DownstreamApis__me__Scopes", "User.Read Mail.Read"),
            ("DownstreamApis__Graph__Scopes__0", ""),
            ("DownstreamApis__vault__Scopes", "https://vault.azure.net/user_impersonation"),
            ("Kestrel__Endpoints__Http__Url", "http://+:5000"),
        ],
        &[
            ("AzureAd__Instance", "known cloud"),
            ("AzureAd__TenantId", "GUID"),
            ("AzureAd__ClientId", "missing"),
            ("DownstreamApis__me__Scopes", "one scope"),
            ("DownstreamApis__Graph__Scopes__0", "missing"),
            ("DownstreamApis__vault__Scopes", "`<resource>/.default`"),
            ("Kestrel__Endpoints__Http__Url", "tokens do not leave"),
        ],
    );
}

#[test]
fn a_scope_is_what_it_may_be_in_a_file() {
    let scope = "DownstreamApis__me__Scopes";
    let longest = format!("api://{}/read", "x".repeat(501));
    good(&[(scope, &longest)]);
    let longer = format!("{longest}y");
    for value in ["offline_access", "openid", "profile", "email", &longer, "api://", "a:b", "/x"] {
        check(&[(scope, value)], &[(scope, "<resource>/<permission>")]);
    }
    good(&[(scope, "api://orders/profile")]);
}

#[test]
fn net_spells_a_key_in_more_than_one_way() {
    let only = BTreeMap::from([
        ("AZUREAD__TENANTID", TENANT),
        ("AzureAd:ClientId", CLIENT),
        ("azuread:Audience", "api://orders"),
        ("AzureAd:ClientCredentials__0:SourceType", "ClientSecret"),
        ("AzureAd:ClientCredentials:0:ClientSecret", SECRET),
        ("DownstreamApis:Graph:Scopes:0", "User.Read"),
    ]);
    let config = from_environment(&only).unwrap();
    let sidecar = config.compat.auth_sidecar.unwrap();
    assert_eq!(sidecar.callers.unwrap().accepted.audiences.0, ["api://orders"]);
    assert_eq!(sidecar.apis["Graph"].scope, "https://graph.microsoft.com/User.Read");
    assert_eq!(config.identities.len(), 1);
}

#[test]
fn b01_the_originals_address_is_taken_on_loopback_only() {
    let name = "Kestrel__Endpoints__Http__Url";
    for url in [
        "http://0.0.0.0:5000",
        "http://[::]:5000",
        "http://*:5000",
        "http://10.0.0.1:5000",
        "https://127.0.0.1:5000",
        "127.0.0.1:5000",
        "http://127.0.0.1",
        "http://127.0.0.1:5000;http://0.0.0.0:80",
        "http://localhost.evil.example:5000",
    ] {
        check(&[(name, url)], &[(name, "http://127.0.0.1:5000")]);
    }
    check(&[("ASPNETCORE_URLS", "http://127.0.0.1:80")], &[(name, "ASPNETCORE_URLS")]);
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_swaps_the_image_gets_its_headers() {
    let broker = Broker::with_config(&Entra::new(), &good(&[]));
    for api in ["Graph", "vault"] {
        let path = format!("/AuthorizationHeaderUnauthenticated/{api}");
        let (status, _, body) = ask(&broker.compat(), from_pod(&path, &[])).await;
        assert_eq!(status, 200, "{body}");
        assert!(body.contains(TOKEN), "{body}");
    }
    let path = "/AuthorizationHeaderUnauthenticated/me";
    let (status, _, body) = ask(&broker.compat(), from_pod(path, &[])).await;
    // User.Read is nothing that an application could have for itself.
    assert_eq!(status, 403, "{body}");
}
