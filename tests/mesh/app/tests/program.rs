//! The program as it runs in a pod, on loopback: what it says about what reached it, and what its
//! client commands say about what they got.

#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    reason = "a test: what goes wrong fails it"
)]

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream, UdpSocket},
    process::{Child, Command, Stdio},
    sync::mpsc::{Receiver, channel},
    time::{Duration, Instant},
};

use serde_json::{Value, json};

const DEADLINE: Duration = Duration::from_secs(20);
const PROGRAM: &str = env!("CARGO_BIN_EXE_mesh-app");

/// A running `serve`, with the lines that it writes.
struct App {
    child: Child,
    lines: Receiver<Value>,
    ports: Vec<u16>,
}

impl App {
    /// Starts it with these kinds of ports, one each.
    fn serve(kinds: &[&str]) -> Self {
        let mut command = Command::new(PROGRAM);
        command.args(["serve", "--address", "127.0.0.1"]);
        for kind in kinds {
            command.args([&format!("--{kind}"), "0"]);
        }
        let mut child = command.stdout(Stdio::piped()).spawn().expect("the program starts");
        let output = BufReader::new(child.stdout.take().expect("its output"));
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            for line in output.lines().map_while(Result::ok) {
                let event = serde_json::from_str(&line).expect("a line is JSON");
                if sender.send(event).is_err() {
                    return;
                }
            }
        });
        let mut app = Self { child, lines, ports: Vec::new() };
        for kind in kinds {
            let event = app.event("listening");
            assert_eq!(event["kind"], *kind);
            let port = event["port"].as_u64().and_then(|port| u16::try_from(port).ok());
            app.ports.push(port.expect("a port"));
        }
        app
    }

    /// The next line, which must be of this kind.
    fn event(&self, kind: &str) -> Value {
        let event = self.lines.recv_timeout(DEADLINE).expect("a line before the deadline");
        assert_eq!(event["event"], kind, "{event}");
        event
    }

    fn at(&self, number: usize) -> String {
        format!("127.0.0.1:{}", self.ports[number])
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.at(0))
    }

    /// Ends it as a kubelet does; answers what it had written that nobody read.
    fn stop(mut self) -> Vec<Value> {
        let id = self.child.id().to_string();
        let killed = Command::new("kill").args(["-TERM", &id]).status().expect("kill runs");
        assert!(killed.success());
        let until = Instant::now() + DEADLINE;
        while self.child.try_wait().expect("its state").is_none() {
            assert!(Instant::now() < until, "it does not end when it is told to");
            std::thread::yield_now();
        }
        self.lines.iter().collect()
    }
}

impl Drop for App {
    fn drop(&mut self) {
        let _ended_already = self.child.kill();
        let _reaped = self.child.wait();
    }
}

/// Runs a client command; answers its exit code and lines.
fn run(arguments: &[&str]) -> (Option<i32>, Vec<Value>) {
    let output = Command::new(PROGRAM).args(arguments).output().expect("the program runs");
    let text = String::from_utf8(output.stdout).expect("text");
    let lines = text.lines().map(|line| serde_json::from_str(line).expect("a line is JSON"));
    (output.status.code(), lines.collect())
}

/// One call that is answered.
fn call(arguments: &[&str]) -> Value {
    let (code, mut lines) = run(&[&["call"], arguments].concat());
    assert_eq!((code, lines.len()), (Some(0), 2), "{lines:?}");
    lines.swap_remove(0)
}

fn connect(address: &str) -> TcpStream {
    let stream = TcpStream::connect(address).expect("a connection");
    stream.set_read_timeout(Some(DEADLINE)).expect("a deadline");
    stream
}

/// The JSON in an answer's body.
fn body(answer: &Value) -> Value {
    serde_json::from_str(answer["body"].as_str().expect("a body")).expect("JSON")
}

#[test]
fn the_answer_is_the_request_and_the_log_has_no_credential() {
    let app = App::serve(&["http"]);
    let bearer = "authorization: Bearer very-secret";
    for (options, version) in [(vec![], "1.1"), (vec!["--http2"], "2")] {
        let url = app.url("/orders?x=1");
        let rest = ["-H", bearer, "-H", "x-a: 1", "-H", "x-a: 2", "--data", "four"];
        let answer = call(&[&["POST", &url], &rest[..], &options].concat());
        assert_eq!((&answer["status"], &answer["version"]), (&json!(200), &json!(version)));
        let saw = body(&answer);
        assert_eq!((&saw["method"], &saw["path"]), (&json!("POST"), &json!("/orders?x=1")));
        assert_eq!((&saw["body_length"], &saw["body"]), (&json!(4), &json!("four")));
        let headers = saw["headers"].as_array().expect("headers");
        assert!(headers.contains(&json!(["authorization", "Bearer very-secret"])), "{saw}");
        let lines: Vec<_> = headers.iter().filter(|line| line[0] == "x-a").collect();
        assert_eq!(lines, [&json!(["x-a", "1"]), &json!(["x-a", "2"])]);

        assert_eq!(app.event("connection")["port"], app.ports[0]);
        assert!(app.event("bytes")["length"].as_u64() > Some(20));
        let request = app.event("request");
        assert_eq!((&request["version"], &request["path"]), (&json!(version), &saw["path"]));
        assert!(!request.to_string().contains("very-secret"), "{request}");
        let headers = request["headers"].as_array().expect("headers");
        assert!(headers.contains(&json!(["authorization", "<18 bytes>"])), "{request}");
    }
    assert_eq!(app.stop(), Vec::<Value>::new());
}

