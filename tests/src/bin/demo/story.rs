//! The story: each request with its answer, and whether it is as it should be.

use std::{collections::BTreeSet, sync::OnceLock, time::Duration};

use base64::{
    Engine,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};
use e2e::{
    client::{Answer, Request},
    fake_entra::{
        Call, Endpoint, FakeEntra, Lifetime, Standing,
        sample::{STOCK_API, TENANT, WORKLOAD, ada},
    },
    stack::{
        Stack, unix_now,
        world::{WEB, payer, user},
    },
    upstream::Reply,
};
use serde_json::{Value, json};

/// Life of the workload's tokens while the story is told, so that it sees some renewed.
pub(crate) const SHORT_LIFE: Lifetime = Lifetime { expires_in: 90, refresh_in: Some(5) };

/// How long a step may take before it counts as failed; far above what it takes.
const PATIENCE: Duration = Duration::from_secs(30);

/// Calls that are made while Entra keeps the broker waiting.
const CALLS_MEANWHILE: usize = 25;

/// Tells the story; true when every answer was as it should be.
pub(crate) async fn tell(stack: &Stack) -> bool {
    let mut story = Story { stack, failures: 0 };
    story.come_in().await;
    story.step_up().await;
    let first = story.go_out().await;
    story.replay().await;
    story.rotate(first).await;
    if story.failures == 0 {
        println!("\nEvery answer was as it should be.");
    } else {
        println!("\n{} answers were not as they should be.", story.failures);
    }
    story.failures == 0
}

struct Story<'a> {
    stack: &'a Stack,
    failures: usize,
}

