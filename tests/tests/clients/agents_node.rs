//! @microsoft/agents-hosting, whose provider is a client of Microsoft's auth sidecar for Node.js,
//! unchanged.

use crate::agents::{Says, check};

#[tokio::test(flavor = "multi_thread")]
async fn the_agents_sdk_for_node_takes_the_broker_for_microsofts_auth_sidecar() {
    let says = Says { bad_request: "400", not_found: "404", outage: "503", throttled: "429" };
    check("agents_client.js", &says).await;
}