#[test]
fn raw_ports_write_down_every_connection_and_byte_and_banners_come_first() {
    let app = App::serve(&["tcp", "banner"]);
    let silent = connect(&app.at(0));
    app.event("connection");
    drop(silent);
    assert_eq!(app.event("closed")["bytes"], 0);
    let (code, lines) = run(&["tcp", &app.at(0), "--hex", "00ff0d0a", "--timeout-ms", "300"]);
    assert_eq!((code, &lines[0]["end"], &lines[0]["hex"]), (Some(0), &json!("open"), &json!("")));
    app.event("connection");
    assert_eq!(app.event("bytes")["hex"], "00ff0d0a");
    assert_eq!(app.event("closed")["bytes"], 4);

    let mut waiting = connect(&app.at(1));
    let mut banner = [0; 22];
    waiting.read_exact(&mut banner).expect("a banner before anything is sent");
    assert_eq!(&banner, b"220 ready when you are");
    assert_eq!(app.event("connection")["port"], app.ports[1]);
    drop(waiting);
    app.event("closed");
    assert_eq!(app.stop(), Vec::<Value>::new());
}

#[test]
fn probes_of_the_health_port_leave_no_line() {
    let app = App::serve(&["http", "health"]);
    for path in ["/healthz", "/readyz"] {
        assert_eq!(call(&["GET", &format!("http://{}{path}", app.at(1))])["status"], 200);
    }
    assert_eq!(call(&["GET", &format!("http://{}/orders", app.at(1))])["status"], 404);
    assert_eq!(call(&["GET", &app.url("/readyz")])["status"], 200);
    let kinds: Vec<_> = app.stop().iter().map(|event| event["event"].clone()).collect();
    assert_eq!(kinds, ["connection", "bytes", "request"], "the request to the other port only");
}

#[test]
fn a_silent_port_answers_everything_with_nothing_and_leaves_no_line() {
    let app = App::serve(&["silent"]);
    let answer = call(&["POST", &app.url("/orders/7"), "--data", "four"]);
    assert_eq!((&answer["status"], &answer["body"]), (&json!(200), &json!("")));
    assert_eq!(app.stop(), Vec::<Value>::new());
}

#[test]
fn answers_can_be_chosen_delayed_and_streamed() {
    let app = App::serve(&["http"]);
    assert_eq!(call(&["GET", &app.url("/status/503")])["status"], 503);
    assert_eq!(call(&["GET", &app.url("/status/none")])["status"], 400);
    assert_eq!(call(&["GET", &app.url("/stream/3/1")])["body"], "2\n1\n0\n");
    let (code, lines) = run(&["call", "GET", &app.url("/delay/20000"), "--timeout-ms", "100"]);
    assert_eq!((code, &lines[0]["event"]), (Some(1), &json!("failure")));
    assert_eq!(lines[0]["error"], "no answer in time");
    assert_eq!(lines[1], json!({"event": "summary", "answers": 0, "failures": 1, "statuses": {}}));
}

#[test]
fn an_upgrade_echoes_bytes() {
    let app = App::serve(&["http"]);
    let mut stream = connect(&app.at(0));
    let request =
        "GET /chat HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n";
    stream.write_all(request.as_bytes()).expect("a request");
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).expect("a head");
        head.push(byte[0]);
    }
    assert!(head.starts_with(b"HTTP/1.1 101 "), "{}", String::from_utf8_lossy(&head));
    for word in [b"first", b"again"] {
        stream.write_all(word).expect("bytes");
        let mut back = [0; 5];
        stream.read_exact(&mut back).expect("the same bytes");
        assert_eq!(&back, word);
    }
}

#[test]
fn a_grpc_call_gets_its_message_back_and_its_status_in_trailers() {
    let app = App::serve(&["http"]);
    let kind = "content-type: application/grpc";
    let answer =
        call(&["POST", &app.url("/a.B/C"), "--http2", "-H", kind, "--data", "\u{1}message"]);
    assert_eq!((&answer["status"], &answer["body"]), (&json!(200), &json!("\u{1}message")));
    assert_eq!(answer["trailers"], json!([["grpc-status", "0"]]));
}

