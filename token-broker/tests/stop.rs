//! Stopping: nobody new comes, who is there gets the answer, the socket goes.

use std::sync::Arc;

use token_broker::{
    config::{Api, Listen},
    server::Listeners,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpStream, UnixStream},
    sync::oneshot,
};

use crate::support::{Broker, Endpoint, Entra, SCOPE};

#[tokio::test]
async fn b17_an_open_request_is_answered_and_the_socket_goes() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("broker.sock");
    let entra = Entra::new();
    entra.delay(std::time::Duration::from_millis(500));
    let broker = Broker::start(&entra);
    let allow_uids = vec![rustix::process::geteuid().as_raw()];
    let api = Api::Unix { path: path.clone(), allow_uids };
    let admin = "127.0.0.1:0".parse().unwrap();
    let listeners = Listeners::bind(&Listen { api, admin, compat: None }).await.unwrap();
    let admin = listeners.admin_address().unwrap();
    let (stop, stopped) = oneshot::channel::<()>();
    let serving = tokio::spawn(listeners.serve(Arc::clone(&broker.state), async {
        let _stop = stopped.await;
    }));

    // One that waits for Entra, and one that is idle.
    let mut waiting = UnixStream::connect(&path).await.unwrap();
    let mut idle = UnixStream::connect(&path).await.unwrap();
    let body = format!(r#"{{"identity":"default","scope":"{SCOPE}","destination":"d"}}"#);
    let head = format!(
        "POST /v1/token HTTP/1.1\r\nhost: b\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    waiting.write_all((head + &body).as_bytes()).await.unwrap();
    while entra.count(Endpoint::Token) == 0 {
        tokio::task::yield_now().await;
    }
    // Its request is read when another one, sent later, has been answered.
    idle.write_all(b"GET /v1/keys HTTP/1.1\r\nhost: b\r\n\r\n").await.unwrap();
    let mut first = [0; 12];
    idle.read_exact(&mut first).await.unwrap();
    assert_eq!(&first, b"HTTP/1.1 200");
    stop.send(()).unwrap();

    // The idle one is closed, and nobody new can come while the other still waits.
    let mut rest = Vec::new();
    idle.read_to_end(&mut rest).await.unwrap();
    assert!(!path.exists());
    UnixStream::connect(&path).await.unwrap_err();
    TcpStream::connect(admin).await.unwrap_err();

    let mut answer = String::new();
    waiting.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 OK"), "{answer}");
    serving.await.unwrap();
}
