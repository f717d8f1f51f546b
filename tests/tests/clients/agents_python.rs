//! microsoft-agents-authentication-entra-auth-sidecar, the Agents SDK's client of Microsoft's auth
//! sidecar for Python, unchanged.

use crate::agents::{Says, check};

#[tokio::test(flavor = "multi_thread")]
async fn the_agents_sdk_for_python_takes_the_broker_for_microsofts_auth_sidecar() {
    let says = Says {
        // What is behind the status is the title of the broker's answer.
        bad_request: "ValueError: Sidecar returned 400: invalid_request: ",
        not_found: "SidecarConfigurationError: Sidecar returned 404: unknown_api: ",
        outage: "SidecarUnavailableError: ",
        throttled: "SidecarUnavailableError: ",
    };
    check("agents_client.py", &says).await;
}