impl Story<'_> {
    async fn come_in(&mut self) {
        let entra = &self.stack.entra;
        println!("\nCalls that come in, on http://{}", self.stack.envoy.inbound);
        let elsewhere = entra.token(TENANT, WEB, STOCK_API).user(&ada(), &["Orders.Read"]).sign();
        let unscoped = user(entra, &["Profile.Read"]).sign();
        let rows = [
            ("no token", None, 401, "token_missing"),
            ("a token for another API", Some(elsewhere), 401, "audience_mismatch"),
            ("a token without the scope", Some(unscoped), 403, "scope_missing"),
        ];
        for (what, token, status, reason) in rows {
            let request = Request::get("/orders/7");
            let request = match &token {
                Some(token) => request.bearer(token),
                None => request,
            };
            let before = self.stack.application.count();
            self.call_in(what, &request, status, reason).await;
            let untouched = self.stack.application.count() == before;
            self.check(untouched, "a refused call reached the application");
        }

        let request = Request::get("/orders/7")
            .bearer(&user(entra, &["Orders.Read"]).sign())
            .header("x-entra-object-id", "administrator")
            .header("X_Entra_Tenant_Id", "evil");
        self.call_in("a good token, and spoofed headers", &request, 200, "allowed").await;
        detail("sent", "x-entra-object-id: administrator, X_Entra_Tenant_Id: evil");
        let Some(seen) = self.stack.application.requests().pop() else {
            return self.check(false, "the application saw nothing");
        };
        let expected = [
            ("x-entra-object-id", ada().object_id),
            ("x-entra-tenant-id", TENANT.to_owned()),
            ("x-entra-client-id", WEB.to_owned()),
        ];
        for (name, value) in expected {
            let received = seen.header(name).unwrap_or_default();
            detail("the application got", &format!("{name}: {received}"));
            self.check(received == value, name);
        }
        let head = String::from_utf8_lossy(&seen.head).to_lowercase();
        let clean = !head.contains("administrator") && !head.contains("evil");
        self.check(clean, "a spoofed header reached the application");
        let bare = seen.header("authorization").is_none();
        self.check(bare, "the caller's token reached the application");
        detail("and neither", "the spoofed headers nor the caller's token");
    }

    /// A payment, for which the policy asks a user to sign in more strongly.
    async fn step_up(&mut self) {
        println!("\nA payment needs authentication context c2 of Conditional Access");
        let entra = &self.stack.entra;
        let pay = |token: String| Request::post("/orders/7/pay", b"{}").bearer(&token);
        let before = self.stack.application.count();
        let weak = pay(user(entra, &["Orders.Pay"]).claim("xms_cc", json!(["cp1"])).sign());
        let answer =
            self.call_in("signed in with a password", &weak, 401, "step_up_required").await;
        let asked = challenged_claims(&answer).unwrap_or_default();
        detail("the client is told", &asked);
        self.check(
            asked == r#"{"access_token":{"acrs":{"essential":true,"value":"c2"}}}"#,
            "not the challenge that Entra's clients understand",
        );
        let untouched = self.stack.application.count() == before;
        self.check(untouched, "a payment went on without the step-up");
        let strong = pay(payer(entra).sign());
        self.call_in("signed in again, with the claims", &strong, 200, "allowed").await;
    }

    /// The token is revoked, and Graph says so in the middle of a call.
    async fn replay(&mut self) {
        println!("\nAn administrator revokes the workload's sessions: Graph refuses its token");
        let entra = &self.stack.entra;
        entra.revoke_tokens(TENANT, WORKLOAD);
        let held = self.stack.graph.requests().pop().and_then(|seen| seen.bearer());
        let Standing::Challenged(claims) = entra.standing(&held.unwrap_or_default()) else {
            return self.check(false, "the token is still good");
        };
        // The token that comes first is the revoked one, renewed or not.
        let refused = OnceLock::new();
        self.stack.graph.respond_with(move |seen| {
            let token = seen.bearer();
            let is_refused = *refused.get_or_init(|| token.clone()) == token;
            if is_refused { Reply::challenge(&claims) } else { super::users() }
        });
        let (before, asked) = (self.stack.graph.count(), challenges(entra));
        let answer = self.stack.call_graph(Request::get("/v1.0/users")).await;
        println!("  GET /v1.0/users   {:<34} {}", "the application calls as ever", answer.status);
        self.check(answer.status == 200, "the application saw the challenge");
        let requests = self.stack.graph.requests();
        let seen: Vec<_> = requests.iter().skip(before).filter_map(|seen| seen.bearer()).collect();
        if let [old, new] = seen.as_slice() {
            let entra = &self.stack.entra;
            let challenged = matches!(entra.standing(old), Standing::Challenged(_));
            detail("Graph refused", &format!("Bearer {}", shortened(Some(old))));
            detail("and then got", &format!("Bearer {}", shortened(Some(new))));
            let good = entra.standing(new) == Standing::Good;
            self.check(challenged && good, "Graph did not get a token that satisfies it");
        } else {
            self.check(false, "not two attempts");
        }
        let asked = challenges(&self.stack.entra).saturating_sub(asked);
        detail("Entra was asked", &format!("{asked} time, with the claims of the challenge"));
        self.check(asked == 1, "not one acquisition");
        self.stack.graph.respond_with(|_| super::users());
    }

    async fn call_in(
        &mut self,
        what: &str,
        request: &Request,
        status: u16,
        reason: &str,
    ) -> Answer {
        let (answer, record) = self.stack.call_recorded(request).await;
        let found = record.get("reason").unwrap_or("nothing").to_owned();
        let line = request.to_string();
        println!("  {line:<20}  {what:<36} {}  log: {found}", answer.status);
        self.check(answer.status == status && found == reason, what);
        answer
    }

    /// An outbound call; gives the token that Graph saw.
    async fn go_out(&mut self) -> Option<String> {
        println!("\nCalls that go out, by http://{} over TLS to Graph", self.stack.envoy.outbound);
        let answer = self.stack.call_graph(Request::get("/v1.0/users")).await;
        println!("  GET /v1.0/users   {:<34} {}", "without any Authorization", answer.status);
        self.check(answer.status == 200, "the call did not succeed");
        let seen = self.stack.graph.requests().pop();
        let token = seen.and_then(|request| request.bearer());
        let claims = token.as_deref().map(claims).unwrap_or_default();
        let text = |name: &str| claims[name].as_str().unwrap_or("?").to_owned();
        detail("Graph got", &format!("Authorization: Bearer {}", shortened(token.as_deref())));
        detail("a token for", &format!("{}, of application {}", text("aud"), text("appid")));
        self.check(text("aud") == "https://graph.microsoft.com", "Graph got no token for it");
        let application_had_it =
            token.as_deref().is_some_and(|token| answer.text().contains(token));
        self.check(!application_had_it, "the application had the token");
        token
    }

    /// Renewal: while Entra keeps the broker waiting for the next token, calls go on.
    async fn rotate(&mut self, first: Option<String>) {
        println!(
            "\nThe token ends after {} s and is due for renewal after {}; Entra answers late",
            SHORT_LIFE.expires_in,
            SHORT_LIFE.refresh_in.unwrap_or_default()
        );
        let gate = self.stack.entra.hold_next(Endpoint::Token, 1);
        let held = self.call_until(|stack| stack.entra.calls_of(Endpoint::Token).iter().any(waits));
        let held = held.await;
        self.check(held, "the broker did not renew ahead");

        let before = self.stack.graph.requests().len();
        let mut succeeded = 0;
        for _ in 0..CALLS_MEANWHILE {
            succeeded += usize::from(self.call().await);
        }
        let still_held = self.stack.entra.calls_of(Endpoint::Token).iter().any(waits);
        let meanwhile = self.tokens_since(before);
        println!(
            "  while Entra keeps the broker waiting: {succeeded} of {CALLS_MEANWHILE} calls 200"
        );
        self.check(succeeded == CALLS_MEANWHILE && still_held, "a call waited for the renewal");
        self.check(!meanwhile.contains(&None), "a call went out without a token");
        let latest = self.stack.graph.requests().pop().and_then(|request| request.bearer());
        let old = latest.or(first);

        gate.open();
        let changed = self.call_until(|stack| {
            let latest = stack.graph.requests().pop().and_then(|request| request.bearer());
            latest.is_some() && latest != old
        });
        let changed = changed.await;
        self.check(changed, "the new token was never used");
        let new = self.stack.graph.requests().pop().and_then(|request| request.bearer());
        let left = old.as_deref().map(claims).and_then(|claims| claims["exp"].as_u64());
        let left = left.unwrap_or_default().saturating_sub(unix_now());
        println!("  once it answers: calls carry the next token, {left} s before the old one ends");
        detail("old", &shortened(old.as_deref()));
        detail("new", &shortened(new.as_deref()));
        self.check(left > 0, "the old token had ended");
        let all = self.tokens_since(0);
        self.check(!all.contains(&None), "a call went out without a token");
    }

    /// Makes calls until a condition holds; false when it does not in time.
    async fn call_until(&self, holds: impl Fn(&Stack) -> bool) -> bool {
        let calls = async {
            let mut all_succeeded = true;
            while !holds(self.stack) {
                all_succeeded &= self.call().await;
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            all_succeeded
        };
        tokio::time::timeout(PATIENCE, calls).await.unwrap_or(false)
    }

    async fn call(&self) -> bool {
        self.stack.call_graph(Request::get("/v1.0/users")).await.status == 200
    }

    fn tokens_since(&self, index: usize) -> BTreeSet<Option<String>> {
        let requests = self.stack.graph.requests();
        requests.iter().skip(index).map(e2e::upstream::Recorded::bearer).collect()
    }

    fn check(&mut self, holds: bool, what: &str) {
        if !holds {
            self.failures += 1;
            println!("  NOT AS IT SHOULD BE: {what}");
        }
    }
}

