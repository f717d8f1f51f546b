//! One policy, one schema: what a plain Envoy with the repository's `envoy.yaml` decides, the mesh
//! decides too, with the same words to the caller and in the log.
//!
//! Both have the same filter and get the same requests with the same tokens; the two fakes of
//! Entra have the same keys. What differs is stated beside the request, with the reason.

use std::collections::{BTreeMap, HashMap};

use e2e::{
    client::{Answer, Request},
    envoy::EnvoyConfig,
    fake_entra::{Credential, sample},
    stack::{Stack, unix_now, world},
};
use mesh::until;
use serde_json::{Value, json};

use crate::{
    shop::{Open, Shop},
    world::{PATIENCE, world as mesh_world},
};

/// What came of a request: what the caller sees, what the log says, what the application saw.
#[derive(Debug, PartialEq, Eq)]
struct Decision {
    status: u16,
    challenge: Option<String>,
    grpc_status: Option<String>,
    record: String,
    /// Whom the request is of for the application, or the body of a denial.
    end: Result<Identity, String>,
}

/// Headers that say who calls; of Authorization only that it is there.
type Identity = BTreeMap<String, String>;

/// A request, and how the two differ on it.
struct Case {
    what: &'static str,
    request: Request,
    /// Where Istio's own settings decide first: status and reason in the mesh.
    in_the_mesh: Option<(u16, &'static str)>,
}

fn case(what: &'static str, request: Request) -> Case {
    Case { what, request, in_the_mesh: None }
}

#[test]
fn a_plain_envoy_and_the_mesh_decide_alike() {
    let world = mesh_world();
    let _guard = world.mesh.shared().unwrap();
    let mut policy = EnvoyConfig::shipped().policy_mut("entra-inbound").clone();
    for of_the_chart in ["direction", "broker"] {
        policy.as_object_mut().unwrap().remove(of_the_chart).unwrap();
    }
    let values = json!({"accessLog": "all", "inbound": {"policy": policy}});
    let shop = Shop::new("same-policy").values(values).open();
    let plain = world.wait_for(Stack::builder().start());
    assert_eq!(plain.entra.signing_key_id(), world.entra.signing_key_id(), "the same keys");
    let cases = cases(&plain);
    assert!(cases.len() >= 50, "{} requests", cases.len());
    let numbered = |number: usize| cases[number].request.clone().header("x-request-id", id(number));
    let all = 0..cases.len();
    let of_plain: Vec<Answer> =
        all.clone().map(|number| world.wait_for(plain.call(&numbered(number)))).collect();
    let of_mesh: Vec<Answer> = all.clone().map(|number| shop.call(&numbered(number))).collect();
    let seen_in_plain = seen_in_plain(&plain);
    let (records, seen_in_mesh) = (records(&shop, cases.len()), seen_in_mesh(&shop));
    let mut wrong = Vec::new();
    for (number, case) in cases.iter().enumerate() {
        let record = world.wait_for(plain.record(&id(number))).0;
        let expected = Decision::of(&of_plain[number], record, seen_in_plain.get(&id(number)));
        let record = records[&id(number)].clone();
        let found = Decision::of(&of_mesh[number], record, seen_in_mesh.get(&id(number)));
        println!("{:<44} {} {}", case.what, found.status, found.reason());
        let alike = match case.in_the_mesh {
            Some((status, reason)) => {
                expected.reason() == "path_ambiguous"
                    && (found.status, found.reason()) == (status, reason)
            }
            None => found == expected,
        };
        if !alike {
            wrong.push(format!("{}:\n  plain {expected:?}\n  mesh  {found:?}", case.what));
        }
    }
    assert!(wrong.is_empty(), "{} differ:\n{}", wrong.len(), wrong.join("\n"));
}

/// The `x-request-id` of a request: both logs and both applications have it.
fn id(number: usize) -> String {
    format!("same-policy-{number}")
}

impl Decision {
    fn of(answer: &Answer, record: String, seen: Option<&Identity>) -> Self {
        Self {
            status: answer.status,
            challenge: answer.header("www-authenticate"),
            grpc_status: answer.header("grpc-status"),
            record,
            end: seen.cloned().ok_or_else(|| answer.text()),
        }
    }

