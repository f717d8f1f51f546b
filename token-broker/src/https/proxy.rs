//! The proxy between the broker and Entra, as `HTTPS_PROXY` and `NO_PROXY` say.
//!
//! Only CONNECT through plain `http://` proxies: TLS is end to end with Entra, so the proxy sees
//! no secret. What cannot be honoured is an error, never a silent direct connection.

use std::sync::Arc;

use hyper::http::{HeaderValue, Uri};
use hyper_util::client::proxy::matcher::Matcher;
use policy::document::ConfigError;

use crate::config::environment::{Environment, HTTPS_PROXY, NO_PROXY};

/// Which destinations go through which proxy.
#[derive(Debug, Clone, Default)]
pub struct Proxy(Option<Arc<Matcher>>);

/// The proxy for one destination.
pub struct Hop {
    /// Address of the proxy.
    pub address: Uri,
    /// `Proxy-Authorization`, where the proxy's URL holds a user.
    pub authorization: Option<HeaderValue>,
}

impl Proxy {
    /// What the variables (upper case before lower) say.
    pub fn from_environment(environment: &dyn Environment) -> Result<Self, ConfigError> {
        let either = |name: &str| {
            environment.variable(name).or_else(|| environment.variable(&name.to_ascii_lowercase()))
        };
        let Some(url) = either(HTTPS_PROXY) else { return Ok(Self(None)) };
        let usable = url.parse::<Uri>().is_ok_and(|uri| {
            matches!(uri.scheme_str(), Some("http") | None)
                && uri.host().is_some_and(|host| !host.is_empty())
        });
        // Without the value: it may hold a password.
        let refused =
            || ConfigError::new(HTTPS_PROXY, "expected the URL of a proxy, `http://host:port`");
        if !usable {
            return Err(refused());
        }
        let matcher =
            Matcher::builder().https(url.clone()).no(either(NO_PROXY).unwrap_or_default()).build();
        // The library drops what it cannot read: ask it for a name that no rule exempts.
        let read = Matcher::builder().https(url).build();
        if read.intercept(&Uri::from_static("https://login.invalid")).is_none() {
            return Err(refused());
        }
        Ok(Self(Some(Arc::new(matcher))))
    }

    /// The proxy for `destination`; `None` is a direct connection.
    pub fn hop(&self, destination: &Uri) -> Option<Hop> {
        let intercept = self.0.as_ref()?.intercept(destination)?;
        Some(Hop {
            address: intercept.uri().clone(),
            authorization: intercept.basic_auth().cloned(),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn hop(variables: &[(&str, &str)]) -> Result<Option<String>, ConfigError> {
        let environment: BTreeMap<&str, &str> = variables.iter().copied().collect();
        let proxy = Proxy::from_environment(&environment)?;
        let destination = Uri::from_static("https://login.microsoftonline.com/x");
        Ok(proxy.hop(&destination).map(|hop| hop.address.to_string()))
    }

    #[test]
    fn the_variables_decide_which_destinations_are_proxied() {
        let there = Ok(Some("http://p:3128/".to_owned()));
        assert_eq!(hop(&[]), Ok(None));
        assert_eq!(hop(&[("HTTPS_PROXY", "http://p:3128")]), there);
        assert_eq!(hop(&[("https_proxy", "http://u:secret@p:3128")]), there);
        assert_eq!(hop(&[("HTTPS_PROXY", "p:3128")]), there);
        let direct = ["login.microsoftonline.com", ".microsoftonline.com", "a, *"];
        for exempt in direct {
            assert_eq!(hop(&[("HTTPS_PROXY", "http://p:3128"), ("NO_PROXY", exempt)]), Ok(None));
        }
        assert_eq!(hop(&[("HTTPS_PROXY", "http://p:3128"), ("no_proxy", "other.example")]), there);
    }

    #[test]
    fn a_proxy_that_cannot_be_used_is_an_error_without_its_password() {
        for url in ["https://u:secret@p:3128", "socks5://u:secret@p", "://", "http://"] {
            let error = hop(&[("HTTPS_PROXY", url)]).unwrap_err();
            assert_eq!(error.path, "HTTPS_PROXY");
            assert!(!error.message.contains("secret"));
        }
    }

    #[test]
    fn debug_shows_no_password() {
        let environment = BTreeMap::from([("HTTPS_PROXY", "http://u:secret@p:3128")]);
        let proxy = Proxy::from_environment(&environment).unwrap();
        assert!(!format!("{proxy:?}").contains("secret"));
    }
}
