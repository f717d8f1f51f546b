//! What callers get from a workload, now and while something happens to it.

use std::{
    collections::BTreeSet,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    sync::atomic::{AtomicBool, Ordering},
    thread,
};

use e2e::client::Request;
use mesh::poll;

use crate::{shop::Open, world::PATIENCE};

/// What callers get: without a token, with the permit marker for one, and with a token.
pub(crate) type Statuses = (u16, u16, u16);
pub(crate) const OPEN: Statuses = (401, 401, 200);
pub(crate) const SHUT: Statuses = (403, 403, 403);

impl Open {
    pub(crate) fn statuses(&self) -> Statuses {
        let get = || Request::get("/orders/7");
        let marked = get().header("x-entra-permit", "1");
        let with_token = get().bearer(&self.world.token());
        let status = |request: &Request| self.call(request).status;
        (status(&get()), status(&marked), status(&with_token))
    }

    pub(crate) fn until_statuses(&self, wanted: Statuses) {
        poll(&format!("{wanted:?}"), PATIENCE, || {
            let found = self.statuses();
            anyhow::ensure!(found == wanted, "it is {found:?}");
            Ok(true)
        })
        .unwrap();
    }

    pub(crate) fn until_open(&self) {
        self.until_statuses(OPEN);
    }

    /// Calls all the time while something is done. Nobody without a token may be let in meanwhile,
    /// and what the caller with one got is the answer.
    pub(crate) fn while_called(&self, act: impl FnOnce()) -> BTreeSet<u16> {
        let over = AtomicBool::new(false);
        thread::scope(|scope| {
            let calls = scope.spawn(|| {
                let mut with_token = BTreeSet::new();
                while !over.load(Ordering::Relaxed) {
                    let (without, marked, with) = self.statuses();
                    assert!([401, 403].contains(&without), "{without} without a token");
                    assert!([401, 403].contains(&marked), "{marked} with the marker");
                    with_token.insert(with);
                }
                with_token
            });
            let acted = catch_unwind(AssertUnwindSafe(act));
            over.store(true, Ordering::Relaxed);
            let with_token = calls.join().unwrap();
            acted.unwrap_or_else(|panic| resume_unwind(panic));
            with_token
        })
    }

    /// Every request that reached the application is one that the filter gave an identity.
    pub(crate) fn only_identified_requests_got_through(&self) {
        for request in self.seen().iter().filter(|event| event["event"] == "request") {
            let headers = request["headers"].as_array().unwrap();
            assert!(headers.iter().any(|line| line[0] == "x-entra-client-id"), "{request}");
        }
    }

    /// What Envoy was last given for the filter, taken or not.
    pub(crate) fn filter_given(&self) -> String {
        self.config_dump("?resource=ecds_filters")
    }

    /// Envoy's configuration; by pilot-agent, for the admin port is closed to others.
    pub(crate) fn config_dump(&self, query: &str) -> String {
        let ask = ["pilot-agent", "request", "GET", &format!("config_dump{query}")];
        let answer = self.world.mesh.exec(self.namespace, &self.pod, "istio-proxy", &ask).unwrap();
        assert_eq!(answer.code, 0, "{}", answer.stderr);
        // Before it, pilot-agent may warn of what its image does not have.
        let begin = answer.stdout.find("{\n").unwrap_or_default();
        answer.stdout.get(begin..).unwrap().to_owned()
    }

    /// How many lines of istio-proxy's log have this.
    pub(crate) fn log_lines(&self, with: &str) -> usize {
        self.proxy_log().lines().filter(|line| line.contains(with)).count()
    }
}