/// Entra has the question and has not answered.
fn waits(call: &Call) -> bool {
    call.status.is_none()
}

/// How often Entra was asked with the claims of a challenge.
fn challenges(entra: &FakeEntra) -> usize {
    let calls = entra.calls_of(Endpoint::Token);
    let claims = calls.iter().filter_map(|call| call.form_member("claims"));
    claims.filter(|claims| claims.contains("nbf")).count()
}

/// The claims that a challenge asks for.
fn challenged_claims(answer: &Answer) -> Option<String> {
    let header = answer.header("www-authenticate")?;
    let encoded = header.split("claims=\"").nth(1)?.split('"').next()?;
    String::from_utf8(STANDARD.decode(encoded).ok()?).ok()
}

fn detail(name: &str, text: &str) {
    println!("      {name:<20} {text}");
}

/// Enough of a token to tell it from others, and not enough to use it.
fn shortened(token: Option<&str>) -> String {
    let Some(token) = token else { return "none".to_owned() };
    let end = token.get(token.len().saturating_sub(6)..).unwrap_or_default();
    format!("{}…{end} ({} characters)", token.get(..6).unwrap_or_default(), token.len())
}

/// The claims of a token, unverified: the fake Entra has just signed it.
fn claims(token: &str) -> Value {
    let payload = token.split('.').nth(1).and_then(|part| URL_SAFE_NO_PAD.decode(part).ok());
    payload.and_then(|payload| serde_json::from_slice(&payload).ok()).unwrap_or_default()
}
