//! The program itself: arguments, output, exit codes, signals.

use std::{
    io::{BufRead, BufReader, Read},
    os::unix::fs::FileTypeExt,
    path::Path,
    process::{Command, Output, Stdio},
};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::support::{CLIENT, SECRET, TENANT};

fn program() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_token-broker"));
    command.env_clear();
    command
}

fn run(arguments: &[&str]) -> (Option<i32>, String, String) {
    let Output { status, stdout, stderr } = program().args(arguments).output().unwrap();
    (status.code(), String::from_utf8(stdout).unwrap(), String::from_utf8(stderr).unwrap())
}

fn write(directory: &Path, text: &str) -> String {
    let path = directory.join("broker.yaml");
    std::fs::write(&path, text).unwrap();
    path.to_str().unwrap().to_owned()
}

#[test]
fn check_says_what_a_good_file_means() {
    let directory = tempfile::tempdir().unwrap();
    let file = write(
        directory.path(),
        &format!(
            "{{authorities: [{{cloud: public, tenants: [organizations]}}],
               identities: {{batch: {{client_secret: {{tenant: {TENANT}, client_id: {CLIENT}, file: /s}},
                                     scopes: [api://a/.default]}}}},
               listen: {{api: {{tcp: '127.0.0.1:7171', trust_whole_pod: true}}}}}}"
        ),
    );
    let (code, stdout, stderr) = run(&["check", "--config", &file]);
    assert_eq!((code, stderr.as_str()), (Some(0), ""));
    let expected = format!(
        "configuration: ok\n\
         keys of: https://login.microsoftonline.com/{{tenantid}}/v2.0\n\
         identity batch: client secret, application {CLIENT} of tenant {TENANT} (public cloud), \
         scopes api://a/.default\n\
         api: 127.0.0.1:7171: every process of the pod can have the tokens\n\
         admin: 127.0.0.1:7172\n"
    );
    assert_eq!(stdout, expected);
}

#[test]
fn check_says_loudly_what_the_compat_listener_hands_out() {
    let directory = tempfile::tempdir().unwrap();
    let text = crate::compat_imds::text("/s", "identities: [default, batch], default: batch");
    let (code, stdout, _) = run(&["check", "--config", &write(directory.path(), &text)]);
    assert_eq!(code, Some(0));
    let expected = "compat: 127.0.0.1:7173: every process of the pod can have the tokens of\n  \
                    default batch, by managed identity endpoints (without X-IDENTITY-HEADER); \
                    batch to whoever names none\n";
    assert!(stdout.ends_with(expected), "{stdout}");
}

#[test]
fn errors_are_lines_on_standard_error_and_exit_code_1() {
    let directory = tempfile::tempdir().unwrap();
    let file = write(directory.path(), "{identities: {a: {scopes: []}}, more: 1}");
    for command in ["check", "serve"] {
        let (code, stdout, stderr) = run(&[command, "--config", &file]);
        assert_eq!((code, stdout.as_str()), (Some(1), ""));
        let lines: Vec<&str> = stderr.lines().collect();
        assert_eq!(lines.len(), 2, "{stderr}");
        assert!(lines[0].starts_with("more: unknown field `more`"), "{stderr}");
        assert!(lines[1].starts_with("identities.a: no source"), "{stderr}");
    }
    let (code, _, stderr) = run(&["check", "--config", "/nowhere/broker.yaml"]);
    assert_eq!(code, Some(1));
    assert!(stderr.starts_with("cannot read /nowhere/broker.yaml"), "{stderr}");
    // Without a file and without variables.
    let (code, _, stderr) = run(&["serve"]);
    assert_eq!(code, Some(1));
    assert!(stderr.contains("AZURE_TENANT_ID: missing"), "{stderr}");
}

#[test]
fn wrong_arguments_are_exit_code_2() {
    assert_eq!(run(&[]).0, Some(2));
    assert_eq!(run(&["serve", "--insecure"]).0, Some(2));
    assert_eq!(run(&["--help"]).0, Some(0));
}

#[test]
fn a_broker_that_cannot_start_says_why_and_ends() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("not-a-socket");
    std::fs::write(&socket, "x").unwrap();
    let file = write(
        directory.path(),
        &format!(
            "{{authorities: [{{cloud: public, tenants: [organizations]}}],
               listen: {{api: {{unix: {}}}, admin: '127.0.0.1:0'}}}}",
            socket.display()
        ),
    );
    let (code, stdout, _) = run(&["serve", "--config", &file]);
    assert_eq!(code, Some(1));
    assert!(stdout.contains("is there and is not a socket"), "{stdout}");
    let with_ca = std::fs::read_to_string(&file)
        .unwrap()
        .replace("{authorities", "{ca_file: /nowhere/ca.pem, authorities");
    let file = write(directory.path(), &with_ca);
    let (code, stdout, _) = run(&["serve", "--config", &file]);
    assert_eq!(code, Some(1));
    assert!(stdout.contains("ca_file: /nowhere/ca.pem"), "{stdout}");
}

