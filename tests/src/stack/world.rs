//! Who is registered in the fake Entra while the stack runs, and the tokens of their calls.
//!
//! The sample company, a web application of it through which users call, and a second company that
//! the shipped policy does not list.

use serde_json::json;

use crate::fake_entra::{
    Application, Credential, Directory, FakeEntra, Tenant, TokenBuilder, TokenVersion,
    sample::{self, ORDERS_API, TENANT},
};

/// The web application of the sample company.
pub const WEB: &str = "22223333-cccc-4444-dddd-5555eeee6666";
/// Secret of [`WEB`].
pub const WEB_SECRET: &str = "Web8Q~secret";
/// Where [`WEB`] takes browsers back.
pub const WEB_REDIRECT_URI: &str = "http://localhost:5000/signed-in";
/// End of the secret: the last second of 2049.
const FAR: u64 = 2_524_607_999;
/// A tenant that the policy does not list, with the same API and web application.
pub const OTHER_TENANT: &str = "bbbbcccc-1111-dddd-2222-eeee3333ffff";
/// What the workload asks tokens for.
pub const GRAPH_SCOPE: &str = "https://graph.microsoft.com/.default";

/// Adds to the sample company what the stack's tests need besides it.
pub(super) fn extend(directory: Directory) -> Directory {
    let api = Application::new(OTHER_TENANT, ORDERS_API, "Orders").app_id_uri(sample::ORDERS_URI);
    directory
        .application(
            Application::new(TENANT, WEB, "Web shop")
                .secret(WEB_SECRET, FAR)
                .redirect_uri(WEB_REDIRECT_URI),
        )
        .tenant(Tenant::new(OTHER_TENANT, "Fabrikam"))
        .application(api)
        .application(Application::new(OTHER_TENANT, WEB, "Web shop"))
}

/// A user's token for the orders API, by way of the web application.
pub fn user(entra: &FakeEntra, scopes: &[&str]) -> TokenBuilder {
    entra.token(TENANT, WEB, ORDERS_API).user(&sample::ada(), scopes)
}

/// A user's token for paying, after the step-up that the shipped policy asks for.
pub fn payer(entra: &FakeEntra) -> TokenBuilder {
    user(entra, &["Orders.Pay"]).claim("acrs", json!(["c2"]))
}

/// An application's own token for the orders API, gained with a certificate.
pub fn application(entra: &FakeEntra, roles: &[&str]) -> TokenBuilder {
    entra.token(TENANT, sample::TILL, ORDERS_API).roles(roles).credential(Credential::Assertion)
}

/// Lets the orders API receive tokens of version 1.0 from now on.
pub fn use_version_1(entra: &FakeEntra) {
    entra.directory(|directory| {
        let api = directory.application_mut(TENANT, ORDERS_API).expect("the orders API");
        api.token_version = TokenVersion::V1;
    });
}
