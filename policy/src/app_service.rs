//! The identity headers of Azure App Service's built-in authentication ("Easy Auth"), for an
//! application that was written for it and moves behind this filter unchanged.
//!
//! `x-ms-client-principal` is the Base64 text of a JSON object with all claims of the token, some
//! under other names. Only the claims of a token that was verified come here; a caller's headers of
//! these names are removed on every path (`identity_headers`).
//!
//! Sources: learn.microsoft.com/azure/app-service/configure-authentication-user-identities for
//! the headers and the object. It says that names are mapped, and not to what: the names are those
//! of the map by which Microsoft's JWT library for .NET reads tokens
//! (System.IdentityModel.Tokens.Jwt, `ClaimTypeMapping`), as App Service's headers show them.

use std::rc::Rc;

use base64::{Engine, engine::general_purpose::STANDARD};

use crate::{
    identity_headers::{Header, header_value},
    json::{Node, Object},
};

/// What App Service calls Microsoft Entra ID.
const PROVIDER: &str = "aad";
/// The type of the claim that is the name of the principal.
const NAME_TYPE: &str = "http://schemas.xmlsoap.org/ws/2005/05/identity/claims/emailaddress";
/// The type that App Service gives for roles. Those of Entra come as `roles` all the same, and
/// applications for App Service read them there.
const ROLE_TYPE: &str = "http://schemas.microsoft.com/ws/2008/06/identity/claims/role";

const PRINCIPAL_HEADER: &str = "x-ms-client-principal";
const ID_HEADER: &str = "x-ms-client-principal-id";
const NAME_HEADER: &str = "x-ms-client-principal-name";
const PROVIDER_HEADER: &str = "x-ms-client-principal-idp";

/// The claims of Entra's access tokens that have another name in the principal.
const CLAIM_TYPES: [(&str, &str); 13] = [
    ("acr", "http://schemas.microsoft.com/claims/authnclassreference"),
    ("amr", "http://schemas.microsoft.com/claims/authnmethodsreferences"),
    ("deviceid", "http://schemas.microsoft.com/2012/01/devicecontext/claims/identifier"),
    ("email", NAME_TYPE),
    ("family_name", "http://schemas.xmlsoap.org/ws/2005/05/identity/claims/surname"),
    ("given_name", "http://schemas.xmlsoap.org/ws/2005/05/identity/claims/givenname"),
    ("idp", "http://schemas.microsoft.com/identity/claims/identityprovider"),
    ("oid", "http://schemas.microsoft.com/identity/claims/objectidentifier"),
    ("scp", "http://schemas.microsoft.com/identity/claims/scope"),
    ("sub", "http://schemas.xmlsoap.org/ws/2005/05/identity/claims/nameidentifier"),
    ("tid", "http://schemas.microsoft.com/identity/claims/tenantid"),
    ("unique_name", "http://schemas.xmlsoap.org/ws/2005/05/identity/claims/name"),
    ("upn", "http://schemas.xmlsoap.org/ws/2005/05/identity/claims/upn"),
];

/// Where the principal's name is looked for, in this order: v2 tokens have the first, v1 tokens the
/// second. For display only: a name is not an identity.
const NAME_CLAIMS: [&str; 4] = ["preferred_username", "upn", "unique_name", "email"];

/// Writes the headers; made once per configuration.
#[derive(Debug)]
pub struct AppServiceHeaders {
    principal: Rc<str>,
    id: Rc<str>,
    name: Rc<str>,
    provider: Rc<str>,
    provider_name: Rc<str>,
}

impl Default for AppServiceHeaders {
    fn default() -> Self {
        Self {
            principal: PRINCIPAL_HEADER.into(),
            id: ID_HEADER.into(),
            name: NAME_HEADER.into(),
            provider: PROVIDER_HEADER.into(),
            provider_name: PROVIDER.into(),
        }
    }
}

impl AppServiceHeaders {
    /// Whether this is the name of one of the four headers.
    pub fn has(name: &str) -> bool {
        [PRINCIPAL_HEADER, ID_HEADER, NAME_HEADER, PROVIDER_HEADER].contains(&name)
    }

    /// The headers of a verified token. An application's own token names nobody.
    pub fn of(&self, payload: &Object<'_>) -> Vec<Header> {
        let mut headers = Vec::with_capacity(4);
        headers.push((self.principal.clone(), STANDARD.encode(principal(payload)).into()));
        let value = |claim: &str| payload.get(claim).and_then(header_value);
        if let Some(id) = value("oid") {
            headers.push((self.id.clone(), id.into()));
        }
        if let Some(name) = NAME_CLAIMS.into_iter().find_map(value) {
            headers.push((self.name.clone(), name.into()));
        }
        headers.push((self.provider.clone(), self.provider_name.clone()));
        headers
    }
}