#[test]
fn check_opens_the_files_that_the_start_needs() {
    let directory = tempfile::tempdir().unwrap();
    let ca_file = directory.path().join("ca.pem");
    let file = write(
        directory.path(),
        &format!(
            "{{authorities: [{{cloud: public, tenants: [organizations]}}], ca_file: {}}}",
            ca_file.display()
        ),
    );
    let check = |expected: &str| {
        let (code, stdout, stderr) = run(&["check", "--config", &file]);
        assert_eq!((code, stdout.as_str()), (Some(1), ""));
        let start = format!("ca_file: {}: ", ca_file.display());
        assert!(stderr.starts_with(&start) && stderr.contains(expected), "{stderr}");
    };
    check("not found");
    std::fs::write(&ca_file, "no PEM").unwrap();
    check("no certificate in it");
    std::fs::write(&ca_file, "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
        .unwrap();
    check("a certificate cannot be read");
    std::fs::write(&ca_file, vec![b'\n'; 4 * 1024 * 1024 + 1]).unwrap();
    check("larger than");
    // A configuration without an end is not read at all.
    let (code, _, stderr) = run(&["check", "--config", "/dev/zero"]);
    assert_eq!(code, Some(1));
    assert!(stderr.contains("cannot read /dev/zero: not a file"), "{stderr}");
}

#[test]
fn it_follows_its_file() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("b.sock");
    let text = |tenant: &str| {
        format!(
            "{{authorities: [{{cloud: public, tenants: [{tenant}]}}],
               listen: {{api: {{unix: {}}}, admin: '127.0.0.1:0'}}}}",
            socket.display()
        )
    };
    let file = write(directory.path(), &text("organizations"));
    let mut broker = program()
        .args(["serve", "--config", &file])
        .env("HTTPS_PROXY", "http://127.0.0.1:9")
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut log = BufReader::new(broker.stdout.take().unwrap()).lines().map(Result::unwrap);
    log.find(|line| line.contains("keys not fetched")).unwrap();
    write(directory.path(), &text(TENANT));
    log.find(|line| line.contains("configuration in force")).unwrap();
    log.find(|line| line.contains("keys not fetched") && line.contains(TENANT)).unwrap();
    kill_process(Pid::from_child(&broker), Signal::TERM).unwrap();
    assert_eq!(broker.wait().unwrap().code(), Some(0));
}

#[test]
fn it_serves_logs_json_without_secrets_and_stops_on_sigterm() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("b.sock");
    let secret = directory.path().join("secret");
    std::fs::write(&secret, SECRET).unwrap();
    std::fs::set_permissions(&secret, std::os::unix::fs::PermissionsExt::from_mode(0o400)).unwrap();
    let file = write(
        directory.path(),
        &format!(
            "{{authorities: [{{cloud: public, tenants: [organizations]}}],
               identities: {{default: {{client_secret: {{tenant: {TENANT}, client_id: {CLIENT}, file: {}}},
                                        scopes: [api://a/.default]}}}},
               listen: {{api: {{unix: {}}}, admin: '127.0.0.1:0'}}}}",
            secret.display(),
            socket.display()
        ),
    );
    for signal in [Signal::TERM, Signal::INT] {
        // A proxy that nobody is behind: Entra is not reachable, and the broker runs all the same.
        let mut broker = program()
            .args(["serve", "--config", &file])
            .env("HTTPS_PROXY", "http://user:canary-proxy-password@127.0.0.1:9")
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut log = BufReader::new(broker.stdout.take().unwrap());
        let mut lines = Vec::new();
        while !lines.iter().any(|line: &String| line.contains("token not acquired")) {
            let mut line = String::new();
            assert_ne!(log.read_line(&mut line).unwrap(), 0, "{lines:?}");
            lines.push(line);
        }
        assert!(std::fs::metadata(&socket).unwrap().file_type().is_socket());
        kill_process(Pid::from_child(&broker), signal).unwrap();
        assert_eq!(broker.wait().unwrap().code(), Some(0));
        assert!(!socket.exists());
        let mut rest = String::new();
        log.read_to_string(&mut rest).unwrap();
        lines.extend(rest.lines().map(str::to_owned));
        for line in &lines {
            let entry: Value = serde_json::from_str(line).unwrap();
            assert!(entry["level"].is_string() && entry["timestamp"].is_string());
            assert!(!line.contains("canary"), "{line}");
        }
        assert!(lines.last().unwrap().contains("\"stopped\""), "{lines:?}");
    }
}
