//! A workload's certificate that got out: whoever has it speaks to the sidecar as the mesh does,
//! and by ALPN `istio` asks for the connection to be taken as bytes.

use std::sync::LazyLock;

use e2e::hostile::{Identity, Tls};

use super::{
    DECLARED, TCP, UNDECLARED, all, closed, forged, has_text, nothing_arrived, on, open, ports, saw,
};
use crate::{callers::Caller, world::world};

/// What clients of the mesh offer, and what others could.
const OFFERS: [&[&str]; 7] = [
    &["istio"],
    &["istio-peer-exchange", "istio"],
    &["istio-http/1.1"],
    &["istio-h2"],
    &["http/1.1"],
    &["h2"],
    &[],
];

fn stolen() -> &'static Identity {
    static STOLEN: LazyLock<Identity> = LazyLock::new(|| {
        closed();
        Caller::injected("closed", "victim").steal()
    });
    &STOLEN
}

/// With silence too: by the handshake alone the connection is for the application, and a server
/// that speaks first would answer it.
#[test]
fn a_stolen_workload_certificate_opens_no_port_by_any_alpn() {
    let _guard = world().mesh.shared().unwrap();
    let mut attacks = Vec::new();
    for port in ports() {
        for offer in OFFERS {
            for name in ["", "outbound_.80_._.orders.closed.svc.cluster.local"] {
                let mut tls = Tls::alpn(offer).identity(stolen());
                if !name.is_empty() {
                    tls = tls.server_name(name);
                }
                let what = format!("{offer:?} {name} on {port}");
                for bytes in [forged().to_bytes(), b"PING\r\n".to_vec(), Vec::new()] {
                    attacks.push((what.clone(), on(closed(), port).tls(tls.clone()), bytes));
                }
            }
        }
    }
    nothing_arrived(&all(attacks));
}

#[test]
fn http_with_a_stolen_certificate_still_needs_a_token() {
    let _guard = world().mesh.shared().unwrap();
    for port in [DECLARED, UNDECLARED] {
        let tls = Tls::alpn(&["istio-http/1.1"]).identity(stolen());
        let outcome = world().wait_for(on(closed(), port).tls(tls).http1(&forged()));
        assert_eq!(outcome.status(), Some(401), "{port}: {outcome:?}");
        nothing_arrived(&[(format!("mTLS on {port}"), outcome)]);
    }
}

#[test]
fn tls_of_strangers_is_no_way_in() {
    let _guard = world().mesh.shared().unwrap();
    let attacks = ports().into_iter().flat_map(|port| {
        OFFERS.map(|offer| {
            let attack = on(closed(), port).tls(Tls::alpn(offer));
            (format!("{offer:?} on {port}"), attack, forged().to_bytes())
        })
    });
    nothing_arrived(&all(attacks.collect()));
}

#[test]
fn without_the_policy_alpn_istio_carries_a_forged_request_to_the_application() {
    let _guard = world().mesh.shared().unwrap();
    for port in [UNDECLARED, TCP[1]] {
        let tls = Tls::alpn(&["istio"]).identity(stolen());
        let outcome = world().wait_for(on(open(), port).tls(tls).send(&forged().to_bytes()));
        saw(port, "the forged request", |event| has_text(event, "GET /orders/7"));
        drop(outcome);
    }
}