/// The JSON text in `x-ms-client-principal`: all claims, in the token's order.
///
/// Written by hand, since for this alone the module would carry a serializer of every type.
fn principal(payload: &Object<'_>) -> String {
    let mut text = String::from(r#"{"auth_typ":"#);
    quote(&mut text, PROVIDER);
    text.push_str(r#","claims":["#);
    // A claim that a tenant has given the name of another's type must not be taken for that one.
    let own = payload.members().filter(|(name, _)| !is_claim_type(name));
    let claims = own.flat_map(|(name, value)| {
        // A list is as many claims of one type.
        let values = match value {
            Node::List(elements) => elements.as_slice(),
            single => std::slice::from_ref(single),
        };
        values.iter().filter(|value| **value != Node::Null).map(move |value| (name, value))
    });
    for (index, (name, value)) in claims.enumerate() {
        text.push_str(if index == 0 { r#"{"typ":"# } else { r#",{"typ":"# });
        quote(&mut text, claim_type(name));
        text.push_str(r#","val":"#);
        match value {
            Node::Text(value) => quote(&mut text, value),
            other => {
                let mut value = String::new();
                write(&mut value, other);
                quote(&mut text, &value);
            }
        }
        text.push('}');
    }
    text.push_str(r#"],"name_typ":"#);
    quote(&mut text, NAME_TYPE);
    text.push_str(r#","role_typ":"#);
    quote(&mut text, ROLE_TYPE);
    text.push('}');
    text
}

fn claim_type(name: &str) -> &str {
    let mapped = CLAIM_TYPES.iter().find(|(claim, _)| *claim == name);
    mapped.map_or(name, |(_, mapped)| *mapped)
}

fn is_claim_type(name: &str) -> bool {
    CLAIM_TYPES.iter().any(|(_, mapped)| *mapped == name)
}

/// Appends a value as JSON.
fn write(text: &mut String, node: &Node<'_>) {
    match node {
        Node::Null => text.push_str("null"),
        Node::Bool(value) => text.push_str(if *value { "true" } else { "false" }),
        Node::Unsigned(number) => text.push_str(&number.to_string()),
        Node::Number(number) => text.push_str(&number.to_string()),
        Node::Text(value) => quote(text, value),
        Node::List(elements) => {
            text.push('[');
            for (index, element) in elements.iter().enumerate() {
                if index > 0 {
                    text.push(',');
                }
                write(text, element);
            }
            text.push(']');
        }
        Node::Object(object) => {
            text.push('{');
            for (index, (name, value)) in object.members().enumerate() {
                if index > 0 {
                    text.push(',');
                }
                quote(text, name);
                text.push(':');
                write(text, value);
            }
            text.push('}');
        }
    }
}

/// Appends a JSON string (RFC 8259 §7).
fn quote(text: &mut String, value: &str) {
    text.push('"');
    for character in value.chars() {
        match character {
            '"' | '\\' => text.extend(['\\', character]),
            '\0'..='\u{1f}' => text.push_str(&format!("\\u{:04x}", u32::from(character))),
            character => text.push(character),
        }
    }
    text.push('"');
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::json;

    /// The headers as an application reads them: the principal decoded.
    fn headers(payload: &str) -> (Value, Vec<String>) {
        let payload = json::object(payload.as_bytes()).unwrap();
        let mut headers = AppServiceHeaders::default().of(&payload).into_iter();
        let (name, principal) = headers.next().unwrap();
        assert_eq!(&*name, "x-ms-client-principal");
        let principal = STANDARD.decode(principal.as_bytes()).unwrap();
        let rest = headers.map(|(name, value)| format!("{name}: {value}")).collect();
        (serde_json::from_slice(&principal).unwrap(), rest)
    }

    #[test]
    fn a_user_looks_as_app_service_shows_one() {
        let (principal, rest) = headers(
            r#"{"aud":"3f1b","iss":"https://login.microsoftonline.com/72f9/v2.0","iat":1700808670,
            "amr":["pwd","mfa"],"email":"ada@contoso.com","name":"Ada \u00c9","oid":"4a9d",
            "preferred_username":"ada@contoso.onmicrosoft.com","roles":["Buyer","Seller"],
            "scp":"Orders.Read Orders.Pay","sub":"pairwise","tid":"72f9","ver":"2.0"}"#,
        );
        let claim = |typ: &str, val: &str| json!({"typ": typ, "val": val});
        let expected = json!({
            "auth_typ": "aad",
            "claims": [
                claim("aud", "3f1b"),
                claim("iss", "https://login.microsoftonline.com/72f9/v2.0"),
                claim("iat", "1700808670"),
                claim("http://schemas.microsoft.com/claims/authnmethodsreferences", "pwd"),
                claim("http://schemas.microsoft.com/claims/authnmethodsreferences", "mfa"),
                claim(
                    "http://schemas.xmlsoap.org/ws/2005/05/identity/claims/emailaddress",
                    "ada@contoso.com",
                ),
                claim("name", "Ada \u{c9}"),
                claim("http://schemas.microsoft.com/identity/claims/objectidentifier", "4a9d"),
                claim("preferred_username", "ada@contoso.onmicrosoft.com"),
                claim("roles", "Buyer"),
                claim("roles", "Seller"),
                claim(
                    "http://schemas.microsoft.com/identity/claims/scope",
                    "Orders.Read Orders.Pay",
                ),
                claim(
                    "http://schemas.xmlsoap.org/ws/2005/05/identity/claims/nameidentifier",
                    "pairwise",
                ),
                claim("http://schemas.microsoft.com/identity/claims/tenantid", "72f9"),
                claim("ver", "2.0"),
            ],
            "name_typ": "http://schemas.xmlsoap.org/ws/2005/05/identity/claims/emailaddress",
            "role_typ": "http://schemas.microsoft.com/ws/2008/06/identity/claims/role",
        });
        assert_eq!(principal, expected);
        assert_eq!(
            rest,
            [
                "x-ms-client-principal-id: 4a9d",
                "x-ms-client-principal-name: ada@contoso.onmicrosoft.com",
                "x-ms-client-principal-idp: aad",
            ]
        );
    }

    #[test]
    fn an_application_has_an_id_and_no_name() {
        let (_, rest) = headers(r#"{"oid":"9c1e","azp":"5c0f","idtyp":"app"}"#);
        assert_eq!(rest, ["x-ms-client-principal-id: 9c1e", "x-ms-client-principal-idp: aad"]);
    }

    #[test]
    fn the_name_is_the_first_that_the_token_has() {
        let mut claims = json!({
            "email": "e", "unique_name": "u", "upn": "p", "preferred_username": "n",
        });
        for (gone, expected) in
            [("", "n"), ("preferred_username", "p"), ("upn", "u"), ("unique_name", "e")]
        {
            claims.as_object_mut().unwrap().remove(gone);
            let (_, rest) = headers(&claims.to_string());
            assert_eq!(rest[0], format!("x-ms-client-principal-name: {expected}"));
        }
    }

    #[test]
    fn every_type_of_value_is_a_text() {
        let (principal, _) = headers(
            r#"{"a":true,"b":-1.5,"c":{"groups":"src1","x":[1,null]},"d":null,"e":[],"f":["x",2]}"#,
        );
        let expected = json!([
            {"typ": "a", "val": "true"},
            {"typ": "b", "val": "-1.5"},
            {"typ": "c", "val": "{\"groups\":\"src1\",\"x\":[1,null]}"},
            {"typ": "f", "val": "x"},
            {"typ": "f", "val": "2"},
        ]);
        assert_eq!(principal["claims"], expected);
    }

    #[test]
    fn p13_no_claim_can_break_the_principal() {
        let every: String =
            (0..0x300).filter_map(char::from_u32).chain("\u{1f600}".chars()).collect();
        let payload = json!({every.clone(): every.clone(), "o": {every.clone(): [every.clone()]}});
        let (principal, _) = headers(&payload.to_string());
        let object = json!({every.clone(): [every.clone()]});
        let claims = principal["claims"].as_array().unwrap();
        assert_eq!(claims[0], json!({"typ": every, "val": every}));
        assert_eq!(claims[1]["typ"], "o");
        let nested: Value = serde_json::from_str(claims[1]["val"].as_str().unwrap()).unwrap();
        assert_eq!(nested, object);
    }

    #[test]
    fn p13_no_claim_can_break_an_app_service_header() {
        let payload = json!({"oid": "a\r\nx: 1", "preferred_username": "é,b\u{0}"}).to_string();
        let payload = json::object(payload.as_bytes()).unwrap();
        let headers = AppServiceHeaders::default().of(&payload);
        assert_eq!(headers.len(), 4);
        for (name, value) in &headers {
            let plain = value.bytes().all(|byte| byte.is_ascii_graphic() || byte == b' ');
            assert!(plain && !value.contains(','), "{name}: {value}");
        }
    }
}