#[test]
fn every_answer_and_every_failure_is_counted() {
    let app = App::serve(&["http"]);
    for (options, connections) in [(&["--keep-alive"][..], 1), (&[], 5)] {
        let url = app.url("/status/204");
        let fixed = ["call", "GET", &url, "--repeat", "5", "--interval-ms", "1", "--quiet"];
        let (code, lines) = run(&[&fixed, options].concat());
        let summary =
            json!({"event": "summary", "answers": 5, "failures": 0, "statuses": {"204": 5}});
        assert_eq!((code, lines), (Some(0), vec![summary]));
        let seen: Vec<_> = std::iter::repeat_with(|| app.lines.recv_timeout(DEADLINE))
            .map(|event| event.expect("a line before the deadline")["event"].clone())
            .take(5 + 2 * connections)
            .collect();
        let opened = seen.iter().filter(|event| **event == "connection").count();
        assert_eq!(opened, connections, "{seen:?}");
    }
    let url = app.url("/");
    app.stop();
    let (code, lines) = run(&["call", "GET", &url, "--repeat", "2"]);
    assert_eq!((code, lines.len()), (Some(1), 3));
    assert_eq!(lines[2]["failures"], 2);
}

#[test]
fn a_call_can_go_elsewhere_than_its_url_says() {
    let app = App::serve(&["http"]);
    let to = app.at(0);
    let answer = call(&["GET", "http://graph.microsoft.com/me", "--connect", &to]);
    let headers = body(&answer)["headers"].clone();
    assert_eq!(headers, json!([["host", "graph.microsoft.com"]]));
    let other = ["-H", "host: evil.example"];
    let url = ["GET", "http://graph.microsoft.com/me", "--connect", &to];
    assert_eq!(body(&call(&[&url[..], &other].concat()))["headers"][0][1], "evil.example");
    let both = body(&call(&[&url[..], &other, &["--http2"]].concat()));
    assert_eq!(both["authority"], "graph.microsoft.com");
    assert_eq!(both["headers"], json!([["host", "evil.example"]]));
}

#[test]
fn a_socket_that_is_not_there_and_one_that_is() {
    let nowhere = "/nowhere/broker.sock";
    let (code, lines) = run(&["unix", nowhere, "GET", "/v1/token"]);
    assert_eq!((code, &lines[0]["event"]), (Some(1), &json!("failure")));
    assert!(lines[0]["error"].as_str().expect("a reason").contains("No such file"), "{lines:?}");

    let path = std::env::temp_dir().join(format!("mesh-app-{}.sock", std::process::id()));
    let _none = std::fs::remove_file(&path);
    let listener = std::os::unix::net::UnixListener::bind(&path).expect("a socket");
    let server = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("a connection");
        let mut buffer = [0; 512];
        let length = stream.read(&mut buffer).expect("a request");
        stream.write_all(b"HTTP/1.1 403 No\r\ncontent-length: 0\r\n\r\n").expect("an answer");
        String::from_utf8_lossy(&buffer[..length]).into_owned()
    });
    let (code, lines) = run(&["unix", path.to_str().expect("a path"), "GET", "/v1/token"]);
    let asked = server.join().expect("the server ends");
    std::fs::remove_file(&path).expect("the socket goes");
    assert!(asked.starts_with("GET /v1/token HTTP/1.1\r\nhost: localhost\r\n"), "{asked}");
    assert_eq!((code, &lines[0]["status"]), (Some(0), &json!(403)));
}

#[test]
fn datagrams_come_back_and_their_absence_is_said() {
    let app = App::serve(&["udp-echo"]);
    let (code, lines) = run(&["udp", &app.at(0), "hello"]);
    assert_eq!((code, &lines[0]["text"]), (Some(0), &json!("hello")));
    assert_eq!(app.event("datagram")["hex"], "68656c6c6f");
    let deaf = UdpSocket::bind("127.0.0.1:0").expect("a port");
    let address = deaf.local_addr().expect("an address").to_string();
    let (code, lines) = run(&["udp", &address, "hello", "--timeout-ms", "50"]);
    assert_eq!((code, &lines[0]["event"]), (Some(1), &json!("failure")));
}

#[test]
fn a_tcp_connection_says_how_it_ended() {
    let closing = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = closing.local_addr().expect("an address").to_string();
    let server = std::thread::spawn(move || {
        let (mut stream, _) = closing.accept().expect("a connection");
        let mut word = [0; 5];
        stream.read_exact(&mut word).expect("the word");
        stream.write_all(b"bye").expect("an answer");
    });
    let (code, lines) = run(&["tcp", &address, "--data", "hello", "--timeout-ms", "20000"]);
    server.join().expect("the server ends");
    assert_eq!(
        (code, &lines[0]["end"], &lines[0]["text"]),
        (Some(0), &json!("closed"), &json!("bye"))
    );
    let (code, lines) = run(&["tcp", &address]);
    assert_eq!((code, &lines[0]["end"]), (Some(1), &json!("refused")));
}

#[test]
fn a_command_that_is_not_understood_is_refused() {
    for arguments in [
        &["serve"][..],
        &["serve", "--http"],
        &["serve", "--http", "x"],
        &["serve", "--https", "1"],
        &["call", "GET", "https://a/"],
        &["call", "GET", "/orders"],
        &["call", "GET", "http://a/", "-H", "no line"],
        &["call", "G T", "http://a/"],
        &["tcp", "a:1", "--hex", "abc"],
        &["tcp", "a:1", "--hex", "zz"],
        &["shell"],
        &[],
    ] {
        assert_eq!(run(arguments), (Some(2), vec![]), "{arguments:?}");
    }
}
