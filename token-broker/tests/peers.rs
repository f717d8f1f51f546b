//! Who may connect to the socket, and how the socket comes and goes.

use std::{
    fs,
    os::unix::{
        fs::{FileTypeExt, PermissionsExt},
        net::{UnixListener as StdListener, UnixStream as StdStream},
    },
    path::{Path, PathBuf},
    sync::Arc,
};

use token_broker::{
    config::{Api, Listen},
    server::{Listeners, listener::BindError},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpStream, UnixStream},
    sync::oneshot,
};

use crate::support::{Broker, Entra};

fn own_uid() -> u32 {
    rustix::process::geteuid().as_raw()
}

fn listen(path: &Path, allow_uids: Vec<u32>) -> Listen {
    let api = Api::Unix { path: path.to_owned(), allow_uids };
    Listen { api, admin: "127.0.0.1:0".parse().unwrap(), compat: None }
}

fn in_new_directory() -> (tempfile::TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("run/entra/broker.sock");
    (directory, path)
}

/// What the peer reads after asking for `/v1/keys`; empty when it was refused.
async fn answer(path: &Path) -> String {
    let mut stream = UnixStream::connect(path).await.unwrap();
    // The refused peer may find its connection closed before or after writing.
    let _closed = stream
        .write_all(b"GET /v1/keys HTTP/1.1\r\nhost: broker\r\nconnection: close\r\n\r\n")
        .await;
    let mut text = Vec::new();
    let _closed = stream.read_to_end(&mut text).await;
    String::from_utf8(text).unwrap()
}

/// Serves with these users allowed; gives the answer and the refused peers counted.
async fn serve(allow_uids: Vec<u32>) -> (String, String) {
    let (_directory, path) = in_new_directory();
    let broker = Broker::start(&Entra::new());
    let listeners = Listeners::bind(&listen(&path, allow_uids)).await.unwrap();
    let (stop, stopped) = oneshot::channel::<()>();
    let serving = tokio::spawn(listeners.serve(Arc::clone(&broker.state), async {
        let _stop = stopped.await;
    }));
    let found = answer(&path).await;
    stop.send(()).unwrap();
    serving.await.unwrap();
    let metrics = broker.state.metrics.text();
    let refused = metrics.lines().find(|line| line.starts_with("entra_broker_refused_peers_total"));
    (found, refused.unwrap().to_owned())
}

#[tokio::test]
async fn a_peer_of_an_allowed_user_is_answered() {
    let (answer, refused) = serve(vec![1, own_uid()]).await;
    assert!(answer.starts_with("HTTP/1.1 200 OK"), "{answer}");
    assert_eq!(refused, "entra_broker_refused_peers_total 0");
}

#[tokio::test]
async fn b02_a_peer_of_another_user_is_refused_without_a_word() {
    let (answer, refused) = serve(vec![own_uid() + 1]).await;
    assert_eq!(answer, "");
    assert_eq!(refused, "entra_broker_refused_peers_total 1");
}

#[tokio::test]
async fn b03_over_tcp_a_strangers_errand_is_refused() {
    // A loopback address of this test's own, so that the port stays free until it is bound again.
    let address = {
        let free = std::net::TcpListener::bind("127.0.3.3:0").unwrap();
        free.local_addr().unwrap()
    };
    let broker = Broker::start(&Entra::new());
    let admin = "127.0.0.1:0".parse().unwrap();
    let listen = Listen { api: Api::Tcp(address), admin, compat: None };
    let listeners = Listeners::bind(&listen).await.unwrap();
    let _serving = tokio::spawn(listeners.serve(Arc::clone(&broker.state), std::future::pending()));
    for (fields, expected) in [
        ("host: token-broker\r\nx-envoy-internal: true", "200"),
        ("host: 127.0.3.3", "200"),
        ("host: evil.example", "403"),
        ("host: token-broker\r\norigin: https://evil.example", "403"),
    ] {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let head = format!("GET /v1/keys HTTP/1.1\r\n{fields}\r\nconnection: close\r\n\r\n");
        stream.write_all(head.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        assert_eq!(answer.get(9..12), Some(expected), "{fields}: {answer}");
    }
}

#[tokio::test]
async fn the_socket_and_its_directory_are_closed_to_others() {
    let (_directory, path) = in_new_directory();
    let listeners = Listeners::bind(&listen(&path, vec![own_uid()])).await.unwrap();
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&path), 0o660);
    assert_eq!(mode(path.parent().unwrap()), 0o750);
    let names: Vec<_> = fs::read_dir(path.parent().unwrap()).unwrap().collect();
    assert_eq!(names.len(), 1, "nothing is left beside it");
    drop(listeners);
    assert!(!path.exists(), "it goes with its listener");
}

