//! App Service's identity headers, where the configuration asks for them.

use base64::{Engine, engine::general_purpose::STANDARD};

use super::*;

fn asking() -> Value {
    with(config(), json!({"app_service_headers": true}))
}

fn of_app_service(effect: Effect) -> Vec<String> {
    let mut set = added(&edits(effect));
    set.retain(|header| header.starts_with("x-ms-"));
    set
}

#[test]
fn a_verified_caller_has_app_services_headers_beside_the_others() {
    let claims = with(user(), json!({"preferred_username": "ada@contoso.com"}));
    let mut inbound = ready(&asking());
    let request = read(&KEY.token(&claims));
    // The second time they come out of the cache.
    for _ in 0..2 {
        let effect = ask(&mut inbound, &request);
        assert!(added(&edits(ask(&mut inbound, &request))).len() == 8);
        let headers = of_app_service(effect);
        let principal = headers[3].strip_prefix("x-ms-client-principal: ").unwrap();
        let principal: Value =
            serde_json::from_slice(&STANDARD.decode(principal).unwrap()).unwrap();
        assert_eq!(principal["auth_typ"], "aad");
        let oid = "http://schemas.microsoft.com/identity/claims/objectidentifier";
        let claims = principal["claims"].as_array().unwrap();
        assert!(claims.contains(&json!({"typ": oid, "val": USER})), "{claims:?}");
        assert_eq!(
            headers[..3],
            [
                format!("x-ms-client-principal-id: {USER}"),
                "x-ms-client-principal-idp: aad".to_owned(),
                "x-ms-client-principal-name: ada@contoso.com".to_owned(),
            ]
        );
    }
}

#[test]
fn no_claim_is_taken_for_another_by_its_name() {
    let oid = "http://schemas.microsoft.com/identity/claims/objectidentifier";
    let claims = with(user(), json!({ (oid): "administrator" }));
    let effect = ask(&mut ready(&asking()), &read(&KEY.token(&claims)));
    let headers = of_app_service(effect);
    let principal = headers.iter().find_map(|line| line.strip_prefix("x-ms-client-principal: "));
    let principal = STANDARD.decode(principal.unwrap()).unwrap();
    let principal: Value = serde_json::from_slice(&principal).unwrap();
    let claims = principal["claims"].as_array().unwrap();
    let found: Vec<&Value> = claims.iter().filter(|claim| claim["typ"] == oid).collect();
    assert_eq!(found, [&json!({"typ": oid, "val": USER})]);
}

#[test]
fn h08_a_callers_app_service_headers_are_replaced_or_removed() {
    for (config, expected) in [(asking(), 3), (config(), 0)] {
        let names =
            ["x-ms-client-principal", "X-MS-CLIENT-PRINCIPAL-NAME", "x-ms-token-aad-id-token"];
        let spoofed =
            |request| names.iter().fold(request, |request, name| and(request, name, "spoofed"));
        let effect = ask(&mut ready(&config), &spoofed(read(&KEY.token(&user()))));
        let edits = edits(effect);
        assert_eq!(removed(&edits).len(), 4, "{edits:?}");
        let set = added(&edits);
        assert_eq!(set.iter().filter(|header| header.starts_with("x-ms-")).count(), expected);
        assert!(!format!("{set:?}").contains("spoofed"));
    }
}

#[test]
fn without_a_verified_token_there_is_no_principal() {
    let observing = with(asking(), json!({"mode": "observe"}));
    for (config, request) in [
        (asking(), request("GET", "/healthz")),
        (observing.clone(), request("GET", "/orders/7")),
        (observing, read(&FOREIGN_KEY.token(&user()))),
    ] {
        let headers = of_app_service(ask(&mut ready(&config), &request));
        assert!(headers.is_empty(), "{headers:?}");
    }
}
