//! An answer before it goes out: status, headers, body, and how a fault spoils it.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use hyper::{
    Response,
    body::{Frame, SizeHint},
    header::{CONTENT_LENGTH, HeaderName, HeaderValue},
};
use serde_json::{Map, Value, json};

use super::{
    refusal::{Reference, Refusal},
    server::Asked,
};

/// An answer of the fake.
pub(super) struct Answer {
    pub(super) status: u16,
    /// AADSTS number, when it is a refusal.
    pub(super) refused: Option<u32>,
    /// `uti`, when a token is issued.
    pub(super) issued: Option<String>,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
    cut: bool,
}

impl Answer {
    fn new(status: u16, content_type: &str, body: Vec<u8>) -> Self {
        let headers = vec![("content-type".to_owned(), content_type.to_owned())];
        Self { status, refused: None, issued: None, headers, body, cut: false }
    }

    pub(super) fn empty(status: u16) -> Self {
        Self { headers: Vec::new(), ..Self::new(status, "", Vec::new()) }
    }

    pub(super) fn json_text(status: u16, body: String) -> Self {
        Self::new(status, "application/json; charset=utf-8", body.into_bytes())
    }

    pub(super) fn html(status: u16, text: &str) -> Self {
        let page = format!(
            "<!DOCTYPE html><html><head><title>{text}</title></head><body><h2>{text}</h2></body></html>"
        );
        Self::new(status, "text/html; charset=utf-8", page.into_bytes())
    }

    pub(super) fn huge(bytes: usize) -> Self {
        let mut body = vec![b'a'; bytes];
        for end in [0, bytes.saturating_sub(1)] {
            if let Some(byte) = body.get_mut(end) {
                *byte = b'"';
            }
        }
        Self::new(200, "application/json; charset=utf-8", body)
    }

    /// A public document, which anybody may keep for a day.
    pub(super) fn document(document: &Value) -> Self {
        Self::json_text(200, document.to_string())
            .header("cache-control", "max-age=86400, private")
            .header("access-control-allow-origin", "*")
    }

    /// An issued token.
    pub(super) fn token(body: &Value, uti: Option<String>) -> Self {
        Self { issued: uti, ..Self::json_text(200, body.to_string()).unstored() }
    }

    pub(super) fn refusal(refusal: &Refusal, reference: &Reference, host: &str) -> Self {
        let answer = Self::json_text(refusal.status(), refusal.body(reference, host).to_string());
        Self { refused: Some(refusal.code), ..answer.unstored() }
    }

    /// Notes which refusal this is, where its form does not say.
    #[must_use]
    pub(super) fn refused_as(mut self, refusal: &Refusal) -> Self {
        self.refused = Some(refusal.code);
        self
    }

    fn unstored(self) -> Self {
        self.header("cache-control", "no-store, no-cache")
            .header("pragma", "no-cache")
            .header("expires", "-1")
    }

    #[must_use]
    pub(super) fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Half of the body goes out, then the connection breaks.
    #[must_use]
    pub(super) fn cut(mut self) -> Self {
        self.cut = true;
        self
    }

    /// Other members in the JSON object of the body; null removes one.
    #[must_use]
    pub(super) fn with_members(mut self, members: Map<String, Value>) -> Self {
        let mut body: Map<String, Value> =
            serde_json::from_slice(&self.body).expect("the true answer is a JSON object");
        for (name, value) in members {
            if value.is_null() {
                body.remove(&name);
            } else {
                body.insert(name, value);
            }
        }
        self.body = Value::Object(body).to_string().into_bytes();
        self
    }

    /// A key set of `count` keys. The invented ones leave out what a validator does not read, so
    /// that the number of keys can be too large while the size of the document is not.
    #[must_use]
    pub(super) fn with_many_keys(mut self, count: usize) -> Self {
        let mut set: Value =
            serde_json::from_slice(&self.body).expect("the true answer is a key set");
        let keys = set["keys"].as_array_mut().expect("a key set has keys");
        let model = keys.first().cloned().expect("a key set has a key");
        for number in keys.len()..count {
            keys.push(json!({
                "kty": "RSA",
                "kid": format!("invented-{number}"),
                "n": model["n"],
                "e": model["e"],
                "issuer": model["issuer"],
            }));
        }
        keys.truncate(count);
        self.body = set.to_string().into_bytes();
        self
    }

    /// Adds the ids by which Entra's logs find the request.
    #[must_use]
    pub(super) fn with_reference(self, asked: &Asked) -> Self {
        let answer = self
            .header("x-ms-request-id", &asked.reference.trace_id)
            .header("x-content-type-options", "nosniff")
            .header("strict-transport-security", "max-age=31536000; includeSubDomains");
        match &asked.echo {
            Some(id) => answer.header("client-request-id", id),
            None => answer,
        }
    }

    pub(super) fn into_response(self) -> Response<Body> {
        let mut body = Bytes::from(self.body);
        let length = body.len();
        if self.cut {
            body.truncate(length / 2);
        }
        let mut response =
            Response::new(Body { data: Some(body), cut: self.cut, flushed: false, length });
        *response.status_mut() =
            hyper::StatusCode::from_u16(self.status).expect("a status between 100 and 999");
        for (name, value) in self.headers {
            let name = HeaderName::from_bytes(name.as_bytes()).expect("a header name");
            let value = HeaderValue::from_str(&value).expect("a header value");
            response.headers_mut().append(name, value);
        }
        response.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from(length));
        response
    }
}

/// A body that may break off.
pub(super) struct Body {
    data: Option<Bytes>,
    cut: bool,
    flushed: bool,
    length: usize,
}

impl hyper::body::Body for Body {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        match self.data.take() {
            Some(data) => Poll::Ready(Some(Ok(Frame::data(data)))),
            None if self.cut && !self.flushed => {
                // One turn for hyper, in which it sends what it has.
                self.flushed = true;
                context.waker().wake_by_ref();
                Poll::Pending
            }
            None if self.cut => {
                let reset = io::Error::from(io::ErrorKind::ConnectionReset);
                Poll::Ready(Some(Err(reset)))
            }
            None => Poll::Ready(None),
        }
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(u64::try_from(self.length).unwrap_or(u64::MAX))
    }
}