#[tokio::test]
async fn a_stale_socket_is_replaced_and_nothing_else_is() {
    let (_directory, path) = in_new_directory();
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    drop(StdListener::bind(&path).unwrap());
    assert!(fs::metadata(&path).unwrap().file_type().is_socket());
    let first = Listeners::bind(&listen(&path, vec![own_uid()])).await.unwrap();
    StdStream::connect(&path).unwrap();

    let second = Listeners::bind(&listen(&path, vec![own_uid()])).await.err().unwrap();
    assert!(matches!(second, BindError::InUse(_)), "{second}");
    StdStream::connect(&path).unwrap();
    drop(first);

    fs::write(&path, "precious").unwrap();
    let refused = Listeners::bind(&listen(&path, vec![own_uid()])).await.err().unwrap();
    assert!(matches!(refused, BindError::NotASocket(_)), "{refused}");
    assert_eq!(fs::read_to_string(&path).unwrap(), "precious");
}

#[tokio::test]
async fn a_successors_socket_is_left_alone() {
    let (_directory, path) = in_new_directory();
    let first = Listeners::bind(&listen(&path, vec![own_uid()])).await.unwrap();
    fs::remove_file(&path).unwrap();
    let _successor = StdListener::bind(&path).unwrap();
    drop(first);
    StdStream::connect(&path).unwrap();
}

#[tokio::test]
async fn b07_connections_are_bounded_and_the_next_one_waits() {
    const LIMIT: usize = 512;
    let (_directory, path) = in_new_directory();
    let broker = Broker::start(&Entra::new());
    let listeners = Listeners::bind(&listen(&path, vec![own_uid()])).await.unwrap();
    let _serving = tokio::spawn(listeners.serve(Arc::clone(&broker.state), std::future::pending()));
    let mut open = Vec::new();
    for _ in 0..LIMIT {
        let mut stream = UnixStream::connect(&path).await.unwrap();
        ask(&mut stream).await;
        let mut start = [0; 12];
        stream.read_exact(&mut start).await.unwrap();
        assert_eq!(&start, b"HTTP/1.1 200");
        open.push(stream);
    }
    let mut next = UnixStream::connect(&path).await.unwrap();
    ask(&mut next).await;
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    let mut start = [0; 12];
    assert_eq!(next.try_read(&mut start).unwrap_err().kind(), std::io::ErrorKind::WouldBlock);
    let metrics = broker.state.metrics.text();
    assert!(metrics.contains(r#"entra_broker_connections{listener="api"} 512"#), "{metrics}");
    drop(open.pop());
    next.read_exact(&mut start).await.unwrap();
    assert_eq!(&start, b"HTTP/1.1 200");
}

#[tokio::test]
async fn b07_who_keeps_admin_connections_open_does_not_keep_the_probes_out() {
    const LIMIT: usize = 64;
    let (_directory, path) = in_new_directory();
    let broker = Broker::start(&Entra::new());
    let listeners = Listeners::bind(&listen(&path, vec![own_uid()])).await.unwrap();
    let admin = listeners.admin_address().unwrap();
    let _serving = tokio::spawn(listeners.serve(Arc::clone(&broker.state), std::future::pending()));
    let mut open = Vec::new();
    for _ in 0..=LIMIT {
        let mut stream = TcpStream::connect(admin).await.unwrap();
        stream.write_all(b"GET /healthz HTTP/1.1\r\nhost: admin\r\n\r\n").await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 200 OK"), "{answer}");
        assert!(answer.contains("connection: close"), "{answer}");
        open.push(stream);
    }
}

async fn ask(stream: &mut UnixStream) {
    stream.write_all(b"GET /v1/keys HTTP/1.1\r\nhost: broker\r\n\r\n").await.unwrap();
}
