//! What became of a request: refused with nothing at the upstream, or passed on.
//!
//! Every denial that a test sees goes through here, so that each also shows that the upstream saw
//! nothing of it.

use std::{net::SocketAddr, time::Duration};

use super::{Record, Stack};
use crate::{
    client::{Answer, DEADLINE, Request},
    upstream::{Recorded, Upstream},
};

/// How often a condition is looked at again.
const PAUSE: Duration = Duration::from_millis(10);

impl Stack {
    /// Sends a request to the application that the filter must refuse.
    pub async fn denied(&self, request: &Request, status: u16, reason: &str) -> Answer {
        let before = seen(&self.application);
        let (answer, record) = self.call_recorded(request).await;
        judge(request, &answer, &record, status, reason);
        assert_eq!(seen(&self.application), before, "the application saw some of {request:?}");
        answer
    }

    /// Sends a request to the application that must get there; gives what the application saw.
    pub async fn passed(&self, request: &Request) -> Recorded {
        let before = self.application.count();
        let (answer, record) = self.call_recorded(request).await;
        assert_eq!(answer.status, 200, "{request:?}\n{}\n{record:?}", answer.text());
        assert_eq!(self.application.count(), before + 1, "{request:?}");
        self.application.latest()
    }

    /// Sends a request to Graph that the filter must refuse.
    pub async fn graph_denied(&self, request: &Request, status: u16, reason: &str) -> Answer {
        let before = seen(&self.graph);
        let id = Self::next_id();
        let answer = self.call_graph(request.clone().header("x-request-id", &id)).await;
        let record = self.outbound_record(&id).await;
        judge(request, &answer, &record, status, reason);
        assert_eq!(seen(&self.graph), before, "Graph saw some of {request:?}");
        answer
    }

    /// Sends a request to Graph that must get there; gives what Graph saw.
    pub async fn graph_passed(&self, request: &Request) -> Recorded {
        let before = self.graph.count();
        let answer = self.call_graph(request.clone()).await;
        assert_eq!(answer.status, 200, "{request:?}\n{}", answer.text());
        assert_eq!(self.graph.count(), before + 1, "{request:?}");
        self.graph.latest()
    }

    /// Calls until the answer has the status, and gives the last one; fails at the deadline.
    ///
    /// Meanwhile no other status may be seen than 503.
    pub async fn until(&self, listener: SocketAddr, request: &Request, status: u16) -> Answer {
        let call = async {
            loop {
                let answer = request.send(listener).await;
                if answer.status == status {
                    return answer;
                }
                assert_eq!(answer.status, 503, "{request:?}: {}", answer.text());
                tokio::time::sleep(PAUSE).await;
            }
        };
        let done = tokio::time::timeout(DEADLINE, call).await;
        done.unwrap_or_else(|_elapsed| panic!("no {status} in time: {request:?}"))
    }

    /// Waits until a counter or gauge of Envoy satisfies a condition.
    pub async fn stat(&self, name: &str, is_right: impl Fn(u64) -> bool) {
        let wait = async {
            while !is_right(self.envoy.stats().await.get(name).copied().unwrap_or(0)) {
                tokio::time::sleep(PAUSE).await;
            }
        };
        let done = tokio::time::timeout(DEADLINE, wait).await;
        if done.is_err() {
            panic!("{name} is {:?}", self.envoy.stats().await.get(name));
        }
    }

    /// Waits until so many requests are under way on the `inbound` or `outbound` listener.
    pub async fn under_way(&self, listener: &str, count: u64) {
        self.stat(&format!("http.{listener}.downstream_rq_active"), |now| now == count).await;
    }
}

fn seen(upstream: &Upstream) -> (usize, u64) {
    (upstream.count(), upstream.bytes())
}

fn judge(request: &Request, answer: &Answer, record: &Record, status: u16, reason: &str) {
    let context = format!("{request:?}\n{} {}\n{record:?}", answer.status, answer.text());
    assert_eq!(record.get("reason"), Some(reason), "{context}");
    assert_eq!(answer.status, status, "{context}");
    assert!(!answer.text().contains(reason), "the body tells the reason: {context}");
    assert_eq!(answer.header("retry-after").is_some(), status == 503, "{context}");
}