    fn reason(&self) -> &str {
        let reason = self.record.strip_prefix("reason=").unwrap_or_default();
        reason.split(' ').next().unwrap_or_default()
    }
}

/// The filter's records in the sidecar's log, by the request's id, when all are there: Envoy writes
/// its log every few seconds.
fn records(shop: &Open, count: usize) -> HashMap<String, String> {
    until("a line of the access log for each request", PATIENCE, || {
        let log = shop.proxy_log();
        let lines = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let ours = lines.filter_map(|line| {
            let id = line["request_id"].as_str()?.to_owned();
            let record = line["entra"].as_str().unwrap_or_default().to_owned();
            id.starts_with("same-policy-").then_some((id, record))
        });
        let found: HashMap<String, String> = ours.collect();
        Ok((found.len() == count).then_some(found))
    })
    .unwrap()
}

/// What the plain Envoy's application saw, by the request's id.
fn seen_in_plain(plain: &Stack) -> HashMap<String, Identity> {
    let lines = plain.application.requests().into_iter().map(|request| {
        let text = |value: Vec<u8>| String::from_utf8_lossy(&value).into_owned();
        request.headers.into_iter().map(|(name, value)| (name, text(value))).collect()
    });
    by_id(lines)
}

/// What the application in the mesh saw, as it wrote it down.
fn seen_in_mesh(shop: &Open) -> HashMap<String, Identity> {
    let requests = shop.seen().into_iter().filter(|event| event["event"] == "request");
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    by_id(requests.map(|request| {
        let lines = request["headers"].as_array().unwrap().iter();
        lines.map(|line| (text(&line[0]), text(&line[1]))).collect()
    }))
}

fn by_id(requests: impl Iterator<Item = Vec<(String, String)>>) -> HashMap<String, Identity> {
    let identified = requests.filter_map(|lines| {
        let id = lines.iter().find(|(name, _)| name == "x-request-id")?.1.clone();
        let says_who = lines.into_iter().filter_map(|(name, value)| {
            let name = name.to_ascii_lowercase();
            match name.as_str() {
                "authorization" => Some((name, "there".to_owned())),
                _ if name.replace('_', "-").starts_with("x-entra-") => Some((name, value)),
                _ if name.starts_with("x-ms-") => Some((name, value)),
                _ => None,
            }
        });
        Some((id, says_who.collect()))
    });
    identified.collect()
}

/// What is sent. Tokens are the plain stack's, whose Entra signs with the same keys.
fn cases(stack: &Stack) -> Vec<Case> {
    let mut cases = of_rules(stack);
    cases.extend(of_tokens(stack));
    cases.extend(of_paths(stack));
    cases
}

/// Who may do what.
fn of_rules(stack: &Stack) -> Vec<Case> {
    let entra = &stack.entra;
    let reader = world::user(entra, &["Orders.Read"]).sign();
    let stranger = world::user(entra, &["Other"]).sign();
    let payer = world::payer(entra).sign();
    let reading = world::application(entra, &["Orders.Read.All"]).sign();
    let scraper = world::application(entra, &["Metrics.Read.All"]).sign();
    let nobody = world::application(entra, &[]).sign();
    let paying = world::application(entra, &["Orders.Pay.All"]);
    let (get, pay) = (Request::get("/orders/7"), Request::post("/orders/7/pay", b"12"));
    let preflight = Request::new("OPTIONS", "/orders/7")
        .header("origin", "https://shop.example")
        .header("access-control-request-method", "GET");
    let grpc = |token: &str| pay.clone().header("content-type", "application/grpc").bearer(token);
    vec![
        case("health without a token", Request::get("/healthz")),
        case("health by HEAD", Request::new("HEAD", "/healthz")),
        case("health by POST", Request::post("/healthz", b"x")),
        case("health with a token", Request::get("/healthz").bearer(&reader)),
        case("health with junk for a token", Request::get("/healthz").bearer("junk")),
        case("a preflight", preflight.clone()),
        case("OPTIONS without an origin", Request::new("OPTIONS", "/orders/7")),
        case("a preflight with a token", preflight.bearer(&reader)),
        case("no token", get.clone()),
        case("a user with the scope", get.clone().bearer(&reader)),
        case("HEAD", Request::new("HEAD", "/orders/7").bearer(&reader)),
        case("another scope", get.clone().bearer(&stranger)),
        case("an application with the role", get.clone().bearer(&reading)),
        case("an application without roles", get.clone().bearer(&nobody)),
        case("a method of no rule", Request::new("DELETE", "/orders/7").bearer(&reader)),
        case("a path of no rule", Request::get("/nothing").bearer(&reader)),
        case("no token and a path of no rule", Request::get("/nothing")),
        case("metrics without a token", Request::get("/metrics")),
        case("metrics for a user", Request::get("/metrics").bearer(&reader)),
        case("metrics for the scraper", Request::get("/metrics").bearer(&scraper)),
        case(
            "paying without the step-up",
            pay.clone().bearer(&world::user(entra, &["Orders.Pay"]).sign()),
        ),
        case(
            "paying without it, by a client that can",
            pay.clone().bearer(
                &world::user(entra, &["Orders.Pay"]).claim("xms_cc", json!(["cp1"])).sign(),
            ),
        ),
        case("paying after the step-up", pay.clone().bearer(&payer)),
        case(
            "paying with a secret's token",
            pay.clone().bearer(&paying.clone().credential(Credential::Secret).sign()),
        ),
        case("paying with a certificate's", pay.clone().bearer(&paying.sign())),
        case("paying with the scope to read", pay.clone().bearer(&reader)),
        case("gRPC without the right", grpc(&reader)),
        case("gRPC with junk", grpc("junk")),
    ]
}

/// What a token may look like.
fn of_tokens(stack: &Stack) -> Vec<Case> {
    let entra = &stack.entra;
    let get = || Request::get("/orders/7");
    let made = world::user(entra, &["Orders.Read"]);
    let (good, key, now) = (made.sign(), entra.signing_key(), unix_now());
    let claims = Value::Object(made.claims());
    let with = |name: &str, value: Value| get().bearer(&made.clone().claim(name, value).sign());
    let header = |more: Value| {
        let mut header = json!({"typ": "JWT", "alg": "RS256", "kid": key.kid});
        header.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        get().bearer(&key.token_with(&header, &claims))
    };
    let (head, signature) = good.rsplit_once('.').unwrap();
    let turned: String = signature.chars().rev().collect();
    let authorization = |value: String| get().header("authorization", value);
    let spoofed = |request: Request| {
        request
            .header("x-entra-object-id", "00000000-0000-0000-0000-000000000001")
            .header("X-Entra-Tenant-Id", "00000000-0000-0000-0000-000000000002")
            .header("x-entra-permit", "1")
            .header("x-ms-client-principal-id", "root")
    };
    vec![
        case("expired", with("exp", json!(now - 600))),
        case("without an end", with("exp", Value::Null)),
        case("not yet valid", with("nbf", json!(now + 600))),
        case("issued in the future", with("iat", json!(now + 4000))),
        case("another audience", with("aud", json!("api://other"))),
        case("an audience with a slash", with("aud", json!("api://orders/"))),
        case("another issuer", with("iss", json!("https://evil.example/"))),
        case(
            "another tenant",
            get().bearer(
                &entra
                    .token(world::OTHER_TENANT, world::WEB, sample::ORDERS_API)
                    .user(&sample::ada(), &["Orders.Read"])
                    .sign(),
            ),
        ),
        case("a user's and an application's at once", with("idtyp", json!("app"))),
        case("neither's", with("scp", Value::Null)),
        case("another signature", get().bearer(&format!("{head}.{turned}"))),
        case("no signature", get().bearer(&format!("{head}."))),
        case("four parts", get().bearer(&format!("{good}.x"))),
        case("padding", get().bearer(&format!("{good}="))),
        case("an unknown key", header(json!({"kid": "unknown"}))),
        case("algorithm none", header(json!({"alg": "none"}))),
        case("algorithm HS256", header(json!({"alg": "HS256"}))),
        case("an unknown critical extension", header(json!({"crit": ["x"]}))),
        case("an unencoded payload", header(json!({"b64": false}))),
        case("scheme in small letters", authorization(format!("bearer {good}"))),
        case("another scheme", authorization("Basic YTpi".to_owned())),
        case("no scheme", authorization(good.clone())),
        case("scheme without a token", authorization("Bearer".to_owned())),
        case("two tokens in one line", authorization(format!("Bearer {good}, Bearer {good}"))),
        case("two lines", get().bearer(&good).bearer(&good)),
        case("a token in the query", Request::get(&format!("/orders/7?access_token={good}"))),
        case("identity and marker without a token", spoofed(get())),
        case("identity and marker beside a token", spoofed(get().bearer(&good))),
        case("identity in another spelling", get().bearer(&good).header("x_entra_object_id", "1")),
        case("a header that is not UTF-8", get().bearer(&good).header("x-note", [0xff, 0xfe])),
    ]
}

/// Paths that may be read in more than one way. Istio resolves dot segments and backslashes before
/// any filter (`meshConfig.pathNormalization`, BASE by default), so that filter, routes and
/// application see the one path that is left; a plain Envoy shows them to the filter, which refuses.
fn of_paths(stack: &Stack) -> Vec<Case> {
    let good = world::user(&stack.entra, &["Orders.Read"]).sign();
    let at = |what: &'static str, path: &str| case(what, Request::get(path).bearer(&good));
    // Whose token is one, at a rule for applications.
    const USER: &str = "application_required";
    let normalised = |what: &'static str, path: &str, status: u16, reason: &'static str| Case {
        in_the_mesh: Some((status, reason)),
        ..at(what, path)
    };
    vec![
        at("a slash at the end", "/orders/7/"),
        at("one segment more", "/orders/7/8"),
        at("another case", "/Orders/7"),
        at("a query", "/orders/7?a=/../b"),
        at("two slashes", "/orders//7"),
        at("an encoded slash", "/orders/a%2fb"),
        at("a semicolon", "/orders/7;a=b"),
        at("no escape", "/orders/%zz"),
        at("a letter, escaped", "/orders/%41"),
        normalised("a dot segment", "/orders/./7", 200, "allowed"),
        normalised("a dot segment to another rule", "/orders/../metrics", 403, USER),
        normalised("a dot segment, escaped", "/orders/%2e%2e/metrics", 403, USER),
        normalised("a backslash", "/orders\\7", 200, "allowed"),
        normalised("a control byte, escaped", "/orders/%00", 400, ""),
    ]
}
