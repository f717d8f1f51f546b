//! What attackers send: bytes that are no HTTP, HTTP that hides, HTTP/2 made by hand, and the
//! spellings of a header that only the filter may set.

use crate::client::{HeaderLines, Request};

/// First words of an HTTP/2 connection (RFC 9113 §3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Frame types (RFC 9113 §6).
const HEADERS: u8 = 1;
const RESET: u8 = 3;
const SETTINGS: u8 = 4;
const GOAWAY: u8 = 7;
/// Flags of HEADERS and DATA.
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

/// Bytes that a sniffing proxy may take for something else than what the application does, with a
/// name for each. `request` is in those that carry one.
pub fn around_http(request: &Request) -> Vec<(&'static str, Vec<u8>)> {
    let bytes = request.to_bytes();
    let before = |prefix: &[u8]| [prefix, &bytes].concat();
    // No byte below 32 and no letter: nothing that a parser of any text protocol takes.
    let noise: Vec<u8> = (0..512_u32).map(|at| (at * 167 % 96) as u8 | 0x80).collect();
    vec![
        ("a leading CRLF", before(b"\r\n")),
        ("a leading LF", before(b"\n")),
        ("many leading CRLF", before(&b"\r\n".repeat(64))),
        ("a leading space", before(b" ")),
        ("a leading NUL", before(b"\0")),
        ("a PROXY line", before(b"PROXY TCP4 10.0.0.1 10.0.0.2 1000 80\r\n")),
        ("noise before it", before(&noise)),
        ("noise", noise.clone()),
        ("HTTP/0.9", b"GET /\r\n".to_vec()),
        ("a greeting of SSH", b"SSH-2.0-OpenSSH_9.2\r\n".to_vec()),
        ("an inline command of Redis", b"PING\r\n".to_vec()),
        ("a start of PostgreSQL", b"\0\0\0\x08\x04\xd2\x16\x2f".to_vec()),
        ("half of a preface", b"PRI * HT".to_vec()),
        ("half of a ClientHello", b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03".to_vec()),
    ]
}

/// A header that a caller must not be able to set, as callers may try to set it all the same.
pub fn spellings(name: &str, value: &str) -> Vec<(&'static str, HeaderLines)> {
    let line = |name: &str, value: &str| (name.to_owned(), value.as_bytes().to_vec());
    let capitals: String = name.split('-').map(capital).collect::<Vec<_>>().join("-");
    let folded = format!("\r\n {value}");
    let list = format!("{value}, {value}");
    let padded = format!("\t {value} \t");
    let one = |name: &str| vec![line(name, value)];
    vec![
        ("as it is", one(name)),
        ("in upper case", one(&name.to_uppercase())),
        ("in capitals", one(&capitals)),
        ("with underscores", one(&name.replace('-', "_"))),
        ("with a space before the colon", one(&format!("{name} "))),
        ("with a tab before the colon", one(&format!("{name}\t"))),
        ("with a space before it", one(&format!(" {name}"))),
        ("on a folded line", vec![line(name, &folded)]),
        ("with space around the value", vec![line(name, &padded)]),
        ("as a list", vec![line(name, &list)]),
        ("on three lines", vec![line(name, value), line(name, "no"), line(name, value)]),
        ("empty first", vec![line(name, ""), line(name, value)]),
        ("named as a hop's own", vec![line("connection", name), line(name, value)]),
        ("beside close", vec![line("connection", &format!("close, {name}")), line(name, value)]),
        (
            "with an upgrade",
            vec![line("connection", "upgrade"), line("upgrade", "websocket"), line(name, value)],
        ),
        (
            "with an upgrade to HTTP/2",
            vec![
                line("connection", "Upgrade, HTTP2-Settings"),
                line("upgrade", "h2c"),
                line("http2-settings", "AAMAAABkAAQAAP__"),
                line(name, value),
            ],
        ),
        (
            "with two credentials",
            vec![
                line("authorization", "Bearer a"),
                line("authorization", "Bearer b"),
                line(name, value),
            ],
        ),
    ]
}

fn capital(word: &str) -> String {
    let mut letters = word.chars();
    let first = letters.next().map(|letter| letter.to_ascii_uppercase());
    first.into_iter().chain(letters).collect()
}

/// A connection of HTTP/2 with one request of exactly these lines on stream 1, without a body.
/// Nothing is checked: names may be in upper case, pseudo-headers may stand twice or last.
pub fn http2(lines: &[(&str, &str)]) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in lines {
        // Literal without indexing, new name, no Huffman code (RFC 7541 §6.2.2).
        block.push(0);
        for text in [name, value] {
            integer(&mut block, text.len());
            block.extend(text.as_bytes());
        }
    }
    let mut bytes = PREFACE.to_vec();
    bytes.extend(frame(SETTINGS, 0, 0, &[]));
    bytes.extend(frame(HEADERS, END_STREAM | END_HEADERS, 1, &block));
    bytes
}

