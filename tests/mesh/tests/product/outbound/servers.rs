//! What may be wrong with a destination's server, or with what the proxy knows of it: no token
//! leaves, and not one byte of HTTP.

use super::stage::{in_clear, stage};

/// The application gets Envoy's refusal, and the server no request.
fn refused(name: &str, host: &str) {
    let stage = stage();
    let answer = stage.call(&["GET", &format!("http://{host}/secret")]);
    assert_eq!(answer["status"], 503, "{answer}");
    let server = stage.server(name);
    assert_eq!(server.count(), 0);
    for known in server.connected() {
        // A TLS handshake, and nothing in clear.
        assert_eq!(known.wire.first(), Some(&0x16), "{:02x?}", known.wire.first());
        let words = [&b"Bearer"[..], b"GET ", b"HTTP/"];
        let in_clear = |word: &[u8]| known.wire.windows(word.len()).any(|bytes| bytes == word);
        assert!(!words.into_iter().any(in_clear));
    }
}

#[test]
fn a_server_that_expects_another_name_gets_nothing() {
    refused("sni", "sni.contoso.example");
    let failed = stage().server("sni").connected().into_iter().any(|known| known.failed.is_some());
    assert!(failed, "nobody came");
}

#[test]
fn a_server_with_another_name_in_its_certificate_gets_nothing() {
    refused("san", "san.contoso.example");
    let failed = stage().server("san").connected().into_iter().any(|known| known.failed.is_some());
    assert!(failed, "nobody came");
}

#[test]
fn a_server_without_tls_gets_nothing() {
    refused("plain", "plain.contoso.example");
    assert!(stage().server("plain").connections() > 0, "nobody came");
}

#[test]
fn without_the_file_of_authorities_nothing_leaves() {
    let stage = stage();
    let words = ["GET", "http://authority.contoso.example/"];
    stage.until_answered(&words, 200);
    let before = stage.server("authority").connections();
    let filter = stage.object("EnvoyFilter", "entra-authority");
    stage.open.world.mesh.delete(&filter.to_string()).unwrap();
    stage.until_there("authority", false, false);
    let missing = filter.to_string().replace("/etc/entra-ca/ca.crt", "/etc/entra-ca/none.crt");
    assert_ne!(missing, filter.to_string());
    stage.open.world.mesh.apply(&missing).unwrap();
    // Envoy refuses such a cluster, and the route leads to none.
    stage.until_there("authority", false, true);
    let answer = stage.call(&words);
    assert_eq!(answer["status"], 503, "{answer}");
    assert_eq!(stage.server("authority").connections(), before);
    // The others go on, and this one comes back.
    stage.until_answered(&["GET", "http://stock.contoso.com/beside"], 200);
    stage.apply(&filter);
    stage.until_answered(&words, 200);
    assert!(stage.server("authority").latest().bearer().is_some());
    assert!(!in_clear(stage.server("authority")));
}
