//! @azure/msal-node, Microsoft's authentication library for Node.js: tokens of the broker's identities
//! without a change to the client.

use crate::stage::check;

#[tokio::test(flavor = "multi_thread")]
async fn msal_node_gets_tokens_of_listed_identities_and_is_told_why_not() {
    check("msal_identity_client.js").await;
}