/// An integer with a prefix of seven bits (RFC 7541 §5.1).
fn integer(block: &mut Vec<u8>, number: usize) {
    let Some(mut rest) = number.checked_sub(127) else { return block.push(number as u8) };
    block.push(127);
    while rest >= 128 {
        block.push((rest % 128) as u8 | 128);
        rest /= 128;
    }
    block.push(rest as u8);
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("a payload of a test").to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

struct Frame<'a> {
    kind: u8,
    flags: u8,
    stream: u32,
    payload: &'a [u8],
}

/// The whole frames at the beginning of bytes.
fn frames(mut bytes: &[u8]) -> Vec<Frame<'_>> {
    let mut frames = Vec::new();
    while let Some((head, rest)) = bytes.split_first_chunk::<9>() {
        let [a, b, c, kind, flags, stream @ ..] = *head;
        let length = usize::try_from(u32::from_be_bytes([0, a, b, c])).unwrap_or(usize::MAX);
        let Some((payload, rest)) = rest.split_at_checked(length) else { break };
        frames.push(Frame { kind, flags, stream: u32::from_be_bytes(stream), payload });
        bytes = rest;
    }
    frames
}

/// Whether the stream of [`http2`]'s request has ended, or the connection.
pub(super) fn is_whole_http2(bytes: &[u8]) -> bool {
    frames(bytes).iter().any(|frame| match frame.kind {
        GOAWAY => true,
        RESET => frame.stream == 1,
        0 | HEADERS => frame.stream == 1 && frame.flags & END_STREAM != 0,
        _ => false,
    })
}

/// `:status` of the first answer, which stands first in its block.
pub(super) fn http2_status(bytes: &[u8]) -> Option<u16> {
    let frames = frames(bytes);
    let answer = frames.iter().find(|frame| frame.kind == HEADERS && frame.stream == 1)?;
    // Changes of the table's size may come before (RFC 7541 §6.3); they are one byte when small,
    // and go on while the highest bit is set when they are not.
    let mut block = answer.payload;
    while let [0x20..=0x3f, rest @ ..] = block {
        let is_long = block.first() == Some(&0x3f);
        let more =
            if is_long { rest.iter().take_while(|byte| **byte >= 128).count() + 1 } else { 0 };
        block = rest.get(more..)?;
    }
    // The static table's own entries, then a literal with the name from there (§6.1, §6.2).
    match block {
        [entry @ 0x88..=0x8e, ..] => {
            [200, 204, 206, 304, 400, 404, 500].get(usize::from(*entry) - 0x88).copied()
        }
        [0x08..=0x0e | 0x18..=0x1e | 0x48..=0x4e, length, text @ ..] => {
            let text = text.get(..usize::from(length & 127))?;
            let digits = if length & 128 == 0 { text.to_vec() } else { of_huffman(text) };
            std::str::from_utf8(&digits).ok()?.parse().ok()
        }
        _ => None,
    }
}

/// Digits in the Huffman code of header values: 0 to 2 have five bits, 3 to 9 six (RFC 7541 B).
fn of_huffman(bytes: &[u8]) -> Vec<u8> {
    let bits: Vec<u8> =
        bytes.iter().flat_map(|byte| (0..8).rev().map(move |at| byte >> at & 1)).collect();
    let number = |bits: &[u8]| bits.iter().fold(0, |number, bit| number << 1 | bit);
    let mut digits = Vec::new();
    let mut at = 0;
    while digits.len() < 3 {
        let Some(five) = bits.get(at..at + 5).map(number) else { break };
        if five <= 2 {
            digits.push(b'0' + five);
            at += 5;
            continue;
        }
        match bits.get(at..at + 6).map(number) {
            Some(six @ 0x19..=0x1f) => digits.push(b'3' + six - 0x19),
            _ => break,
        }
        at += 6;
    }
    digits
}

/// Whether bytes hold a whole answer of HTTP/1.1: head, and a body of the length that it says.
pub(super) fn is_whole_http1(bytes: &[u8]) -> bool {
    let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") else { return false };
    let head = String::from_utf8_lossy(&bytes[..end]).to_ascii_lowercase();
    let value = |name: &str| {
        head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':').map(str::trim))
    };
    match value("content-length") {
        Some(length) => length.parse().is_ok_and(|length: usize| bytes.len() >= end + 4 + length),
        None if value("transfer-encoding").is_some() => bytes.ends_with(b"0\r\n\r\n"),
        // Until the connection ends, unless there is none by its status.
        None => [" 204 ", " 304 "].iter().any(|status| head.contains(status)),
    }
}
