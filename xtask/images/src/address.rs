//! `HOST[:PORT][/PREFIX]`, as a person writes a registry.
//!
//! A login in clear is a login given away, so plain HTTP is for loopback and private addresses
//! only, and only where they are written as numbers: a name may be answered by anybody.

use std::net::IpAddr;

use anyhow::{Result, bail};

/// A registry and what stands before the images' names in it.
#[derive(Debug, PartialEq)]
pub(crate) struct Address {
    /// Host and port, as in a reference.
    pub(crate) host: String,
    /// Empty, or ends with a slash.
    pub(crate) prefix: String,
    /// How it may be spoken to.
    pub(crate) scheme: Scheme,
}

/// How a registry may be spoken to.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Scheme {
    /// TLS, and nothing else.
    Https,
    /// TLS, or plain where the other side does not speak TLS.
    Either,
    /// Plain, as asked for.
    Http,
}

impl Address {
    /// Reads an address.
    pub(crate) fn parse(text: &str) -> Result<Self> {
        let (wanted, rest) = match text.split_once("://") {
            Some((scheme @ ("http" | "https"), rest)) => (Some(scheme), rest),
            Some((scheme, _)) => bail!("`{scheme}` is no scheme of a registry"),
            None => (None, text),
        };
        let (host, prefix) = rest.split_once('/').unwrap_or((rest, ""));
        let prefix = prefix.trim_end_matches('/');
        if host.contains('@') {
            bail!("a login does not belong into an address: use `docker login`");
        }
        let plain = |letter: char| letter.is_ascii_alphanumeric() || ".-:[]".contains(letter);
        if host.is_empty() || !host.chars().all(plain) {
            bail!("`{host}` is no host");
        }
        if !prefix.is_empty() && !prefix.split('/').all(is_component) {
            bail!("`{prefix}` is no prefix: lower case letters, figures and `._-` between slashes");
        }
        let scheme = match (wanted, is_near(host)) {
            (Some("https"), _) | (None, false) => Scheme::Https,
            (None, true) => Scheme::Either,
            (Some(_), true) => Scheme::Http,
            (Some(_), false) => {
                bail!("plain HTTP is for loopback and private addresses only, and {host} is none")
            }
        };
        let prefix = if prefix.is_empty() { String::new() } else { format!("{prefix}/") };
        Ok(Self { host: host.to_owned(), prefix, scheme })
    }

    /// Where its API is: Docker Hub has it under another name.
    pub(crate) fn server(&self) -> &str {
        match &*self.host {
            "docker.io" | "index.docker.io" => "registry-1.docker.io",
            host => host,
        }
    }
}

/// A part of a repository's name (OCI distribution specification 1.1, "Pulling manifests").
fn is_component(text: &str) -> bool {
    let edge = |letter: Option<char>| {
        letter.is_some_and(|letter| letter.is_ascii_lowercase() || letter.is_ascii_digit())
    };
    let inner = |letter: char| edge(Some(letter)) || "._-".contains(letter);
    text.chars().all(inner) && edge(text.chars().next()) && edge(text.chars().next_back())
}

/// Whether a host is this machine or a private address, written as a number.
fn is_near(host: &str) -> bool {
    let name = match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => host.split(':').next().unwrap_or_default(),
    };
    match name.parse() {
        Ok(IpAddr::V4(address)) => address.is_loopback() || address.is_private(),
        Ok(IpAddr::V6(address)) => address.is_loopback() || address.is_unique_local(),
        Err(_) => name == "localhost",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, host: &str, prefix: &str, scheme: Scheme) {
        let expected = Address { host: host.to_owned(), prefix: prefix.to_owned(), scheme };
        assert_eq!(Address::parse(text).unwrap(), expected, "{text}");
    }

    #[test]
    fn an_address_is_a_host_and_a_prefix() {
        check("registry.example", "registry.example", "", Scheme::Https);
        check("registry.example:5000/a/b-c/", "registry.example:5000", "a/b-c/", Scheme::Https);
        check("https://10.0.0.1", "10.0.0.1", "", Scheme::Https);
    }

    #[test]
    fn plain_http_is_for_near_addresses_only() {
        check("127.0.0.1:5000", "127.0.0.1:5000", "", Scheme::Either);
        check("localhost:5000/x", "localhost:5000", "x/", Scheme::Either);
        check("10.88.0.1:5000", "10.88.0.1:5000", "", Scheme::Either);
        check("[fd00::1]:5000", "[fd00::1]:5000", "", Scheme::Either);
        check("http://192.168.1.1", "192.168.1.1", "", Scheme::Http);
        for far in ["registry.example", "8.8.8.8", "127.0.0.1.example", "[2001:db8::1]:5000"] {
            let error = Address::parse(&format!("http://{far}")).unwrap_err().to_string();
            assert!(error.contains("plain HTTP"), "{error}");
            assert_eq!(Address::parse(far).unwrap().scheme, Scheme::Https);
        }
    }

    #[test]
    fn what_is_no_address_is_refused_and_a_password_not_repeated() {
        for wrong in ["", "/x", "a/B", "a/.", "a/../b", "a/b//c", "ftp://a", "a b", "a\nb"] {
            assert!(Address::parse(wrong).is_err(), "{wrong}");
        }
        let error = Address::parse("user:hidden@registry.example").unwrap_err().to_string();
        assert!(error.contains("docker login") && !error.contains("hidden"), "{error}");
    }

    #[test]
    fn docker_hub_answers_under_another_name() {
        assert_eq!(Address::parse("docker.io/me").unwrap().server(), "registry-1.docker.io");
    }
}
