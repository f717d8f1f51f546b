//! azure-identity, the library of Azure's SDKs for Python: tokens of the broker's identities
//! without a change to the client.

use crate::stage::check;

#[tokio::test(flavor = "multi_thread")]
async fn azure_identity_python_gets_tokens_of_listed_identities_and_is_told_why_not() {
    check("azure_identity_client.py").await;
}
